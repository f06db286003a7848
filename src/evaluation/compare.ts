import { Dataset } from "../data/dataset.js";
import { formatNumber } from "../display/format.js";
import { defineDisplay } from "../display/host.js";
import { type Table, table } from "../display/table.js";
import { ConfigError } from "../errors.js";
import { bar, type Plot } from "../plot/index.js";
import type { MetricNumber, Metrics } from "./metrics.js";

// What lies between 0 and 1 fits one chart.
const SHARES: readonly MetricNumber[] = [
  ...(["accuracy", "precision", "recall", "f1", "exactMatch", "rouge1", "rouge2", "rougeL", "rougeLsum"] as const),
];

/** The same rows measured with several adapters, side by side. */
export class Comparison {
  /** By the name of the adapter; "base" is the model without one. */
  readonly results: Readonly<Record<string, Metrics>>;

  constructor(results: Readonly<Record<string, Metrics>>) {
    this.results = results;
  }

  /** One row a metric, one column an adapter. */
  toTable(): Table {
    const names = Object.keys(this.results);
    const metrics = this.#metrics();
    const rows = metrics.map((metric) => [
      metric,
      ...names.map((name) => {
        const value = this.results[name]![metric];
        return value === undefined ? null : formatNumber(value);
      }),
    ]);
    return table(["metric", ...names], rows, {
      title: "Evaluation by adapter",
      align: Object.fromEntries(names.map((name) => [name, "right"])),
    });
  }

  /** Bars of the metrics between 0 and 1, or of those that are named. */
  plot(metrics?: readonly MetricNumber[]): Plot {
    const all = this.#metrics();
    const within = all.filter((metric) => SHARES.includes(metric));
    const shown = metrics ?? (within.length > 0 ? within : all);
    const data = Object.entries(this.results).flatMap(([adapter, m]) =>
      shown.map((metric) => ({ metric, value: m[metric] ?? null, adapter })),
    );
    return bar(data, { x: "metric", y: "value", series: "adapter", title: "Evaluation by adapter", yLabel: "value" });
  }

  /** What became of each row, with the adapter's name before. */
  get rows(): Dataset {
    return Dataset.from(
      Object.entries(this.results).flatMap(([adapter, m]) => m.rows.toRows().map((row) => ({ adapter, ...row }))),
    );
  }

  #metrics(): MetricNumber[] {
    return [...new Set(Object.values(this.results).flatMap((m) => m.numbers().map(([name]) => name)))];
  }
}

/**
 * Measures with one adapter after another; "base" is none, unless an adapter has that name.
 *
 * @param use Makes an adapter the active one.
 * @throws ConfigError when there is nothing to compare.
 */
export async function compareAdapters(
  names: readonly string[],
  known: { has(name: string): boolean },
  use: (name: string | undefined) => void,
  measure: () => Promise<Metrics>,
): Promise<Comparison> {
  if (names.length === 0)
    throw new ConfigError('evaluate: adapters must name one at least ("base" for none), received none.');
  const results: [string, Metrics][] = [];
  for (const name of names) {
    use(name === "base" && !known.has(name) ? undefined : name);
    results.push([name, await measure()]);
  }
  return new Comparison(Object.fromEntries(results));
}

defineDisplay(
  Comparison,
  (shown) => ({ "text/html": shown.toTable().toHtml().toString(), "text/plain": shown.toTable().toText() }),
  (shown) => shown.toTable().toText(),
);
