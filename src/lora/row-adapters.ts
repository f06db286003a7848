import { ConfigError } from "../errors.js";
import type { Module } from "../nn/module.js";
import { hasBiases } from "./biases.js";

/** How several prompts are continued. */
export interface BatchOptions {
  /** Prompts at a time, 8 by default. */
  batch?: number;
  /**
   * The adapter of each prompt, null for none; without it the active one is for all of them. Rows of different adapters share the passes through the model:
   * the layers' own products are made of all of them at once.
   */
  adapters?: readonly (string | null)[];
}

/**
 * Checked options of a batch of `count` prompts; `adapters` as generation takes them, "" for none.
 *
 * @param active the model's active adapter.
 * @throws ConfigError naming the option; for adapters with biases of their own, which stand in the base layers, the same for all rows.
 */
export function batchSettings<T extends BatchOptions>(
  model: Module,
  options: T,
  count: number,
  active: string | undefined,
): Omit<T, "adapters"> & { batch: number; adapters: string[] | undefined } {
  const { batch = 8, adapters } = options;
  if (!Number.isInteger(batch) || batch < 1)
    throw new ConfigError(`generate: batch must be a whole number from 1, received ${batch}.`);
  const each = adapters && rowAdapters(model, adapters, count, active);
  return { ...options, batch, adapters: each };
}

function rowAdapters(
  model: Module,
  adapters: readonly (string | null)[],
  count: number,
  active: string | undefined,
): string[] {
  if (!Array.isArray(adapters) || adapters.length !== count)
    throw new ConfigError(
      `generate: adapters must name one for each of the ${count} prompts (null: none), received ${Array.isArray(adapters) ? adapters.length : String(adapters)}.`,
    );
  for (const name of new Set(adapters))
    if (name !== null && hasBiases(model, name))
      throw new ConfigError(
        `generate: the adapter "${name}" has biases of its own, which rows of one batch cannot have; make it the active one by setAdapter and leave adapters out.`,
      );
  if (active !== undefined && hasBiases(model, active))
    throw new ConfigError(
      `generate: the active adapter "${active}" has biases of its own, which would be in the way of adapters; make another one the active one.`,
    );
  return adapters.map((name) => name ?? "");
}
