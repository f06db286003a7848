import { matrixFormatter } from "../display/format.js";
import { table } from "../display/table.js";
import { DataError } from "../errors.js";
import { Columns, numberOf, numbersOf, type PlotData, point } from "./columns.js";
import { Plot } from "./plot.js";
import { titled } from "./text.js";
import { axis, categoryAxis, makeFigure, noTicks, type PlotOptions, safeText } from "./theme.js";

export interface HeatmapOptions extends PlotOptions {
  /** For rows: columns of the place and of the value. Defaults: the first two columns and the first numeric one after. */
  x?: string;
  y?: string;
  z?: string;
  /** For a matrix: names along the axes. */
  xNames?: readonly string[];
  yNames?: readonly string[];
  /** Numbers in the cells. Default: where there are at most 200. */
  values?: boolean;
  /** What the colours mean. */
  zLabel?: string;
}

/** Coloured cells from rows with x, y and z, or from a matrix (rows from top to bottom). */
export function heatmap(data: PlotData | readonly (readonly number[])[], options: HeatmapOptions = {}): Plot {
  const { xs, ys, cells, xLabel, yLabel, zLabel } = isMatrix(data, options)
    ? fromMatrix(data, options)
    : fromRows(data, options);
  const write = matrixFormatter(cells.flat().filter((value) => value !== null));
  const shown = options.values ?? xs.length * ys.length <= 200;
  const trace = {
    type: "heatmap",
    x: xs,
    y: ys,
    z: cells,
    colorscale: "Viridis",
    hoverongaps: false,
    // Between many cells, gaps would make a pattern of their own.
    xgap: xs.length * ys.length <= 400 ? 1 : 0,
    ygap: xs.length * ys.length <= 400 ? 1 : 0,
    colorbar: { title: { text: safeText(options.zLabel ?? zLabel) }, outlinewidth: 0, thickness: 14 },
    ...(shown
      ? { text: cells.map((row) => row.map((value) => (value === null ? "" : write(value)))), texttemplate: "%{text}" }
      : {}),
  };
  const height = options.height ?? Math.min(640, Math.max(320, 130 + ys.length * 32));
  const figure = makeFigure(
    [trace],
    { ...options, height },
    {
      xaxis: axis(options.xLabel ?? xLabel, { ...categoryAxis(xs), showgrid: false, ...noTicks }),
      yaxis: axis(options.yLabel ?? yLabel, {
        ...categoryAxis(ys),
        showgrid: false,
        ...noTicks,
        autorange: "reversed",
      }),
    },
  );
  return new Plot(figure, options, () => {
    const rows = cells
      .slice(0, 20)
      .map((row, index) => [ys[index]!, ...row.map((value) => (value === null ? null : write(value)))]);
    return titled(options.title, [
      table(["", ...xs], rows, {
        maxColumns: 12,
        maxTextCell: 16,
        totalRows: ys.length,
        align: Object.fromEntries(xs.map((name) => [name, "right"])),
      }).toText(),
    ]);
  });
}

interface Grid {
  xs: string[];
  ys: string[];
  cells: (number | null)[][];
  xLabel: string | undefined;
  yLabel: string | undefined;
  zLabel: string;
}

function isMatrix(data: unknown, options: HeatmapOptions): data is readonly (readonly number[])[] {
  if (!Array.isArray(data) || options.x !== undefined || options.z !== undefined) return false;
  return (
    data.length > 0 &&
    data.every((row) => Array.isArray(row) || (ArrayBuffer.isView(row) && !(row instanceof DataView)))
  );
}

function fromMatrix(data: readonly ArrayLike<number>[], options: HeatmapOptions): Grid {
  const width = Math.max(...data.map((row) => row.length));
  const xs = namesFor(options.xNames, width, "xNames");
  const ys = namesFor(options.yNames, data.length, "yNames");
  const cells = data.map((row) => Array.from({ length: width }, (_, i) => numberOf(row[i])));
  return { xs, ys, cells, xLabel: undefined, yLabel: undefined, zLabel: "" };
}

function namesFor(given: readonly string[] | undefined, length: number, what: string): string[] {
  if (!given) return Array.from({ length }, (_, i) => String(i));
  if (given.length !== length)
    throw new DataError(`plot.heatmap: ${what} has ${given.length} names for ${length} cells`);
  if (new Set(given).size !== length) throw new DataError(`plot.heatmap: ${what} has a name twice`);
  return given.map(String);
}

function fromRows(data: PlotData, options: HeatmapOptions): Grid {
  const columns = new Columns(data, "heatmap");
  const x = options.x ?? columns.names[0] ?? "x";
  const y = options.y ?? columns.names.find((name) => name !== x) ?? "y";
  const z = options.z ?? columns.numeric().find((name) => name !== x && name !== y) ?? "z";
  const [across, down] = [x, y].map((name) => columns.get(name).map((value) => String(point(value) ?? "null")));
  const values = numbersOf(columns, z, "heatmap");
  const xs = [...new Set(across)];
  const ys = [...new Set(down)];
  if (xs.length * ys.length > 1_000_000)
    throw new DataError(`plot.heatmap: ${xs.length} x ${ys.length} cells are too many`);
  const cells = ys.map(() => new Array<number | null>(xs.length).fill(null));
  const xAt = new Map(xs.map((name, index) => [name, index]));
  const yAt = new Map(ys.map((name, index) => [name, index]));
  values.forEach((value, row) => {
    cells[yAt.get(down![row]!)!]![xAt.get(across![row]!)!] = value;
  });
  return { xs, ys, cells, xLabel: x, yLabel: y, zLabel: z };
}
