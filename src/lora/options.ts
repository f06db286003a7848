import { ConfigError } from "../errors.js";
import { type QuantizeOptions, quantizeSettings } from "../quantization/nf4.js";

/** How a new adapter's matrices begin. */
export type LoraInit = "default" | "gaussian" | "pissa" | "loftq";

/** Options of `addLora` (api.md); PEFT's name of each stands in its LoraConfig. */
export interface LoraOptions {
  /** r: rows of A, columns of B. */
  rank: number;
  /** Numerator of the scale; equal to rank by default. */
  alpha?: number;
  /** Probability with which an input of A is dropped while training. */
  dropout?: number;
  /**
   * Which layers: names or ends of names, one pattern (a regular expression for the whole name), or "all-linear", every linear layer but the head.
   * The architecture's default otherwise. Embeddings ("embed_tokens") and the output layer ("lm_head") can be named.
   */
  target?: readonly string[] | string;
  /** Layers left out although `target` means them: names, ends of names, or one pattern. */
  exclude?: readonly string[] | string;
  /** Numbers of the blocks that are adapted (PEFT's `layers_to_transform`); `target` must be a list. */
  layers?: readonly number[] | number;
  /** What stands before the number in the layers' names ("layers"); any name by default. */
  layersPattern?: readonly string[] | string;
  /** Other ranks by name or pattern, the first that fits: { "q_proj": 32, "layers\\.0\\..*": 4 }. */
  rankPattern?: Readonly<Record<string, number>>;
  /** Other alphas by name or pattern. */
  alphaPattern?: Readonly<Record<string, number>>;
  /** Which biases of the base model are trained: none, all, or those of adapted layers. */
  bias?: "none" | "all" | "lora_only";
  /** Gives B a bias of its own. */
  loraBias?: boolean;
  /** Scale alpha/sqrt(rank) instead of alpha/rank (Kalajdzievski 2023). */
  rslora?: boolean;
  /** Trains the length of each weight row apart from its direction (Liu et al. 2024). */
  dora?: boolean;
  /**
   * "default": A uniform, B zero. "gaussian": A normal. "pissa": the largest singular vectors of the weight, which is left with the rest (Meng et al.
   * 2024). "loftq": the weight is quantised and the adapter begins with the best correction of its error (Li et al. 2023).
   */
  init?: LoraInit;
  /** How "loftq" quantises, and how often quantisation and decomposition take turns (1 by default). */
  loftq?: { iterations?: number; quantize?: QuantizeOptions };
  /** Modules that are trained whole and saved with the adapter: ends of names, as in PEFT. */
  modulesToSave?: readonly string[];
  /** Seed of A's initial values. */
  seed?: number;
  /** Name of the adapter, "default" otherwise. */
  name?: string;
}

/** Which layers an adapter means. */
export interface TargetRules {
  target: readonly string[] | string | undefined;
  exclude: readonly string[] | string;
  layers: readonly number[] | undefined;
  layersPattern: readonly string[];
  modulesToSave: readonly string[];
}

/** Checked options with their defaults. */
export interface LoraSettings extends TargetRules {
  rank: number;
  alpha: number;
  dropout: number;
  rankPattern: Readonly<Record<string, number>>;
  alphaPattern: Readonly<Record<string, number>>;
  bias: "none" | "all" | "lora_only";
  loraBias: boolean;
  rslora: boolean;
  dora: boolean;
  init: LoraInit;
  loftq: { iterations: number; quantize: QuantizeOptions };
  seed: number | undefined;
  name: string;
}

const KNOWN: Readonly<Record<keyof LoraOptions, true>> = {
  rank: true,
  alpha: true,
  dropout: true,
  target: true,
  exclude: true,
  layers: true,
  layersPattern: true,
  rankPattern: true,
  alphaPattern: true,
  bias: true,
  loraBias: true,
  rslora: true,
  dora: true,
  init: true,
  loftq: true,
  modulesToSave: true,
  seed: true,
  name: true,
};

/** Names of all options of `addLora`. */
export const LORA_OPTIONS: readonly string[] = Object.keys(KNOWN).sort();

