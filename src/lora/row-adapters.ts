import { ConfigError } from "../errors.js";
import type { Module } from "../nn/module.js";
import { hasBiases } from "./biases.js";

/** How several prompts are continued. */
export interface BatchOptions {
  /** Prompts at a time, 8 by default. */
  batch?: number;
  /** The adapter of each prompt, null for none; without it the active one is for all of them. */
  adapters?: readonly (string | null)[];
}

/**
 * The adapter of each of `count` prompts as generation takes it, "" for none.
 *
 * @param active the model's active adapter.
 * @throws ConfigError for another number of them, or one with biases of its own: these stand in the base layers, the same for all rows.
 */
export function rowAdapters(
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
