import { Dataset } from "../data/dataset.js";
import { formatDuration, formatNumber } from "../display/format.js";
import { defineDisplay } from "../display/host.js";
import { type Attributes, el, type HtmlNode } from "../display/html.js";
import { type Table, table } from "../display/table.js";
import { StateError } from "../errors.js";
import { confusion, type Plot } from "../plot/index.js";
import type { LabelRates, Rates } from "./classification.js";

const NUMBERS = [
  ...(["loss", "perplexity", "accuracy", "exactMatch", "rouge1", "rouge2", "rougeL", "rougeLsum"] as const),
  ...(["tn", "fp", "fn", "tp", "precision", "recall", "f1"] as const),
  ...(["preferenceAccuracy", "preferenceMargin", "rewardAccuracy"] as const),
] as const;

/** The numbers that `Metrics` may hold. */
export type MetricNumber = (typeof NUMBERS)[number];

/** What `evaluate` gives: one number a metric, shown as a table; and what became of each row. */
export class Metrics {
  loss?: number;
  perplexity?: number;
  /** Share of trained tokens, or of classified rows or questions, that are right. */
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
  /** Of the positive label; of more than two labels the mean over them (macro). */
  precision?: number;
  recall?: number;
  f1?: number;
  /** Share of the pairs whose chosen answer is likelier a token than the rejected one, and the mean difference in nats a token (preference). */
  preferenceAccuracy?: number;
  preferenceMargin?: number;
  /** Share of the pairs whose chosen answer the adapter has made likelier than the rejected one, compared with the model without it. */
  rewardAccuracy?: number;
  /** Classification: rates of each label. */
  perLabel?: readonly LabelRates[];
  /** Classification: macro, micro and weighted means. */
  averages?: { macro: Rates; micro: Rates; weighted: Rates };
  confusion?: { labels: readonly string[]; matrix: readonly (readonly number[])[] };
  /** What became of each row: its number, and columns of the metrics that were asked for. */
  readonly rows: Dataset;
  readonly seconds: number;

  constructor(values: Partial<Metrics>, rows: readonly Record<string, unknown>[], seconds: number) {
    Object.assign(this, values);
    this.rows = Dataset.from(rows.map((columns, row) => ({ row, ...columns })));
    this.seconds = seconds;
  }

  /** The numbers by name, in one order. */
  numbers(): [MetricNumber, number][] {
    return NUMBERS.flatMap((name): [MetricNumber, number][] => (this[name] === undefined ? [] : [[name, this[name]]]));
  }

  toTable(): Table {
    const shown = [
      ...this.numbers().map(([name, v]) => [name, formatNumber(v)]),
      ["rows", formatNumber(this.rows.length)],
      ["seconds", formatDuration(this.seconds)],
    ];
    return table(["metric", "value"], shown, { title: "Evaluation", align: { value: "right" } });
  }

  /** Rates of each label and their means; `undefined` where nothing was classified. */
  labelTable(): Table | undefined {
    const { perLabel, averages } = this;
    if (!perLabel || !averages) return undefined;
    const all = perLabel.reduce((n, r) => n + r.support, 0);
    const rows = [
      ...perLabel.map((r) => [r.label, r.precision, r.recall, r.f1, r.support]),
      ...Object.entries(averages).map(([name, r]) => [`${name} mean`, r.precision, r.recall, r.f1, all]),
    ];
    const rate = (value: unknown): string => (value as number).toFixed(4);
    return table(["label", "precision", "recall", "F1", "rows"], rows, {
      title: "By label",
      maxRows: 50,
      format: { precision: rate, recall: rate, F1: rate },
    });
  }

  /** The confusion matrix as a chart. @throws StateError where nothing was classified. */
  plot(): Plot {
    if (!this.confusion)
      throw new StateError('plot: these metrics hold no confusion matrix; evaluate with metrics: ["classification"].');
    return confusion(this.confusion, { title: "Confusion matrix" });
  }

  /** The tables one under the other; with a classification, its confusion matrix too. */
  toHtml(): HtmlNode {
    const parts = [this.toTable(), this.labelTable()].filter((part) => part !== undefined).map((part) => part.toHtml());
    // Side by side where the page is wide enough.
    const column: Attributes = {
      style: { display: "inline-block", verticalAlign: "top", margin: "0 32px 8px 0", maxWidth: "100%" },
    };
    const matrix = this.confusion && this.confusion.labels.length <= 12 ? matrixHtml(this.confusion) : undefined;
    return el("div", {}, ...[...parts, ...(matrix ? [matrix] : [])].map((part) => el("div", column, part)));
  }

  toText(): string {
    const matrix = this.confusion ? [this.plot().toText()] : [];
    const labels = this.labelTable();
    return [this.toTable().toText(), ...(labels ? [labels.toText()] : []), ...matrix].join("\n\n");
  }
}

/** Counts over shades of blue by their share of the row: readable on light and on dark pages. */
function matrixHtml({ labels, matrix }: NonNullable<Metrics["confusion"]>): HtmlNode {
  const padding = "6px 12px";
  const head = labels.map((l) =>
    el("th", { style: { padding, textAlign: "center", fontWeight: "600" }, scope: "col" }, l),
  );
  const body = matrix.map((row, i) => {
    const sum = row.reduce((a, b) => a + b, 0);
    const cells = row.map((count) => {
      const share = sum === 0 ? 0 : count / sum;
      const background = `rgba(0,114,178,${(0.06 + 0.6 * share).toFixed(2)})`;
      return el(
        "td",
        { style: { padding, textAlign: "center", background }, title: `${(100 * share).toFixed(1)}%` },
        count,
      );
    });
    return el(
      "tr",
      {},
      el("th", { style: { padding, textAlign: "right", fontWeight: "600" }, scope: "row" }, labels[i]!),
      ...cells,
    );
  });
  return el(
    "div",
    {},
    el("div", { style: { fontWeight: "600", margin: "0 0 4px 0" } }, "Rows: actual, columns: predicted"),
    el(
      "table",
      { style: { borderCollapse: "collapse", border: "none", color: "inherit" } },
      el("thead", {}, el("tr", {}, el("th"), ...head)),
      el("tbody", {}, ...body),
    ),
  );
}

defineDisplay(
  Metrics,
  (metrics) => ({ "text/html": metrics.toHtml().toString(), "text/plain": metrics.toText() }),
  (metrics) => metrics.toText(),
);
