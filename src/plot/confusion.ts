import { formatNumber, formatPercent } from "../display/format.js";
import { table } from "../display/table.js";
import { DataError } from "../errors.js";
import { Columns, type PlotData, point } from "./columns.js";
import { Plot } from "./plot.js";
import { titled } from "./text.js";
import { axis, blues, categoryAxis, makeFigure, noTicks, type PlotOptions } from "./theme.js";

/** Counts of predictions: `matrix[actual][predicted]`. */
export interface ConfusionMatrix {
  labels: readonly string[];
  matrix: readonly (readonly number[])[];
}

export interface ConfusionOptions extends PlotOptions {
  /** For rows: columns of the right answer and of the model's. Defaults: "actual" and "predicted". */
  actual?: string;
  predicted?: string;
  /** Order of the labels. Default: as they appear. */
  labels?: readonly string[];
}

/** A confusion matrix: counts, and their share of the row, so that the diagonal holds each label's recall. */
export function confusion(data: PlotData | ConfusionMatrix, options: ConfusionOptions = {}): Plot {
  const { labels, matrix } = isMatrix(data) ? checked(data) : countRows(data, options);
  const rates = matrix.map((row) => {
    const sum = row.reduce((a, b) => a + b, 0);
    return row.map((count) => (sum > 0 ? count / sum : 0));
  });
  const names = labels.map(String);
  const side = names.length;
  const text = matrix.map((row, i) =>
    row.map((count, j) =>
      side > 16 ? formatNumber(count) : `${formatNumber(count)}<br>${formatPercent(rates[i]![j]!)}`,
    ),
  );
  const trace = {
    type: "heatmap",
    x: names,
    y: names,
    z: rates,
    zmin: 0,
    zmax: 1,
    colorscale: blues,
    xgap: 2,
    ygap: 2,
    showscale: false,
    text,
    texttemplate: "%{text}",
    textfont: { size: side > 10 ? 10 : side > 6 ? 12 : 14 },
    hovertemplate: "actual %{y}<br>predicted %{x}<br>%{text}<extra></extra>",
  };
  const height = options.height ?? Math.min(1000, 170 + side * (side > 8 ? 48 : 72));
  const width = options.width ?? Math.min(1100, 240 + side * (side > 8 ? 64 : 110));
  const figure = makeFigure(
    [trace],
    { ...options, width, height },
    {
      xaxis: axis(options.xLabel ?? "predicted", { ...categoryAxis(names), showgrid: false, ...noTicks }),
      yaxis: axis(options.yLabel ?? "actual", {
        ...categoryAxis(names),
        showgrid: false,
        ...noTicks,
        autorange: "reversed",
      }),
      width,
      autosize: false,
    },
  );
  return new Plot(figure, { ...options, width, height }, () => {
    const rows = matrix.map((row, i) => [names[i]!, ...row, formatPercent(rates[i]![i]!)]);
    const shown = table(["actual \\ predicted", ...names, "recall"], rows, {
      maxTextCell: 20,
      maxRows: 40,
      maxColumns: 14,
      align: { recall: "right" },
    });
    return titled(options.title ?? "Confusion matrix", [shown.toText()]);
  });
}

function isMatrix(data: PlotData | ConfusionMatrix): data is ConfusionMatrix {
  return (
    data !== null && typeof data === "object" && "matrix" in data && "labels" in data && Array.isArray(data.matrix)
  );
}

function checked({ labels, matrix }: ConfusionMatrix): ConfusionMatrix {
  const fits = matrix.length === labels.length && matrix.every((row) => row.length === labels.length);
  if (!fits || labels.length === 0) {
    throw new DataError(`plot.confusion: expected a square matrix with a row for each of the ${labels.length} labels`);
  }
  if (new Set(labels).size !== labels.length) throw new DataError("plot.confusion: a label is given twice");
  if (!matrix.flat().every((count) => Number.isFinite(count) && count >= 0)) {
    throw new DataError("plot.confusion: expected counts of zero and more");
  }
  return { labels, matrix };
}

function countRows(data: PlotData, options: ConfusionOptions): ConfusionMatrix {
  const columns = new Columns(data, "confusion");
  const [actual, predicted] = [options.actual ?? "actual", options.predicted ?? "predicted"].map((name) =>
    columns.get(name).map((value) => String(point(value) ?? "null")),
  ) as [string[], string[]];
  const labels = [...(options.labels ?? new Set([...actual, ...predicted]))];
  if (labels.length === 0) throw new DataError("plot.confusion: no rows to count");
  if (labels.length > 100) throw new DataError(`plot.confusion: ${labels.length} labels are too many for a matrix`);
  const at = new Map(labels.map((label, index) => [label, index]));
  const matrix = labels.map(() => new Array<number>(labels.length).fill(0));
  actual.forEach((label, row) => {
    const [i, j] = [at.get(label), at.get(predicted[row]!)];
    if (i === undefined || j === undefined) {
      throw new DataError(
        `plot.confusion: row ${row} has a label that is not in labels: ${label} or ${predicted[row]}`,
      );
    }
    matrix[i]![j] = matrix[i]![j]! + 1;
  });
  return { labels, matrix };
}
