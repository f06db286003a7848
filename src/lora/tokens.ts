import { ConfigError } from "../errors.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalLM } from "../models/causal.js";
import { resizeTables } from "./tables.js";

/** Options of `addTokens`. */
export interface AddTokensOptions {
  /** The number of rows of the tables becomes a multiple of it. */
  padTo?: number;
  /** Whether they are left out of decoded text, as roles are; true by default. */
  special?: boolean;
}

/** A tokenizer with further tokens, and rows for them in the model's tables where there are too few. */
export function addTokens(
  network: CausalLM,
  tokenizer: Tokenizer,
  tokens: readonly string[],
  { padTo = 1, special = true }: AddTokensOptions,
): { tokenizer: Tokenizer; resized: boolean } {
  if (!Number.isInteger(padTo) || padTo < 1)
    throw new ConfigError(`addTokens: padTo must be a whole number from 1, received ${padTo}.`);
  const larger = tokenizer.withTokens(tokens, special);
  const { vocabSize } = network.config;
  const rows = Math.ceil(Math.max(vocabSize, larger.vocabSize) / padTo) * padTo;
  if (rows > vocabSize) resizeTables(network, rows).keep();
  return { tokenizer: larger, resized: rows > vocabSize };
}
