/** Log-probabilities of pairs of answers: one forward pass for both, no matrix of (tokens, vocab). */
import { discard, endParts } from "../autograd/checkpoint.js";
import { type Batch, collate } from "../data/collate.js";
import { type Example, IGNORED } from "../data/mask.js";
import { type Pair, tokenizePairs } from "../data/preference.js";
import type { Rows } from "../data/tokenize.js";
import { throwIfInterrupted, toItsEnd } from "../display/host.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalLM } from "../models/causal.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { rowsOf } from "./loss.js";

/** The examples of pairs, the chosen answer of each before the rejected one: what `collate` makes a batch of. */
export function pairExamples(pairs: readonly Pair[]): Example[] {
  return pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]);
}

/** Labelled tokens of each answer of a batch of B pairs: (2B), those of the chosen ones first. */
export function answerLengths(batch: Batch): Float32Array {
  const { begin, length } = batch.sequences;
  return Float32Array.from(order(begin.length), (s) => {
    let count = 0;
    for (let t = begin[s]!; t < begin[s]! + length[s]!; t++) if (batch.labels[t] !== IGNORED) count++;
    return count;
  });
}

/** Tokens of the chosen sequences, prompts included, that something precedes. */
export function chosenTokens(batch: Batch): number {
  return batch.sequences.length.reduce((n, length, s) => n + (s % 2 === 0 ? length - 1 : 0), 0);
}

/** The sequences of a batch of pairs: the chosen ones, then the rejected ones. */
function order(sequences: number): number[] {
  return Array.from({ length: sequences }, (_, i) => (i < sequences / 2 ? 2 * i : 2 * i - sequences + 1));
}

/**
 * Log-probabilities of the answers of a batch of B pairs, in nats, with gradients: (2B, 1), the chosen ones first.
 *
 * @param of "sum" over an answer's tokens, or "mean".
 * @param nll Also one row more, (2B + 1, 1): the sum of cross entropies of all tokens of the chosen sequences, prompts included (ORPO's).
 */
export function pairLogps(model: CausalLM, batch: Batch, of: "sum" | "mean", nll = false): Tensor {
  const { begin, length } = batch.sequences;
  const count = begin.length;
  const rows = batch.labels.length;
  const labels = Int32Array.from(batch.labels);
  const weights = new Float32Array((count + (nll ? 1 : 0)) * rows);
  const lengths = answerLengths(batch);
  for (const [g, s] of order(count).entries()) {
    const end = begin[s]! + length[s]! - 1;
    for (let t = begin[s]!; t < end; t++) {
      if (labels[t] !== IGNORED) weights[g * rows + t] = of === "mean" ? -1 / lengths[g]! : -1;
      if (!nll || s % 2 === 1) continue;
      labels[t] = batch.inputIds[t + 1]!;
      weights[count * rows + t] = 1;
    }
  }
  const h = model.hidden(rowsOf(model, batch));
  endParts();
  const losses = model.headRows(h, tensor(labels, { device: model.device })); // (rows)
  discard([h], [losses]);
  const summed = tensor(weights, { device: model.device }).reshape(weights.length / rows, rows);
  return summed.matmul(losses.reshape(rows, 1));
}

/** Summed log-probabilities without gradients, [chosen, rejected] of each pair. Every pair goes alone: what is beside it changes no bit. */
export async function referenceLogps(
  model: CausalLM,
  pairs: readonly Pair[],
  options: {
    signal?: AbortSignal | undefined;
    of?: "sum" | "mean";
    onPair?: ((done: number) => void) | undefined;
  } = {},
): Promise<Float32Array> {
  const out = new Float32Array(2 * pairs.length);
  for (const [i, pair] of pairs.entries()) {
    throwIfInterrupted("Preference", options.signal);
    const batch = collate(pairExamples([pair]), { paddingSide: "none" });
    // Stopped in the middle, whoever has switched an adapter off for this could not switch it on again.
    const logps = toItsEnd(() => scope(() => noGrad(() => pairLogps(model, batch, options.of ?? "sum"))));
    out.set(await logps.data(), 2 * i);
    logps.dispose();
    options.onPair?.(i + 1);
  }
  return out;
}

/** What the metric "preference" gives. */
export interface PreferenceRates {
  /** Share of the pairs whose chosen answer is likelier a token than the rejected one. */
  preferenceAccuracy: number;
  /** Mean of the differences of their log-probabilities, in nats a token. */
  preferenceMargin: number;
  /** With an adapter: share of the pairs whose chosen answer has gained more log-probability by it than the rejected one (DPO's accuracy). */
  rewardAccuracy?: number;
}

/** How often a model prefers the chosen answers of rows { prompt, chosen, rejected }. */
export async function preferenceRates(
  model: { readonly tokenizer: Tokenizer; withoutAdapter<T>(fn: () => T | Promise<T>): Promise<T> },
  network: CausalLM,
  rows: Rows,
  options: {
    maxLength: number;
    format?: ((row: never) => unknown) | undefined;
    signal?: AbortSignal | undefined;
    onPair?: ((done: number) => void) | undefined;
  },
): Promise<PreferenceRates> {
  const { signal, maxLength, onPair } = options;
  const format = options.format as ((row: unknown) => unknown) | undefined;
  const { pairs } = await tokenizePairs(rows, model.tokenizer, {
    maxLength,
    name: "the rows",
    ...(format ? { format } : {}),
    ...(signal ? { signal } : {}),
  });
  const own = await referenceLogps(network, pairs, { signal, onPair });
  const lengths = pairs.map((pair) => answerLengths(collate(pairExamples([pair]), { paddingSide: "none" })));
  const margins = lengths.map(([c, r], i) => own[2 * i]! / c! - own[2 * i + 1]! / r!);
  const share = (values: readonly number[]): number => values.filter((v) => v > 0).length / values.length;
  const rates = {
    preferenceAccuracy: share(margins),
    preferenceMargin: margins.reduce((a, b) => a + b, 0) / margins.length,
  };
  const adapted = network.trainableParameters().length > 0;
  const base = await model.withoutAdapter(async () =>
    adapted && network.trainableParameters().length === 0 ? referenceLogps(network, pairs, { signal }) : undefined,
  );
  if (!base) return rates;
  const gains = pairs.map((_, i) => own[2 * i]! - own[2 * i + 1]! - (base[2 * i]! - base[2 * i + 1]!));
  return { ...rates, rewardAccuracy: share(gains) };
}
