import { tokenizeClasses } from "../data/classes.js";
import { collate } from "../data/collate.js";
import type { Format } from "../data/format.js";
import type { Example } from "../data/mask.js";
import { type TokenizeOptions, tokenizeRows } from "../data/tokenize.js";
import { throwIfInterrupted } from "../display/host.js";
import { ProgressBar } from "../display/progress.js";
import { ConfigError, DataError } from "../errors.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalLM } from "../models/causal.js";
import { requireTokens } from "../models/classifier.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { multipleChoice } from "./choices.js";
import { classify } from "./classify.js";
import type { SamplingOptions } from "./generate.js";
import { type GenerateIds, generationMetrics } from "./generation.js";
import { classifyByHead, classOptions } from "./head.js";
import { rowsOf } from "./loss.js";
import { Metrics } from "./metrics.js";
import { preferenceRates } from "./preference.js";
import { type Normalize, scoreExamples } from "./score.js";

/** What `evaluate` can measure now. */
export type MetricName =
  | "loss"
  | "perplexity"
  | "accuracy"
  | "exactMatch"
  | "classification"
  | "multipleChoice"
  | "rouge"
  | "preference";
/** Names of all metrics. */
export const EVALUATE_METRICS: readonly string[] = [
  ...["loss", "perplexity", "accuracy", "exactMatch", "classification", "multipleChoice", "rouge", "preference"],
];

/** Options of `model.evaluate` (api.md); those of sampling concern metrics of generated texts. */
export interface EvaluateOptions<Row = Record<string, unknown>> extends SamplingOptions {
  metrics: readonly MetricName[];
  /** Rows at a time, 8 by default. */
  batch?: number;
  /** The completions to choose from (classification); the last of two is the positive one unless `positive` says otherwise. */
  labels?: readonly string[];
  positive?: string;
  /** How a row is classified: by the likeliest label (default), or by the label that a generated answer names first. */
  by?: "likelihood" | "generation";
  /** What the likelihood of a label or choice is divided by: nothing (default), its tokens, or its bytes. */
  normalize?: Normalize;
  /** Measures with each of these adapters ("base": with none) and gives a comparison. */
  adapters?: readonly string[];
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
  const unknown = (metrics ?? []).filter((m) => !EVALUATE_METRICS.includes(m));
  if (!Array.isArray(metrics) || metrics.length === 0 || unknown.length > 0) {
    throw new ConfigError(
      `evaluate: metrics must name some of ${EVALUATE_METRICS.join(", ")}; received ${unknown.join(", ") || "none"}.`,
    );
  }
  const ofTokens = metrics.find((name) => !["loss", "accuracy", "classification"].includes(name));
  if (ofTokens) requireTokens(network, `evaluate with the metric "${ofTokens}"`);
  const started = performance.now();
  const rows = [...data];
  if (rows.length === 0) throw new DataError("evaluate: the data set is empty; give at least one row.");
  const values: Partial<Metrics> = {};
  const pad = padId(model.tokenizer);
  const columns = rows.map((): Record<string, unknown> => ({}));
  const take = (found: readonly Record<string, unknown>[]): void => {
    for (const [i, more] of found.entries()) Object.assign(columns[i]!, more);
  };
  const wants = (...names: MetricName[]): boolean => names.some((n) => metrics.includes(n));
  const bar = (label: string): ProgressBar | undefined =>
    progress ? new ProgressBar({ label, total: rows.length }) : undefined;
  if (wants("loss", "perplexity", "accuracy")) {
    const { examples, indices } = network.labels
      ? await tokenizeClasses(rows, model.tokenizer, network.labels, classOptions(options, network))
      : await tokenizeRows(rows, model.tokenizer, prepareOptions(options, network));
    const b = bar("Loss");
    const scores = await guarded(b, () =>
      scoreExamples(network, examples, {
        batch,
        padId: pad,
        signal: options.signal,
        onDone: (done) => b?.update(done),
      }),
    );
    const [sum, tokens] = [scores.reduce((n, x) => n + x.logProbability, 0), scores.reduce((n, x) => n + x.tokens, 0)];
    const loss = -sum / tokens;
    scores.forEach((x, i) => {
      Object.assign(columns[indices[i]!]!, { loss: -x.logProbability / x.tokens, tokens: x.tokens });
    });
    if (wants("loss")) values.loss = loss;
    if (wants("perplexity")) values.perplexity = Math.exp(loss);
    if (wants("accuracy") && !wants("classification", "multipleChoice"))
      values.accuracy = await tokenAccuracy(network, examples, batch, pad);
  }
  if (wants("exactMatch", "rouge")) {
    const b = bar("Generating");
    const generated = guarded(b, () =>
      generationMetrics(
        rows,
        model.tokenizer,
        options,
        model.generateIds.bind(model),
        (done) => b?.update(done),
        network.sight,
      ),
    );
    const { columns: found, ...numbers } = await generated;
    Object.assign(values, numbers);
    take(found);
  }
  for (const [name, label, measure] of [
    ["classification", "Classification", classify],
    ["multipleChoice", "Multiple choice", multipleChoice],
  ] as const) {
    if (!wants(name)) continue;
    const b = bar(label);
    const onDone = (done: number): void => b?.update(done);
    const found = await guarded(b, () =>
      network.labels
        ? classifyByHead(model, network, rows, options, onDone)
        : measure(model, network, rows, options, pad, onDone),
    );
    Object.assign(values, found.values);
    take(found.columns);
  }
  if (wants("preference")) {
    const b = bar("Preference");
    const { maxLength } = prepareOptions(options, network);
    const { format, signal } = options;
    const measured = preferenceRates(model, network, rows, { maxLength, format, signal, onPair: (n) => b?.update(n) });
    Object.assign(values, await guarded(b, () => measured));
  }
  return new Metrics(values, columns, (performance.now() - started) / 1000);
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
    sight: network.sight,
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
  examples: readonly Example[],
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
