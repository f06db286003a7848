import { collate } from "../data/collate.js";
import { type Example, IGNORED, trainedTargets } from "../data/mask.js";
import { throwIfInterrupted } from "../display/host.js";
import { ConfigError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { batchLoss } from "./loss.js";

/** What a likelihood is divided by: nothing, the completion's tokens, or its bytes of UTF-8 (as the LM Evaluation Harness' acc_norm has it). */
export type Normalize = "none" | "tokens" | "bytes";

/** Log-probability of an example's trained tokens, in nats, and their number. */
export interface Score {
  logProbability: number;
  tokens: number;
}

/** Options of scoring. */
export interface ScoreOptions {
  /** Examples at a time. */
  batch: number;
  /** The id that fills rows. */
  padId: number;
  signal?: AbortSignal | undefined;
  /** Called with the examples done so far. */
  onDone?: ((done: number) => void) | undefined;
}

/** Scores examples one by one, without gradients; padding takes no part. */
export async function scoreExamples(
  network: CausalLM,
  examples: readonly Example[],
  { batch, padId, signal, onDone }: ScoreOptions,
): Promise<Score[]> {
  const scores: Score[] = [];
  for (let at = 0; at < examples.length; at += batch) {
    throwIfInterrupted("Evaluation", signal);
    const part = examples.slice(at, at + batch);
    const b = collate(part, { padId, paddingSide: "none" });
    const losses = scope(() => noGrad(() => batchLoss(network, b, 1).rows));
    const values = await losses.data();
    losses.dispose();
    part.forEach((example, i) => {
      const begin = b.sequences.begin[i]!;
      let sum = 0;
      for (let t = begin; t < begin + example.ids.length; t++) if (b.labels[t] !== IGNORED) sum += values[t]!;
      scores.push({ logProbability: -sum, tokens: trainedTargets(example) });
    });
    onDone?.(scores.length);
  }
  return scores;
}

/** An example of at most `maxLength` tokens: what follows the BOS is cut from the left, so that the completion stays whole. */
export function keepEnd(example: Example, maxLength: number, prefix: number): Example {
  const { ids, labels } = example;
  if (ids.length <= maxLength) return example;
  const cut = (values: Int32Array): Int32Array => {
    const out = new Int32Array(maxLength);
    out.set(values.subarray(0, prefix));
    out.set(values.subarray(values.length - maxLength + prefix), prefix);
    return out;
  };
  return { ids: cut(ids), labels: cut(labels) };
}

/** A score as it is compared with others. */
export function comparable({ logProbability, tokens }: Score, text: string, normalize: Normalize): number {
  if (normalize === "tokens") return logProbability / Math.max(1, tokens);
  if (normalize === "bytes") return logProbability / Math.max(1, Buffer.byteLength(text));
  return logProbability;
}

/** Number of the largest value, the first of equals. */
export function largest(values: readonly number[]): number {
  return values.indexOf(values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY));
}

/** Shares of the candidates that the comparable scores give (softmax). */
export function shares(values: readonly number[]): number[] {
  const most = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const weights = values.map((value) => Math.exp(value - most));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** @throws ConfigError for anything but the three. */
export function checkNormalize(value: unknown): void {
  if (value !== "none" && value !== "tokens" && value !== "bytes")
    throw new ConfigError(
      `evaluate: normalize must be "none", "tokens" or "bytes", received ${JSON.stringify(value)}.`,
    );
}
