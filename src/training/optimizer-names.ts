import { ConfigError } from "../errors.js";

/** Optimizers of `train`. The paged ones keep their states in pinned host memory on a GPU; on the CPU they are the plain ones. */
export type OptimizerName = "adamw" | "adamw8bit" | "paged-adamw" | "paged-adamw8bit" | "sgd";

/** What transformers' and TRL's `optim` calls them, accepted as well. */
const ALIASES = {
  adamw_torch: "adamw",
  adamw_torch_fused: "adamw",
  adamw_hf: "adamw",
  adamw_8bit: "adamw8bit",
  adamw_bnb_8bit: "adamw8bit",
  paged_adamw: "paged-adamw",
  paged_adamw_32bit: "paged-adamw",
  paged_adamw_8bit: "paged-adamw8bit",
  pagedadamw: "paged-adamw",
  pagedadamw8bit: "paged-adamw8bit",
} as const satisfies Record<string, OptimizerName>;

/** A name of `train`'s option `optimizer`. */
export type OptimizerOption = OptimizerName | keyof typeof ALIASES;

const NAMES: readonly OptimizerName[] = ["adamw", "adamw8bit", "paged-adamw", "paged-adamw8bit", "sgd"];

/** The optimizer that is meant. @throws ConfigError listing the names. */
export function optimizerName(name: OptimizerOption): OptimizerName {
  if ((NAMES as readonly string[]).includes(name)) return name as OptimizerName;
  if (Object.hasOwn(ALIASES, name)) return ALIASES[name as keyof typeof ALIASES];
  throw new ConfigError(
    `train: optimizer must be one of ${NAMES.join(", ")} (or transformers' name of one of them), received ${JSON.stringify(name)}.`,
  );
}

/** What an optimizer computes, and whether its states are paged. */
export function optimizerKind(name: OptimizerName): { kind: "adamw" | "adamw8bit" | "sgd"; paged: boolean } {
  const paged = name.startsWith("paged-");
  return { kind: (paged ? name.slice("paged-".length) : name) as "adamw" | "adamw8bit" | "sgd", paged };
}
