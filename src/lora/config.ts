import { ConfigError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import type { Json } from "../hub/json.js";
import type { AdapterInfo } from "./adapter.js";
import type { LoraInit, LoraSettings } from "./options.js";

/** Fields of PEFT's LoraConfig that change the result and are not supported: each with the values that change nothing. */
const INERT: Readonly<Record<string, readonly unknown[]>> = {
  fan_in_fan_out: [false, null],
  target_parameters: [null],
  layer_replication: [null],
  trainable_token_indices: [null],
  ensure_weight_tying: [false, null],
  use_qalora: [false, null],
  alora_invocation_tokens: [null],
  arrow_config: [null],
  use_bdlora: [false, null],
  kasa_config: [null],
  velora_config: [null],
  monteclora_config: [null],
  megatron_config: [null],
};

/** Ways to begin that leave the base model as it is. */
const HARMLESS: readonly unknown[] = [undefined, null, true, false, "gaussian", "orthogonal", "eva", "mica"];
const LARGEST_RANK = 65536;

const isText = (v: Json): v is string => typeof v === "string" && v !== "";
const isCount = (v: Json): v is number => typeof v === "number" && Number.isSafeInteger(v) && v >= 0;

/** Reads adapter_config.json. @throws ConfigError for a field of a wrong kind, or one that changes the result and is not supported. */
export function settingsFromConfig(fields: ConfigFields, name: string): LoraSettings {
  checkSupported(fields);
  const absent = (key: string): boolean => fields.get(key) === undefined || fields.get(key) === null;
  const list = (key: string): readonly string[] | string => {
    if (absent(key)) return [];
    const value = fields.get(key);
    return typeof value === "string" ? value : fields.array(key, "names", isText);
  };
  const flag = (key: string): boolean => !absent(key) && fields.boolean(key);
  const target = list("target_modules");
  if (target.length === 0) throw fields.wrong("target_modules", "a list of names, a pattern or all-linear");
  const layers = fields.get("layers_to_transform");
  const patterns = list("layers_pattern");
  const saved = list("modules_to_save");
  return {
    rank: fields.integer("r", { min: 1, max: LARGEST_RANK }),
    alpha: fields.number("lora_alpha"),
    dropout: absent("lora_dropout") ? 0 : fields.number("lora_dropout", { min: 0, max: 0.9999999 }),
    target: typeof target === "string" && target.toLowerCase() === "all-linear" ? "all-linear" : target,
    exclude: list("exclude_modules"),
    layers: absent("layers_to_transform")
      ? undefined
      : isCount(layers!)
        ? [layers]
        : fields.array("layers_to_transform", "whole numbers", isCount),
    layersPattern: typeof patterns === "string" ? [patterns] : patterns,
    modulesToSave: typeof saved === "string" ? [saved] : saved,
    rankPattern: numbers(fields, "rank_pattern", (v) => Number.isInteger(v) && v >= 1 && v <= LARGEST_RANK),
    alphaPattern: numbers(fields, "alpha_pattern", Number.isFinite),
    bias: absent("bias")
      ? "none"
      : (fields.string("bias", { oneOf: ["none", "all", "lora_only"] }) as LoraSettings["bias"]),
    loraBias: flag("lora_bias"),
    rslora: flag("use_rslora"),
    dora: flag("use_dora"),
    init: initOf(fields),
    loftq: {
      iterations: fields.object("loftq_config")?.integer("loftq_iter", { default: 1, min: 1, max: 64 }) ?? 1,
      quantize: { type: "nf4" },
    },
    seed: undefined,
    name,
  };
}

function numbers(fields: ConfigFields, key: string, good: (v: number) => boolean): Record<string, number> {
  const found = fields.object(key);
  if (!found) return {};
  return Object.fromEntries(
    Object.keys(found.values).map((pattern) => {
      const value = found.number(pattern);
      if (!good(value)) throw found.wrong(pattern, "a positive whole number");
      return [pattern, value];
    }),
  );
}

function checkSupported(fields: ConfigFields): void {
  const type = fields.string("peft_type", { default: "LORA" });
  if (type !== "LORA")
    throw new ConfigError(`${fields.where}: peft_type "${type}" is not supported; only LORA adapters can be loaded.`);
  for (const [key, inert] of Object.entries(INERT)) {
    const value = fields.get(key);
    const empty =
      (Array.isArray(value) && value.length === 0) ||
      (typeof value === "object" && value !== null && Object.keys(value).length === 0);
    if (value !== undefined && !empty && !inert.includes(value)) {
      throw new ConfigError(
        `${fields.where}: ${key} = ${JSON.stringify(value)} changes what the adapter computes and is not supported yet.`,
      );
    }
  }
}

// PiSSA and LoftQ change the base model; PEFT does so again when it loads such an adapter, and so is it done here.
function initOf(fields: ConfigFields): LoraInit {
  const init = fields.get("init_lora_weights");
  if (HARMLESS.includes(init)) return init === "gaussian" ? "gaussian" : "default";
  if (init === "pissa") return "pissa";
  if (init === "loftq") {
    const bits = fields.object("loftq_config")?.integer("loftq_bits", { default: 4 }) ?? 4;
    if (bits === 4) return "loftq";
    throw new ConfigError(`${fields.where}: loftq_bits ${bits} is not supported; 4 is.`);
  }
  throw new ConfigError(
    `${fields.where}: init_lora_weights ${JSON.stringify(init)} needs a base model that was changed with it. Save the adapter in PEFT with path_initial_model_for_weight_conversion, which makes a plain one of it.`,
  );
}

/** What adapter_config.json says of an adapter that was made here. @param doubled whether its matrices stand beside their initial values. */
export function adapterConfig(
  { settings: s, targets, base }: AdapterInfo,
  doubled: boolean,
  task: "CAUSAL_LM" | "SEQ_CLS",
): Record<string, unknown> {
  // Twice the rank at the same scale.
  const larger = doubled ? (s.rslora ? Math.SQRT2 : 2) : 1;
  const times = (values: Readonly<Record<string, number>>, factor: number): Record<string, number> =>
    Object.fromEntries(Object.entries(values).map(([key, v]) => [key, v * factor]));
  const orNull = <T>(list: readonly T[] | string): readonly T[] | string | null => (list.length === 0 ? null : list);
  return {
    peft_type: "LORA",
    task_type: task,
    base_model_name_or_path: base,
    revision: null,
    inference_mode: true,
    r: s.rank * (doubled ? 2 : 1),
    lora_alpha: s.alpha * larger,
    lora_dropout: s.dropout,
    target_modules: targets,
    exclude_modules: orNull(s.exclude),
    bias: s.bias,
    lora_bias: s.loraBias,
    fan_in_fan_out: false,
    use_rslora: s.rslora,
    use_dora: s.dora,
    modules_to_save: orNull(s.modulesToSave),
    init_lora_weights: s.init === "gaussian" ? "gaussian" : true,
    layers_to_transform: s.layers ?? null,
    layers_pattern: orNull(s.layersPattern),
    rank_pattern: times(s.rankPattern, doubled ? 2 : 1),
    // A layer with a rank of its own and the common alpha keeps its scale too, as both double.
    alpha_pattern: times(s.alphaPattern, larger),
    loftq_config: {},
  };
}
