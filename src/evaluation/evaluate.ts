import { collate } from "../data/collate.js";
import type { Format } from "../data/format.js";
import { type TokenizeOptions, tokenizeRows } from "../data/tokenize.js";
import { throwIfInterrupted } from "../display/host.js";
import { ProgressBar } from "../display/progress.js";
import { ConfigError, DataError } from "../errors.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalLM } from "../models/causal.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import { classificationResult, Metrics } from "./classification.js";
import type { SamplingOptions } from "./generate.js";
import { type GenerateIds, generationMetrics } from "./generation.js";
import { meanLoss, rowsOf } from "./loss.js";
import { preferenceRates } from "./preference.js";

/** What `evaluate` can measure now. */
export type MetricName = "loss" | "perplexity" | "accuracy" | "exactMatch" | "classification" | "rouge" | "preference";
const METRICS: readonly string[] = [
  "loss",
  "perplexity",
  "accuracy",
  "exactMatch",
  "classification",
  "rouge",
  "preference",
];

/** Options of `model.evaluate` (api.md); those of sampling concern metrics of generated texts. */
export interface EvaluateOptions<Row = Record<string, unknown>> extends SamplingOptions {
  metrics: readonly MetricName[];
  /** Rows at a time, 8 by default. */
  batch?: number;
  /** The completions to choose from (classification); the last of two is the positive one unless `positive` says otherwise. */
  labels?: readonly string[];
  positive?: string;
  maxLength?: number;
  textField?: string;
  format?: (row: Row) => unknown;
  /** ROUGE over Porter's stems instead of words (rouge_score's `use_stemmer`); default false. */
  stemmer?: boolean;
  /** The texts that count as right (rouge, exactMatch) instead of the completion; the best of several counts. */
  references?: (row: Row) => string | readonly string[];
  progress?: boolean;
}

/** What evaluation needs of the facade. */
export interface Evaluated {
  readonly tokenizer: Tokenizer;
  readonly generateIds: GenerateIds;
  withoutAdapter<T>(fn: () => T | Promise<T>): Promise<T>;
}

/** Measures a model on rows; every metric asked for in one result. */
export async function evaluate(
  model: Evaluated,
  network: CausalLM,
  data: Iterable<Record<string, unknown>>,
  options: EvaluateOptions,
): Promise<Metrics> {
  const { metrics, batch = 8, progress = true } = options;
  const unknown = (metrics ?? []).filter((m) => !METRICS.includes(m));
  if (!Array.isArray(metrics) || metrics.length === 0 || unknown.length > 0) {
    throw new ConfigError(
      `evaluate: metrics must name some of ${METRICS.join(", ")}; received ${unknown.join(", ") || "none"}.`,
    );
  }
  const started = performance.now();
  const rows = [...data];
  if (rows.length === 0) throw new DataError("evaluate: the data set is empty; give at least one row.");
  const values: Partial<Metrics> = {};
  const wants = (...names: MetricName[]): boolean => names.some((n) => metrics.includes(n));
  const bar = (label: string): ProgressBar | undefined =>
    progress ? new ProgressBar({ label, total: rows.length }) : undefined;
  if (wants("loss", "perplexity", "accuracy")) {
    const { examples } = await tokenizeRows(rows, model.tokenizer, prepareOptions(options, network));
    const b = bar("Loss");
    const loss = await guarded(b, () =>
      meanLoss(network, examples, { batch, signal: options.signal }, padId(model.tokenizer), (done) => b?.update(done)),
    );
    if (wants("loss")) values.loss = loss;
    if (wants("perplexity")) values.perplexity = Math.exp(loss);
    if (wants("accuracy") && !wants("classification"))
      values.accuracy = await tokenAccuracy(network, examples, batch, padId(model.tokenizer));
  }
  if (wants("exactMatch", "rouge")) {
    const b = bar("Generating");
    const generated = guarded(b, () =>
      generationMetrics(rows, model.tokenizer, options, model.generateIds.bind(model), (done) => b?.update(done)),
    );
    Object.assign(values, await generated);
  }
  if (wants("classification")) {
    const b = bar("Classification");
    Object.assign(values, await guarded(b, () => classify(model, network, rows, options, b)));
  }
  if (wants("preference")) {
    const b = bar("Preference");
    const { maxLength } = prepareOptions(options, network);
    const { format, signal } = options;
    const measured = preferenceRates(model, network, rows, { maxLength, format, signal, onPair: (n) => b?.update(n) });
    Object.assign(values, await guarded(b, () => measured));
  }
  return new Metrics(values, rows.length, (performance.now() - started) / 1000);
}

async function guarded<T>(bar: ProgressBar | undefined, work: () => Promise<T>): Promise<T> {
  try {
    const result = await work();
    bar?.finish();
    return result;
  } catch (error) {
    bar?.fail(error instanceof Error ? error.message : String(error));
    throw error;
  }
}

