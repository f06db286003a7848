import { formatNumber } from "../display/format.js";
import { bar } from "./bar.js";
import { Columns, numbersOf, type PlotData, point, seriesOf } from "./columns.js";
import { Plot } from "./plot.js";
import { barText, largestOf, titled } from "./text.js";
import { axis, colorOf, makeFigure, type PlotOptions, safeText, scaleOf } from "./theme.js";

export interface HistogramOptions extends PlotOptions {
  /** Column of the values. Default: the first numeric one, or plain numbers. */
  x?: string;
  /** Column whose values name the groups. `color` is another name for it. */
  series?: string;
  color?: string;
  /** About how many bins; their edges are round numbers. Default: by Freedman and Diaconis' rule. */
  bins?: number;
}

/** Counts of values in bins of equal width; of texts, the count of each. The bins are counted here: the figure stays small. */
export function histogram(data: PlotData, options: HistogramOptions = {}): Plot {
  const columns = new Columns(data, "histogram");
  const numeric = columns.numeric();
  const x = options.x ?? (columns.names.includes("value") ? "value" : (numeric[0] ?? columns.names[0] ?? "value"));
  const values = columns.names.length === 0 ? [] : columns.get(x);
  if (values.length > 0 && !numeric.includes(x)) return countTexts(values, x, options);
  const numbers = values.length === 0 ? [] : numbersOf(columns, x, "histogram");
  const known = numbers.filter((value) => value !== null).sort((a, b) => a - b);
  const { start, width, count } = binsOf(known, options.bins);
  const groups = [...seriesOf(columns, options.series ?? options.color, numbers.length)].map(([name, rows]) => {
    const counts = new Array<number>(count).fill(0);
    for (const row of rows) {
      const value = numbers[row];
      if (value === null || value === undefined) continue;
      const bin = Math.min(count - 1, Math.floor((value - start) / width + 1e-9));
      counts[bin] = counts[bin]! + 1;
    }
    return { name, counts };
  });
  const edges = Array.from({ length: count }, (_, i) => start + i * width);
  const ranges = edges.map((edge) => `${formatNumber(edge)} – ${formatNumber(edge + width)}`);
  const traces = groups.map((group, index) => ({
    type: "bar",
    name: safeText(group.name === "" ? x : group.name),
    x: edges.map((edge) => edge + width / 2),
    y: group.counts,
    width,
    customdata: ranges,
    hovertemplate: "%{customdata}: %{y}<extra></extra>",
    marker: { color: colorOf(index), opacity: groups.length > 1 ? 0.55 : 0.9, line: { color: "#ffffff", width: 1 } },
  }));
  const figure = makeFigure(traces, options, {
    barmode: "overlay",
    bargap: 0,
    xaxis: axis(options.xLabel ?? x, { ...scaleOf(undefined, options.xRange), showgrid: false }),
    yaxis: axis(options.yLabel ?? "count", { ...scaleOf(options.yScale, options.yRange), rangemode: "tozero" }),
  });
  const largest = largestOf(groups.flatMap((group) => group.counts));
  return new Plot(figure, options, () =>
    titled(
      options.title ?? `${x}: ${known.length.toLocaleString("en-US")} values`,
      groups.flatMap((group) => [
        ...(groups.length > 1 ? [group.name] : []),
        ...barText(ranges, group.counts, { limit: 60, largest }),
      ]),
    ),
  );
}

function countTexts(values: readonly unknown[], x: string, options: HistogramOptions): Plot {
  const counts = new Map<string, number>();
  for (const value of values) {
    const text = String(point(value) ?? "null");
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  const rows = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 40);
  const { series: _series, color: _color, bins: _bins, ...rest } = options;
  return bar(
    rows.map(([name, count]) => ({ [x]: name, count })),
    { ...rest, x, y: "count", yLabel: options.yLabel ?? "count" },
  );
}

/** Round bins over sorted values. */
function binsOf(
  sorted: readonly number[],
  wanted: number | undefined,
): { start: number; width: number; count: number } {
  const low = sorted[0] ?? 0;
  const high = sorted.at(-1) ?? 1;
  if (high === low) return { start: low - 0.5, width: 1, count: 1 };
  const quartile = (share: number): number => sorted[Math.floor(share * (sorted.length - 1))]!;
  const spread = quartile(0.75) - quartile(0.25);
  const ruled = spread > 0 ? (high - low) / ((2 * spread) / Math.cbrt(sorted.length)) : Math.sqrt(sorted.length);
  const about = Math.min(80, Math.max(5, wanted ?? Math.ceil(ruled)));
  let width = roundUp((high - low) / about);
  // Between whole numbers there is nothing to count.
  if (width < 1 && sorted.every(Number.isInteger)) width = 1;
  const start = Math.floor(low / width) * width;
  return { start, width, count: Math.floor((high - start) / width + 1e-9) + 1 };
}

function roundUp(width: number): number {
  const power = 10 ** Math.floor(Math.log10(width));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= width * (1 - 1e-9)) ?? 10;
  return step * power;
}
