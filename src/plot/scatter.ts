import { formatNumber } from "../display/format.js";
import { Columns, numbersOf, type PlotData, seriesOf } from "./columns.js";
import { Plot } from "./plot.js";
import { titled } from "./text.js";
import { axis, colorOf, makeFigure, type PlotOptions, safeText, scaleOf } from "./theme.js";

export interface ScatterOptions extends PlotOptions {
  /** Column along the x axis. Default: the first numeric one. */
  x?: string;
  /** Column along the y axis. Default: the second numeric one. */
  y?: string;
  /** Column whose values give the colours; with numbers, a scale. `series` is another name for it. */
  color?: string;
  series?: string;
}

const mostPoints = 20_000;

/** Points; of more than 20,000 evenly chosen ones are drawn, and the title says so. */
export function scatter(data: PlotData, options: ScatterOptions = {}): Plot {
  const columns = new Columns(data, "scatter");
  const numeric = columns.numeric();
  const x = options.x ?? numeric[0] ?? "x";
  const y = options.y ?? numeric.find((name) => name !== x) ?? "y";
  const xs = columns.names.length === 0 ? [] : numbersOf(columns, x, "scatter");
  const ys = columns.names.length === 0 ? [] : numbersOf(columns, y, "scatter");
  const step = Math.ceil(xs.length / mostPoints) || 1;
  const color = options.color ?? options.series;
  const shades = color !== undefined && numeric.includes(color) ? numbersOf(columns, color, "scatter") : undefined;
  const groups = seriesOf(columns, shades ? undefined : color, xs.length);
  const size = xs.length > 2000 ? 4 : xs.length > 200 ? 6 : 8;
  const traces = [...groups].map(([name, all], index) => {
    const rows = all.filter((row) => row % step === 0);
    return {
      type: "scatter",
      mode: "markers",
      name: safeText(name === "" ? y : name),
      x: rows.map((row) => xs[row]),
      y: rows.map((row) => ys[row]),
      marker: {
        size,
        opacity: xs.length > 200 ? 0.6 : 0.85,
        ...(shades
          ? {
              color: rows.map((row) => shades[row]),
              colorscale: "Viridis",
              showscale: true,
              colorbar: { title: { text: safeText(color ?? "") }, outlinewidth: 0, thickness: 14 },
            }
          : { color: colorOf(index) }),
      },
    };
  });
  const note = step > 1 ? ` (every ${step}th of ${xs.length.toLocaleString("en-US")} points)` : "";
  const title = `${options.title ?? ""}${note}`.trim();
  const figure = makeFigure(
    traces,
    { ...options, ...(title === "" ? {} : { title }) },
    {
      xaxis: axis(options.xLabel ?? x, scaleOf(options.xScale, options.xRange)),
      yaxis: axis(options.yLabel ?? y, scaleOf(options.yScale, options.yRange)),
    },
  );
  return new Plot(figure, options, () =>
    titled(options.title ?? `${y} against ${x}`, [
      `${xs.length.toLocaleString("en-US")} points`,
      rangeText(x, xs),
      rangeText(y, ys),
    ]),
  );
}

function rangeText(name: string, values: readonly (number | null)[]): string {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return `${name}: no values`;
  const low = known.reduce((a, b) => Math.min(a, b));
  const high = known.reduce((a, b) => Math.max(a, b));
  const mean = known.reduce((a, b) => a + b, 0) / known.length;
  return `${name}: ${formatNumber(low)} to ${formatNumber(high)}, mean ${formatNumber(mean)}`;
}
