/** When a run ends because the validation loss no longer falls, as transformers' EarlyStoppingCallback has it. */
import { ConfigError } from "../errors.js";

/** Measurements without a loss that is lower by more than `threshold` after which the run ends; a number alone is the patience. */
export type EarlyStoppingOption = number | { patience: number; threshold?: number };

export interface EarlyStopping {
  patience: number;
  threshold: number;
}

/** @throws ConfigError naming the option, what it must be and what came. */
export function earlyStopping(option: EarlyStoppingOption): EarlyStopping {
  const given = typeof option === "number" ? { patience: option } : option;
  const { patience, threshold = 0 } = given ?? {};
  if (!Number.isInteger(patience) || patience < 1 || !(threshold >= 0))
    throw new ConfigError(
      `train: earlyStopping must be a whole number of measurements from 1, or { patience, threshold } with a threshold from 0, received ${JSON.stringify(option)}.`,
    );
  return { patience, threshold };
}

/** Whether a loss is better than the lowest so far by enough to go on. */
export function improves(loss: number, best: number | undefined, threshold: number): boolean {
  return best === undefined || best - loss > threshold;
}
