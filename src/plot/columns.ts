/** Columns of whatever is plotted: a data set, an Arrow table, records, columns, or plain arrays. */
import { DataError } from "../errors.js";

interface ArrowTable {
  readonly schema: { readonly fields: readonly { readonly name: string }[] };
  getChild(name: never): Iterable<unknown> | null;
}

/** What can be plotted. Data sets and Arrow tables are known by their methods, so that plots stand on displays alone. */
export type PlotData =
  | { readonly columns: readonly string[]; column(name: never): readonly unknown[] }
  | ArrowTable
  | readonly object[]
  | readonly number[]
  | readonly (readonly number[])[]
  | Readonly<Record<string, ArrayLike<unknown>>>;

/** Named columns of equal length. */
export class Columns {
  readonly names: readonly string[];
  readonly #read: (name: string) => readonly unknown[];

  constructor(data: PlotData, what: string) {
    if (data === null || typeof data !== "object") {
      throw new DataError(
        `plot.${what}: expected a data set, records or arrays, got ${data === null ? "null" : typeof data}`,
      );
    }
    [this.names, this.#read] = open(data, what);
  }

  /** One column. @throws DataError where there is none of that name. */
  get(name: string): readonly unknown[] {
    if (!this.names.includes(name)) {
      throw new DataError(`plot: no column ${JSON.stringify(name)}; there are ${this.names.join(", ") || "none"}`);
    }
    return this.#read(name);
  }

  /** Columns that hold numbers. */
  numeric(): string[] {
    return this.names.filter((name) => this.get(name).some(isNumber));
  }
}

const isNumber = (value: unknown): boolean => typeof value === "number" || typeof value === "bigint";

type Opened = [names: readonly string[], read: (name: string) => readonly unknown[]];

function open(data: PlotData, what: string): Opened {
  if ("getChild" in data && typeof data.getChild === "function") {
    const arrow = data as ArrowTable;
    const names = arrow.schema.fields.map((field) => field.name);
    return [names, (name) => Array.from(arrow.getChild(name as never) ?? [])];
  }
  if ("columns" in data && "column" in data && typeof data.column === "function") {
    const { columns } = data as { columns: readonly string[] };
    return [columns, (name) => (data.column as (name: string) => readonly unknown[])(name)];
  }
  if (Array.isArray(data) || ArrayBuffer.isView(data)) return openArray(Array.from(data as ArrayLike<unknown>), what);
  const columns = Object.entries(data as Record<string, unknown>);
  const known = new Map<string, unknown[]>();
  for (const [name, values] of columns) {
    const isList = Array.isArray(values) || (ArrayBuffer.isView(values) && !(values instanceof DataView));
    if (!isList)
      throw new DataError(`plot.${what}: expected each column to be an array, got ${typeof values} for ${name}`);
    known.set(name, Array.from(values as ArrayLike<unknown>));
  }
  const lengths = new Set([...known.values()].map((values) => values.length));
  if (lengths.size > 1)
    throw new DataError(`plot.${what}: the columns have different lengths: ${[...lengths].join(", ")}`);
  return [[...known.keys()], (name) => known.get(name)!];
}

function openArray(rows: readonly unknown[], what: string): Opened {
  if (rows.length === 0) return [[], () => []];
  if (rows.every((row) => row === null || typeof row !== "object")) {
    return [["index", "value"], (name) => (name === "index" ? rows.map((_, index) => index) : rows)];
  }
  if (rows.every((row) => Array.isArray(row))) {
    const pairs = rows as readonly unknown[][];
    const width = Math.max(...pairs.map((pair) => pair.length));
    const names = ["x", "y", "z"].slice(0, width);
    if (width > 3) throw new DataError(`plot.${what}: expected pairs [x, y], got rows of ${width} values`);
    return [names, (name) => pairs.map((pair) => pair[names.indexOf(name)])];
  }
  const names = new Set<string>();
  for (const row of rows)
    if (row !== null && typeof row === "object") for (const name of Object.keys(row)) names.add(name);
  return [[...names], (name) => rows.map((row) => ownValue(row, name))];
}

const ownValue = (row: unknown, name: string): unknown =>
  row !== null && typeof row === "object" && Object.hasOwn(row, name) ? (row as Record<string, unknown>)[name] : null;

/** A value as JSON can hold it: a finite number, a date in ISO form, a text, or null. */
export function point(value: unknown): number | string | null {
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (typeof value === "bigint") return Number(value);
  if (typeof value === "boolean") return String(value);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value === null || value === undefined) return null;
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A number, or null for all that is none. */
export function numberOf(value: unknown): number | null {
  const number = typeof value === "bigint" || typeof value === "boolean" ? Number(value) : value;
  return typeof number === "number" && Number.isFinite(number) ? number : null;
}

/** The numbers of a column. @throws DataError where it holds values but no number. */
export function numbersOf(columns: Columns, name: string, what: string): (number | null)[] {
  const values = columns.get(name);
  const numbers = values.map(numberOf);
  if (values.some((value) => value !== null && value !== undefined) && numbers.every((number) => number === null)) {
    throw new DataError(
      `plot.${what}: column ${name} holds no finite numbers (first value: ${JSON.stringify(point(values[0]))})`,
    );
  }
  return numbers;
}

/** Rows by the value of a column, in order of first appearance; one unnamed group where no column is given. */
export function seriesOf(columns: Columns, name: string | undefined, length: number): Map<string, number[]> {
  const all = Array.from({ length }, (_, index) => index);
  if (name === undefined) return new Map([["", all]]);
  const values = columns.get(name);
  const groups = new Map<string, number[]>();
  for (const row of all) {
    const key = String(point(values[row]) ?? "null");
    const group = groups.get(key);
    if (group) group.push(row);
    else groups.set(key, [row]);
  }
  return groups;
}