function prepareOptions(options: EvaluateOptions, network: CausalLM): TokenizeOptions & { maxLength: number } {
  return {
    maxLength: Math.min(options.maxLength ?? network.config.maxPositions, network.config.maxPositions),
    ...(options.textField === undefined ? {} : { textField: options.textField }),
    ...(options.format === undefined ? {} : { format: options.format as Format }),
  };
}

/** The id that fills short rows; any valid one does, since padding is masked by length. */
export function padId(tokenizer: Tokenizer): number {
  return tokenizer.padId ?? tokenizer.eosId ?? 0;
}

/** Share of trained tokens that are the likeliest prediction. */
async function tokenAccuracy(
  network: CausalLM,
  examples: Parameters<typeof meanLoss>[1],
  batch: number,
  pad: number,
): Promise<number> {
  let right = 0;
  let count = 0;
  for (let i = 0; i < examples.length; i += batch) {
    throwIfInterrupted("Evaluation");
    const b = collate(examples.slice(i, i + batch), { padId: pad, paddingSide: "none" });
    const best = scope(() => noGrad(() => network.logits(network.hidden(rowsOf(network, b))).argmax()));
    const ids = await best.raw();
    best.dispose();
    b.labels.forEach((label, t) => {
      if (label === -100) return;
      count++;
      if (ids[t] === label) right++;
    });
  }
  return count === 0 ? 0 : right / count;
}

/** A row as prompt and completion. @throws DataError when it is plain text: there is nothing to compare with. */
function promptAndCompletion(
  row: Record<string, unknown>,
  options: EvaluateOptions,
  index: number,
): { prompt: string; completion: string } {
  const formatted = (options.format ? options.format(row) : row) as Record<string, unknown>;
  const { prompt, completion } = formatted ?? {};
  if (typeof prompt !== "string" || typeof completion !== "string") {
    throw new DataError(
      `evaluate: row ${index} must give { prompt, completion } as text for this metric; use format: (row) => ({ prompt: …, completion: … }).`,
    );
  }
  return { prompt, completion };
}

/** Chooses for each row the label whose text is the likeliest continuation of the prompt (sum of log-probabilities of its tokens). */
async function classify(
  model: Evaluated,
  network: CausalLM,
  rows: readonly Record<string, unknown>[],
  options: EvaluateOptions,
  bar: ProgressBar | undefined,
): Promise<Partial<Metrics>> {
  const pairs = rows.map((row, i) => promptAndCompletion(row, options, i));
  const labels = options.labels ?? [...new Set(pairs.map((p) => p.completion))].sort();
  if (labels.length < 2)
    throw new ConfigError(
      `evaluate: classification needs at least two labels, received ${labels.length}; give labels: ["…", "…"].`,
    );
  const truth = pairs.map(({ completion }, i) => {
    const k = labels.findIndex((l) => l.trim() === completion.trim());
    if (k < 0)
      throw new DataError(
        `evaluate: row ${i} has the completion ${JSON.stringify(completion)}, which is none of the labels ${labels.join(", ")}.`,
      );
    return k;
  });
  const positive = options.positive === undefined ? labels.length - 1 : labels.indexOf(options.positive);
  if (positive < 0)
    throw new ConfigError(
      `evaluate: positive must be one of the labels ${labels.join(", ")}, received ${JSON.stringify(options.positive)}.`,
    );
  const predicted: number[] = [];
  for (const [i, { prompt, completion }] of pairs.entries()) {
    throwIfInterrupted("Evaluation", options.signal);
    // The row's own spacing around the completion is kept for every label.
    const candidates = labels.map((label) => ({
      prompt,
      completion: completion.replace(completion.trim(), () => label.trim()),
    }));
    const { examples } = await tokenizeRows(candidates, model.tokenizer, {
      maxLength: options.maxLength ?? network.config.maxPositions,
    });
    const scores = await likelihoods(network, examples, padId(model.tokenizer));
    predicted.push(scores.indexOf(Math.max(...scores)));
    bar?.update(i + 1);
  }
  const { matrix, labels: names, ...rates } = classificationResult(labels, truth, predicted, positive);
  return { ...rates, confusion: { labels: names, matrix } };
}

/** Sum of log-probabilities of each example's trained tokens, in nats. */
async function likelihoods(network: CausalLM, examples: Parameters<typeof collate>[0], pad: number): Promise<number[]> {
  const b = collate(examples, { padId: pad, paddingSide: "right" });
  const loss = scope(() =>
    noGrad(
      () => network.headLoss(network.hidden(rowsOf(network, b)), tensor(b.labels, { device: network.device }), 1).rows,
    ),
  );
  const values = await loss.data();
  loss.dispose();
  const width = values.length / b.batch;
  return Array.from(
    { length: b.batch },
    (_, r) => -values.subarray(r * width, (r + 1) * width).reduce((a, v) => a + v, 0),
  );
}
