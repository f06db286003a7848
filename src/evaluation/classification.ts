import { formatDuration, formatNumber } from "../display/format.js";
import { displaySymbol, inspectSymbol, type MimeBundle } from "../display/host.js";
import { type Table, table } from "../display/table.js";

/** Counts and rates of a classification; with two labels those of the positive one, otherwise means over the labels. */
export interface ClassificationResult {
  labels: readonly string[];
  /** matrix[true][predicted], counts. */
  matrix: readonly (readonly number[])[];
  /** Of the positive label (two labels only). */
  tn?: number;
  fp?: number;
  fn?: number;
  tp?: number;
  accuracy: number;
  precision: number;
  recall: number;
  f1: number;
}

/** Rates from true and predicted label indices; 0 where a rate has nothing to count. */
export function classificationResult(
  labels: readonly string[],
  truth: readonly number[],
  predicted: readonly number[],
  positive = labels.length - 1,
): ClassificationResult {
  const matrix = labels.map(() => labels.map(() => 0));
  truth.forEach((t, i) => {
    matrix[t]![predicted[i]!]! += 1;
  });
  const right = matrix.reduce((n, row, i) => n + row[i]!, 0);
  const accuracy = truth.length === 0 ? 0 : right / truth.length;
  const rates = labels.map((_, k) => {
    const tp = matrix[k]![k]!;
    const claimed = matrix.reduce((n, row) => n + row[k]!, 0);
    const actual = matrix[k]!.reduce((a, b) => a + b, 0);
    const precision = claimed === 0 ? 0 : tp / claimed;
    const recall = actual === 0 ? 0 : tp / actual;
    return { precision, recall, f1: precision + recall === 0 ? 0 : (2 * precision * recall) / (precision + recall) };
  });
  if (labels.length === 2) {
    const negative = 1 - positive;
    return {
      labels,
      matrix,
      tn: matrix[negative]![negative]!,
      fp: matrix[negative]![positive]!,
      fn: matrix[positive]![negative]!,
      tp: matrix[positive]![positive]!,
      accuracy,
      ...rates[positive]!,
    };
  }
  const mean = (pick: (r: (typeof rates)[number]) => number): number =>
    rates.reduce((n, r) => n + pick(r), 0) / rates.length;
  return {
    labels,
    matrix,
    accuracy,
    precision: mean((r) => r.precision),
    recall: mean((r) => r.recall),
    f1: mean((r) => r.f1),
  };
}

/** What `evaluate` gives: one number a metric, shown as a table. */
export class Metrics {
  loss?: number;
  perplexity?: number;
  /** Share of trained tokens, or of classified rows, that are right. */
  accuracy?: number;
  exactMatch?: number;
  /** Mean F1 of ROUGE, 0 … 1. */
  rouge1?: number;
  rouge2?: number;
  rougeL?: number;
  rougeLsum?: number;
  /** What was generated for each row (exactMatch, rouge), beside the texts it was compared with. */
  predictions?: readonly { prediction: string; references: readonly string[] }[];
  tn?: number;
  fp?: number;
  fn?: number;
  tp?: number;
  precision?: number;
  recall?: number;
  f1?: number;
  confusion?: { labels: readonly string[]; matrix: readonly (readonly number[])[] };
  /** Share of the pairs whose chosen answer is likelier a token than the rejected one, and the mean difference in nats a token (preference). */
  preferenceAccuracy?: number;
  preferenceMargin?: number;
  /** Share of the pairs whose chosen answer the adapter has made likelier than the rejected one, compared with the model without it. */
  rewardAccuracy?: number;
  /** Rows measured. */
  rows: number;
  seconds: number;

  constructor(values: Partial<Metrics>, rows: number, seconds: number) {
    Object.assign(this, values);
    this.rows = rows;
    this.seconds = seconds;
  }

  toTable(): Table {
    const entries = Object.entries(this).filter((e): e is [string, number] => typeof e[1] === "number");
    const shown = entries.map(([name, v]) => [name, name === "seconds" ? formatDuration(v) : formatNumber(v)]);
    return table(["metric", "value"], shown, { title: "Evaluation", align: { value: "right" } });
  }

  [displaySymbol](): MimeBundle {
    const shown = this.toTable();
    return { "text/html": shown.toHtml().toString(), "text/plain": shown.toText() };
  }

  [inspectSymbol](): string {
    return this.toTable().toText();
  }
}