/** Checks the user's options. @throws ConfigError naming the option, what it must be and what came. */
export function loraSettings(options: LoraOptions): LoraSettings {
  const given = options ?? ({} as LoraOptions);
  for (const key of Object.keys(given)) {
    if (!Object.hasOwn(KNOWN, key))
      throw new ConfigError(`addLora: unknown option "${key}"; there are ${LORA_OPTIONS.join(", ")}.`);
  }
  const { rank, alpha = rank, dropout = 0, bias = "none", init = "default", name = "default" } = given;
  const { rankPattern = {}, alphaPattern = {}, modulesToSave = [], seed } = given;
  must(Number.isInteger(rank) && rank >= 1, "rank", "a whole number from 1", rank);
  must(Number.isFinite(alpha) && alpha > 0, "alpha", "a positive number", alpha);
  must(dropout >= 0 && dropout < 1, "dropout", "in [0, 1)", dropout);
  oneOf("init", init, ["default", "gaussian", "pissa", "loftq"]);
  oneOf("bias", bias, ["none", "all", "lora_only"]);
  must(/^[A-Za-z0-9_-]+$/.test(name), "name", 'letters, digits, "_" or "-"', name);
  for (const [pattern, r] of Object.entries(rankPattern))
    must(Number.isInteger(r) && r >= 1, `rankPattern["${pattern}"]`, "a whole number from 1", r);
  for (const [pattern, a] of Object.entries(alphaPattern))
    must(Number.isFinite(a) && a > 0, `alphaPattern["${pattern}"]`, "a positive number", a);
  must(names(modulesToSave), "modulesToSave", "a list of names", modulesToSave);
  const target = targetOption(given.target);
  const layers = typeof given.layers === "number" ? [given.layers] : given.layers;
  if (layers) {
    must(layers.length > 0 && layers.every((n) => Number.isInteger(n) && n >= 0), "layers", "whole numbers", layers);
    if (typeof target === "string")
      throw new ConfigError("addLora: layers belongs to a target that is a list of names; put them into the pattern.");
  }
  if (given.layersPattern !== undefined && !layers)
    throw new ConfigError("addLora: layersPattern says where the numbers of `layers` stand; give layers too.");
  const { iterations = 1, quantize = { type: "nf4" } } = given.loftq ?? {};
  if (given.loftq && init !== "loftq")
    throw new ConfigError('addLora: loftq belongs to init "loftq"; give that, or leave loftq out.');
  must(Number.isInteger(iterations) && iterations >= 1, "loftq.iterations", "a whole number from 1", iterations);
  quantizeSettings(quantize);
  if (given.loraBias && (given.dora || bias !== "none" || init === "pissa" || init === "loftq"))
    throw new ConfigError('addLora: loraBias goes with neither dora nor a trained bias nor init "pissa" or "loftq".');
  return {
    rank,
    alpha,
    dropout,
    target,
    exclude: given.exclude ?? [],
    layers,
    layersPattern: typeof given.layersPattern === "string" ? [given.layersPattern] : (given.layersPattern ?? []),
    rankPattern,
    alphaPattern,
    bias,
    loraBias: given.loraBias ?? false,
    rslora: given.rslora ?? false,
    dora: given.dora ?? false,
    init,
    loftq: { iterations, quantize },
    modulesToSave,
    seed,
    name,
  };
}

const names = (value: unknown): boolean =>
  Array.isArray(value) && value.every((v) => typeof v === "string" && v !== "");

// A word alone is a name; anything else in a string is a pattern, as in PEFT.
function targetOption(target: LoraOptions["target"]): LoraSettings["target"] {
  if (target === undefined || target === "all-linear") return target;
  if (typeof target === "string" && target !== "") return /^[\w.]+$/.test(target) ? [target] : target;
  if (Array.isArray(target) && target.length === 0)
    throw new ConfigError('addLora: target is empty; name layers, or use "all-linear".');
  must(names(target), "target", 'a list of names, a pattern or "all-linear"', target);
  return target;
}

function must(good: boolean, option: string, expected: string, value: unknown): void {
  const shown = typeof value === "string" ? `"${value}"` : Array.isArray(value) ? JSON.stringify(value) : String(value);
  if (!good) throw new ConfigError(`addLora: ${option} must be ${expected}, received ${shown}.`);
}

function oneOf(option: string, value: string, allowed: readonly string[]): void {
  must(allowed.includes(value), option, `one of ${allowed.map((v) => `"${v}"`).join(", ")}`, value);
}
