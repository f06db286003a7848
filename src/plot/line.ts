import { Columns, numberOf, numbersOf, type PlotData, point, seriesOf } from "./columns.js";
import { Plot } from "./plot.js";
import { lineText, titled } from "./text.js";
import { axis, categoryAxis, colorOf, makeFigure, type PlotOptions, safeText, scaleOf } from "./theme.js";

export interface LineOptions extends PlotOptions {
  /** Column along the x axis. Default: the first column, or the index of plain numbers. */
  x?: string;
  /** Column, or several, along the y axis. Default: all other numeric columns. */
  y?: string | readonly string[];
  /** Column whose values name the lines. `color` is another name for it. */
  series?: string;
  color?: string;
  /** Marks at the points. Default: where a line has at most 30. */
  markers?: boolean;
}

const mostPoints = 4000;

/**
 * Lines over x. Gaps (null, NaN) interrupt a line; of a line with over 4,000 points the extremes of each stretch are kept.
 *
 * @example plot.line(run.history, { x: "step", y: "loss", title: "Loss" })
 */
export function line(data: PlotData, options: LineOptions = {}): Plot {
  const columns = new Columns(data, "line");
  const x = options.x ?? columns.names[0];
  const series = options.series ?? options.color;
  const given = options.y ?? columns.numeric().filter((name) => name !== x && name !== series);
  const ys = typeof given === "string" ? [given] : given;
  const xs = x === undefined ? [] : columns.get(x);
  const lines = ys.flatMap((y) => {
    const values = numbersOf(columns, y, "line");
    return [...seriesOf(columns, series, values.length)].map(([name, rows]) => ({
      name: [name, ys.length > 1 ? y : ""].filter((part) => part !== "").join(" "),
      xs: rows.map((row) => point(xs[row])),
      ys: rows.map((row) => values[row]!),
    }));
  });
  const traces = lines.map((each, index) => {
    const kept = thin(each.ys, mostPoints);
    const few = each.ys.filter((value) => value !== null).length;
    const marks = options.markers ?? few <= 30;
    return {
      type: "scatter",
      mode: marks ? "lines+markers" : "lines",
      name: safeText(each.name === "" ? (ys[0] ?? "") : each.name),
      x: kept ? kept.map((i) => each.xs[i]) : each.xs,
      y: kept ? kept.map((i) => each.ys[i]) : each.ys,
      line: { color: colorOf(index), width: 2 },
      marker: { color: colorOf(index), size: 6 },
      connectgaps: false,
    };
  });
  const texts = xs.filter((value) => typeof value === "string" && Number.isNaN(Date.parse(value)));
  const categories = texts.length > 0 ? [...new Set(lines.flatMap((each) => each.xs.map(String)))] : undefined;
  const yLabel = options.yLabel ?? (ys.length === 1 ? ys[0] : undefined);
  const figure = makeFigure(traces, options, {
    xaxis: axis(options.xLabel ?? x, {
      ...(categories ? categoryAxis(categories) : {}),
      ...scaleOf(options.xScale, options.xRange),
    }),
    yaxis: axis(yLabel, scaleOf(options.yScale, options.yRange)),
    hovermode: traces.length > 1 ? "x unified" : "closest",
  });
  return new Plot(figure, options, () => {
    const title = options.title ?? `${ys.join(", ")} by ${x ?? "index"}`;
    return titled(
      title,
      lineText(lines.map((each) => ({ name: lines.length > 1 ? each.name : "", values: each.ys.map(numberOf) }))),
    );
  });
}

/** Indices of the least and the greatest value of each stretch, and of the ends; undefined where all are kept. */
export function thin(values: readonly (number | null)[], limit: number): number[] | undefined {
  if (values.length <= limit) return undefined;
  const kept = new Set<number>([0, values.length - 1]);
  const stretches = limit / 2;
  for (let s = 0; s < stretches; s++) {
    const start = Math.floor((s * values.length) / stretches);
    const end = Math.floor(((s + 1) * values.length) / stretches);
    let low = -1;
    let high = -1;
    for (let i = start; i < end; i++) {
      const value = values[i];
      if (value === null || value === undefined) continue;
      if (low < 0 || value < values[low]!) low = i;
      if (high < 0 || value > values[high]!) high = i;
    }
    kept.add(low < 0 ? start : low);
    if (high >= 0) kept.add(high);
  }
  return [...kept].sort((a, b) => a - b);
}
