import { ConfigError } from "../errors.js";

/** Options of `addLora` (api.md). */
export interface LoraOptions {
  /** r: rows of A, columns of B. */
  rank: number;
  /** Numerator of the scale; equal to rank by default. */
  alpha?: number;
  /** Probability with which an input of A is dropped while training. */
  dropout?: number;
  /** Names (or ends of names) of the layers; "all-linear" is every linear layer but the head. The architecture's default otherwise. */
  target?: readonly string[] | string;
  bias?: "none";
  /** Scale alpha/sqrt(rank) instead of alpha/rank (Kalajdzievski 2023). */
  rslora?: boolean;
  dora?: boolean;
  init?: "default" | "gaussian" | "pissa" | "loftq";
  modulesToSave?: readonly string[];
  /** Seed of A's initial values. */
  seed?: number;
  /** Name of the adapter, "default" otherwise. */
  name?: string;
}

/** Checked options with their defaults. */
export interface LoraSettings {
  rank: number;
  alpha: number;
  dropout: number;
  target: readonly string[] | "all-linear" | undefined;
  rslora: boolean;
  init: "default" | "gaussian";
  seed: number | undefined;
  name: string;
}

/** Checks the user's options. @throws ConfigError naming the option, what it must be and what came. */
export function loraSettings(options: LoraOptions): LoraSettings {
  const {
    rank,
    alpha = rank,
    dropout = 0,
    target,
    rslora = false,
    init = "default",
    seed,
    name = "default",
  } = options ?? {};
  if (!Number.isInteger(rank) || rank < 1)
    throw new ConfigError(`addLora: rank must be a whole number from 1, received ${rank}.`);
  if (!Number.isFinite(alpha) || alpha <= 0)
    throw new ConfigError(`addLora: alpha must be a positive number, received ${alpha}.`);
  if (!(dropout >= 0 && dropout < 1)) throw new ConfigError(`addLora: dropout must be in [0, 1), received ${dropout}.`);
  if (init !== "default" && init !== "gaussian")
    throw new ConfigError(
      `addLora: init must be "default" or "gaussian", received "${init}"; others are not available yet.`,
    );
  if (options.bias !== undefined && options.bias !== "none")
    throw new ConfigError(
      `addLora: bias must be "none", received "${options.bias}"; training biases is not available yet.`,
    );
  if (options.dora) throw new ConfigError("addLora: dora is not available yet; leave it out.");
  if (options.modulesToSave?.length)
    throw new ConfigError("addLora: modulesToSave is not available yet; leave it out.");
  if (!/^[A-Za-z0-9_-]+$/.test(name))
    throw new ConfigError(`addLora: name must be letters, digits, "_" or "-", received "${name}".`);
  const targets = typeof target === "string" && target !== "all-linear" ? [target] : target;
  if (Array.isArray(targets) && targets.length === 0)
    throw new ConfigError('addLora: target is empty; name layers, or use "all-linear".');
  return { rank, alpha, dropout, target: targets as LoraSettings["target"], rslora, init, seed, name };
}
