import { columnFormatter, displayWidth } from "../display/format.js";
import { Columns, numbersOf, type PlotData, point, seriesOf } from "./columns.js";
import { Plot } from "./plot.js";
import { barText, largestOf, titled } from "./text.js";
import { axis, categoryAxis, colorOf, makeFigure, noTicks, type PlotOptions, safeText, scaleOf } from "./theme.js";

export interface BarOptions extends PlotOptions {
  /** Column of the categories. Default: the first. */
  x?: string;
  /** Column, or several, of the bars' lengths. Default: all other numeric columns. */
  y?: string | readonly string[];
  /** Column whose values name the bars beside each other. `color` is another name for it. */
  series?: string;
  color?: string;
  /** Bars from left to right. Default: where the names are long. */
  horizontal?: boolean;
  /** Bars on top of each other instead of beside each other. */
  stacked?: boolean;
}

/** @example plot.bar(data.groupBy("topic").count().head(10), { x: "topic", y: "count" }) */
export function bar(data: PlotData, options: BarOptions = {}): Plot {
  const columns = new Columns(data, "bar");
  const x = options.x ?? columns.names[0];
  const series = options.series ?? options.color;
  const given = options.y ?? columns.numeric().filter((name) => name !== x && name !== series);
  const ys = typeof given === "string" ? [given] : given;
  const categories = (x === undefined ? [] : columns.get(x)).map((value) => String(point(value) ?? "null"));
  const names = [...new Set(categories)];
  const groups = ys.flatMap((y) => {
    const values = numbersOf(columns, y, "bar");
    return [...seriesOf(columns, series, values.length)].map(([name, rows]) => ({
      name: [name, ys.length > 1 ? y : ""].filter((part) => part !== "").join(" "),
      categories: rows.map((row) => categories[row]!),
      values: rows.map((row) => values[row]!),
    }));
  });
  const widths = names.map((name) => Math.min(32, displayWidth(name)));
  const crowded = widths.reduce((sum, width) => sum + width + 2, 0) > 90 && Math.max(...widths) > 8;
  const horizontal = options.horizontal ?? (crowded && names.length <= 40);
  const bars = names.length * (options.stacked ? 1 : groups.length);
  const write = columnFormatter(groups.flatMap((group) => group.values.filter((value) => value !== null)));
  const traces = groups.map((group, index) => ({
    type: "bar",
    orientation: horizontal ? "h" : "v",
    name: safeText(group.name === "" ? (ys[0] ?? "") : group.name),
    x: horizontal ? group.values : group.categories,
    y: horizontal ? group.categories : group.values,
    marker: { color: colorOf(index) },
    // Numbers on few bars save looking across to the axis.
    ...(bars <= 16 && !options.stacked
      ? {
          text: group.values.map((value) => (value === null ? "" : write(value))),
          textposition: "outside",
          cliponaxis: false,
          textangle: 0,
        }
      : {}),
  }));
  const values = axis(options.yLabel ?? (ys.length === 1 ? ys[0] : undefined), {
    ...scaleOf(options.yScale, options.yRange),
    ...(options.yScale === "log" ? {} : { rangemode: "tozero" }),
    zeroline: true,
    zerolinecolor: "#999999",
  });
  const place = axis(options.xLabel ?? x, {
    ...categoryAxis(names),
    ...(horizontal ? { autorange: "reversed" } : {}),
    showgrid: false,
    ...noTicks,
  });
  const height = options.height ?? (horizontal ? Math.max(260, 120 + names.length * 26) : 420);
  const figure = makeFigure(
    traces,
    { ...options, height },
    {
      barmode: options.stacked ? "stack" : "group",
      bargap: 0.25,
      xaxis: horizontal ? values : place,
      yaxis: horizontal ? place : values,
    },
  );
  const largest = largestOf(groups.flatMap((group) => group.values));
  return new Plot(figure, options, () =>
    titled(
      options.title ?? `${ys.join(", ")} by ${x ?? ""}`,
      groups.flatMap((group) => [
        ...(groups.length > 1 ? [group.name] : []),
        ...barText(group.categories, group.values, { largest }),
      ]),
    ),
  );
}
