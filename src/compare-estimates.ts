/** What several models, or several ways to train one, would take: a table and a chart before anything is loaded. */
import { formatBytes, formatCount, formatDuration } from "./display/format.js";
import { defineDisplay } from "./display/host.js";
import { el, type HtmlNode } from "./display/html.js";
import { type Table, table } from "./display/table.js";
import { ConfigError } from "./errors.js";
import { type MemoryEstimate, usableBytes } from "./estimate.js";
import { partsPlot } from "./estimate-show.js";
import type { Plot } from "./plot/index.js";
import { sequencesOf } from "./training/estimate.js";

/** What a run would be done with; all of it may be left out. */
export interface CostOptions {
  /** Bytes of one card, to say how many of them hold the peak (80 GiB by default). The library itself trains on one. */
  memory?: number;
  /** Tokens of the whole run. */
  tokens?: number;
  /** Floating-point operations a second that are reached, not those of the data sheet: a step's `flops` by its seconds. */
  flopsPerSecond?: number;
  /** Of one card, in whatever currency. */
  pricePerHour?: number;
  /** Peaks of runs that were made, in bytes, by the names of the estimates: `run.peakMemory`. */
  used?: Readonly<Record<string, number>>;
}

/** One estimate's figures. Bytes, floating-point operations, hours. */
export interface EstimateCost {
  name: string;
  parameters: number;
  trained: number;
  weights: number;
  peak: number;
  /** Cards whose memory adds up to the peak. */
  cards: number;
  flopsPerToken: number;
  hours?: number;
  price?: number;
  used?: number;
}

/** Several estimates side by side. Made by {@link compareEstimates}. */
export class EstimateComparison {
  readonly rows: readonly Readonly<EstimateCost>[];
  private readonly estimates: Readonly<Record<string, MemoryEstimate>>;
  private readonly options: CostOptions;

  constructor(estimates: Readonly<Record<string, MemoryEstimate>>, options: CostOptions) {
    this.estimates = estimates;
    this.options = options;
    this.rows = Object.entries(estimates).map(([name, e]) => costOf(name, e, options));
  }

  /** A row an estimate; columns that nothing was said of are left out. */
  toTable(): Table {
    const { tokens, used } = this.options;
    const { memory = CARD } = this.options;
    const timed = this.rows.some((r) => r.hours !== undefined);
    const priced = this.rows.some((r) => r.price !== undefined);
    const columns = [
      ...["model", "parameters", "trained", "weights", "peak", `cards of ${formatBytes(memory)}`, "FLOPs a token"],
      ...(timed ? ["time"] : []),
      ...(priced ? ["price"] : []),
      ...(used ? ["used", "error"] : []),
    ];
    const rows = this.rows.map((r) => [
      ...[r.name, formatCount(r.parameters), formatCount(r.trained), formatBytes(r.weights), formatBytes(r.peak)],
      ...[r.cards, formatCount(r.flopsPerToken)],
      ...(timed ? [formatDuration(3600 * (r.hours ?? Number.NaN))] : []),
      ...(priced ? [r.price ?? null] : []),
      ...(used ? [r.used === undefined ? "" : formatBytes(r.used), errorOf(r)] : []),
    ]);
    const over = timed && tokens !== undefined ? `, time of ${formatCount(tokens)} tokens` : "";
    return table(columns, rows, {
      title: `Predicted: memory of one step${over}`,
      maxTextCell: 60,
      align: Object.fromEntries(columns.slice(1).map((name) => [name, "right" as const])),
      ...(priced ? { format: { price: (value) => (typeof value === "number" ? value.toFixed(2) : "") } } : {}),
    });
  }

  /** Bars of the peaks by part. */
  plot(): Plot {
    const bars = Object.entries(this.estimates).map(([label, estimate]) => ({ label, estimate }));
    return partsPlot(bars, { x: "model", title: "Predicted peak by part", limit: this.options.memory });
  }

  toHtml(): HtmlNode {
    return el("div", {}, this.toTable().toHtml());
  }
}

const CARD = 80 * 2 ** 30;

function costOf(name: string, e: MemoryEstimate, options: CostOptions): EstimateCost {
  const { tokens, flopsPerSecond, pricePerHour, used, memory = CARD } = options;
  const flopsPerToken = e.flops / (sequencesOf(e.step) * e.step.length * e.step.accumulate);
  const row: EstimateCost = {
    ...{ name, parameters: e.parameters, trained: e.trained, weights: e.weights, peak: e.peak },
    cards: Math.ceil(e.peak / usableBytes(memory, "cuda")),
    flopsPerToken,
  };
  if (tokens !== undefined && flopsPerSecond !== undefined) {
    row.hours = (flopsPerToken * tokens) / flopsPerSecond / 3600;
    // The work is the same on one card or on many; what they say to each other comes on top.
    if (pricePerHour !== undefined) row.price = row.hours * pricePerHour;
  }
  if (used && Object.hasOwn(used, name)) row.used = used[name]!;
  return row;
}

function errorOf({ peak, used }: EstimateCost): string {
  return used === undefined ? "" : `${(100 * (peak / used - 1)).toFixed(1)}%`;
}

/**
 * Several estimates side by side: memory, cards, and (with `tokens` and `flopsPerSecond`) time and price.
 *
 * @param estimates By the name that they are shown under.
 * @throws ConfigError for a figure that is no positive number, or a name in `used` that no estimate has.
 * @example compareEstimates({ "8B, 4 bits": qlora.estimate({ device: "cuda" }), "8B, 32 bits": full.estimate({ device: "cuda" }) })
 */
export function compareEstimates(
  estimates: Readonly<Record<string, MemoryEstimate>>,
  options: CostOptions = {},
): EstimateComparison {
  const names = Object.keys(estimates);
  if (names.length === 0) throw new ConfigError("compareEstimates: expected estimates by name, received none.");
  const { memory, tokens, flopsPerSecond, pricePerHour, used = {} } = options;
  for (const [name, value] of Object.entries({ memory, tokens, flopsPerSecond, pricePerHour, ...used }))
    if (value !== undefined && !(Number.isFinite(value) && value > 0))
      throw new ConfigError(`compareEstimates: ${name} must be a number above 0, received ${String(value)}.`);
  const strange = Object.keys(used).find((name) => !names.includes(name));
  if (strange !== undefined)
    throw new ConfigError(
      `compareEstimates: used names "${strange}", which is no estimate; there are ${names.join(", ")}.`,
    );
  return new EstimateComparison(estimates, options);
}

defineDisplay(
  EstimateComparison,
  (c) => ({ "text/html": c.toHtml().toString(), "text/plain": c.toTable().toText() }),
  (c) => c.toTable().toText(),
);
