/** Data sets: immutable tables of rows, Arrow inside. */
import { type DataType, Table } from "apache-arrow";
import { defineDisplay } from "../display/host.js";
import { type Table as ShownTable, table } from "../display/table.js";
import { DataError } from "../errors.js";
import { tableFromColumns, tableFromRecords } from "./dataset-build.js";
import { type Cell, columnReader, fieldNames } from "./dataset-cells.js";
import { Groups } from "./dataset-group.js";
import { compare, type Renamed, type SplitOptions, splitSizes } from "./dataset-order.js";
import { columnStats } from "./dataset-stats.js";
import { typeName } from "./dataset-types.js";
import type { Previewed, PreviewOptions } from "./preview.js";
import type { Preview } from "./preview-show.js";
import { Random } from "./random.js";

export { type LoadDatasetOptions, loadDataset } from "./dataset-load.js";

/** A row whose columns are not known to TypeScript. */
// biome-ignore lint/suspicious/noExplicitAny: rows read from files have the types of the file, not of the program
export type AnyRow = Record<string, any>;

// Another copy of the Arrow library makes tables of another class.
const isTable = (rows: unknown): rows is Table => rows instanceof Table || Table.isTable(rows);

/** One column of a data set. */
export interface ColumnSchema {
  name: string;
  /** `int32`, `float64`, `string`, `bool`, `list<…>`, `{name: type}` … */
  type: string;
  nullable: boolean;
}

/** The parts that {@link Dataset.split} makes. */
export interface DatasetSplit<Row extends object> {
  train: Dataset<Row>;
  validation: Dataset<Row>;
  test: Dataset<Row>;
}

/** Rows with named, typed columns. Every method returns a new data set and leaves this one as it is. */
export class Dataset<Row extends object = AnyRow> implements Iterable<Row> {
  readonly #table: Table;
  /** Rows of the table that belong to this data set, in order; null for all. */
  readonly #order: Uint32Array | null;
  #cells: Cell[] | undefined;

  private constructor(arrow: Table, order: Uint32Array | null) {
    this.#table = arrow;
    this.#order = order;
    fieldNames({ children: arrow.schema.fields } as unknown as DataType);
    const names = arrow.schema.names;
    if (new Set(names).size !== names.length)
      throw new DataError(`two columns have the same name: ${names.join(", ")}`);
  }

  /**
   * A data set of records, or of an Arrow table. Column types are found from the values; keys that a record lacks are null.
   *
   * @throws DataError where a column mixes types, naming the row.
   */
  static from<Row extends object = AnyRow>(rows: Iterable<Row> | Table): Dataset<Row> {
    if (isTable(rows)) return new Dataset<Row>(rows, null);
    if (rows === null || typeof rows !== "object" || !(Symbol.iterator in rows)) {
      throw new DataError("Dataset.from: expected an array of records or an Arrow table");
    }
    return new Dataset<Row>(
      tableFromRecords([...rows], (row) => `row ${row}`),
      null,
    );
  }

  /** Number of rows. */
  get length(): number {
    return this.#order ? this.#order.length : this.#table.numRows;
  }

  /** Names of the columns, in order. */
  get columns(): string[] {
    return this.#table.schema.names.map(String);
  }

  /** Names and types of the columns. */
  get schema(): ColumnSchema[] {
    return this.#table.schema.fields.map(({ name, type, nullable }) => ({ name, type: typeName(type), nullable }));
  }

  /** One row; negative numbers count from the end. @throws DataError outside of the rows. */
  at(index: number): Row {
    const row = index < 0 ? this.length + index : index;
    if (!Number.isInteger(row) || row < 0 || row >= this.length) {
      throw new DataError(`row ${index} of a data set of ${this.length} rows`);
    }
    return this.#row(row);
  }

  /** The first rows. */
  head(count = 5): Dataset<Row> {
    return this.slice(0, count);
  }

  /** Rows from `start` up to, not with, `end`; negative numbers count from the end. */
  slice(start = 0, end: number = this.length): Dataset<Row> {
    return this.#pick(this.#rows().slice(start, end));
  }

  /** New rows made from these; their columns and types are found anew. `change` must not be async. */
  map<Next extends object>(change: (row: Row, index: number) => Next): Dataset<Next> {
    const rows = new Array<Next>(this.length);
    for (let i = 0; i < rows.length; i++) {
      const next = change(this.#row(i), i);
      if (next instanceof Promise) {
        next.catch(() => undefined);
        throw new DataError("map: the function returned a promise; make the rows first, then Dataset.from(rows)");
      }
      rows[i] = next;
    }
    return new Dataset<Next>(
      tableFromRecords(rows, (row) => `map, row ${row}`),
      null,
    );
  }

  /** The rows for which `keep` is true. */
  filter(keep: (row: Row, index: number) => boolean): Dataset<Row> {
    const rows = this.#rows();
    const kept = new Uint32Array(rows.length);
    let count = 0;
    for (let i = 0; i < rows.length; i++) if (keep(this.#row(i), i)) kept[count++] = rows[i]!;
    return this.#pick(kept.slice(0, count));
  }

  /** Only these columns, in this order. */
  select<Name extends keyof Row & string>(...names: Name[]): Dataset<Pick<Row, Name>> {
    this.#check(names);
    return new Dataset(this.#table.select(names), this.#order) as Dataset<never>;
  }

  /** All columns but these. */
  drop<Name extends keyof Row & string>(...names: Name[]): Dataset<Omit<Row, Name>> {
    this.#check(names);
    const rest = this.columns.filter((name) => !(names as string[]).includes(name));
    return new Dataset(this.#table.select(rest), this.#order) as Dataset<never>;
  }

  /** New names for columns: `rename({ dialogue: "prompt" })`. */
  rename<const Names extends { readonly [Name in keyof Row]?: string }>(names: Names): Dataset<Renamed<Row, Names>> {
    this.#check(Object.keys(names));
    const vectors = this.#table.schema.fields.map((field, index) => {
      const to = Object.hasOwn(names, field.name) ? (names as Record<string, string>)[field.name]! : field.name;
      return [to, this.#table.getChildAt(index)!] as const;
    });
    const renamed = new Set(vectors.map(([name]) => name));
    if (renamed.size !== vectors.length) throw new DataError("rename: two columns would have the same name");
    if (renamed.has("__proto__")) throw new DataError('rename: a column named "__proto__" is refused');
    return new Dataset(new Table(Object.fromEntries(vectors)), this.#order) as Dataset<never>;
  }

  /** Sorted by a column or by what a function gives for each row. Equal rows keep their order; nulls come last. */
  sort(
    by: (keyof Row & string) | ((row: Row) => string | number | bigint | boolean | Date | null | undefined),
    options: { descending?: boolean } = {},
  ): Dataset<Row> {
    const keys: unknown[] = typeof by === "string" ? this.column(by) : Array.from(this, by);
    const sign = options.descending ? -1 : 1;
    const order = Array.from(keys.keys()).sort((a, b) => compare(keys[a], keys[b], sign) || a - b);
    const rows = this.#rows();
    return this.#pick(Uint32Array.from(order, (index) => rows[index]!));
  }

  /** The rows in a random order that depends on the seed alone. */
  shuffle(seed = 0): Dataset<Row> {
    const rows = this.#rows();
    const order = new Random(seed).permutation(this.length);
    return this.#pick(order.map((index) => rows[index]!));
  }

  /** Parts by share (0.05) or number of rows (500), drawn at random; `train` is what remains. */
  split(options: SplitOptions): DatasetSplit<Row> {
    const sizes = splitSizes(this.length, options);
    const mixed = options.shuffle === false ? this : this.shuffle(options.seed ?? 0);
    const validationStart = sizes.train;
    const testStart = sizes.train + sizes.validation;
    return {
      train: mixed.slice(0, validationStart),
      validation: mixed.slice(validationStart, testStart),
      test: mixed.slice(testStart),
    };
  }

  /** These rows, then those of the others. Columns are matched by name. */
  concat(...others: Dataset<Row>[]): Dataset<Row> {
    const parts = [this as Dataset<Row>, ...others].filter((part) => part.length > 0);
    return parts.length < 2 ? (parts[0] ?? this) : Dataset.from(parts.flatMap((part) => part.toRows()));
  }

  /** Groups of the rows that have the same values in these columns: `groupBy("topic").count()`. */
  groupBy(...names: (keyof Row & string)[]): Groups {
    this.#check(names);
    return new Groups(this as unknown as Dataset, names, (rows) => Dataset.from(rows));
  }

  /** Type, nulls, distinct values, range and mean of each column (of strings and lists, of their lengths). */
  stats(): Dataset {
    return Dataset.from(this.schema.map(({ name, type }) => columnStats(name, type, this.column(name as never))));
  }

  /** All values of one column. */
  column<Name extends keyof Row & string>(name: Name): Row[Name][] {
    const read = this.#readers()[this.columns.indexOf(name)];
    if (!read) throw this.#noColumn(name);
    const order = this.#order;
    const out = new Array<unknown>(this.length);
    for (let i = 0; i < out.length; i++) out[i] = read(order ? order[i]! : i);
    return out as Row[Name][];
  }

  /** All rows as records. */
  toRows(): Row[] {
    return Array.from({ length: this.length }, (_, index) => this.#row(index));
  }

  /** The rows as an Arrow table. */
  toArrow(): Table {
    if (!this.#order) return this.#table;
    return tableFromColumns(
      this.#table.schema.fields,
      this.columns.map((name) => this.column(name as never)),
      this.length,
    );
  }

  /** Writes .jsonl, .json, .csv, .tsv or .arrow; the file appears whole or not at all. */
  async save(file: string): Promise<void> {
    const { saveDataset } = await import("./dataset-save.js");
    await saveDataset(this as unknown as Dataset, file);
  }

  /** The rows, one by one. */
  *[Symbol.iterator](): Generator<Row> {
    for (let i = 0; i < this.length; i++) yield this.#row(i);
  }

  /** What `model.train` would make of the first rows, with the same options: each token as trained, read only or cut. */
  async preview(model: Previewed, options: PreviewOptions<Row> = {}): Promise<Preview> {
    const { previewRows } = await import("./preview.js");
    return previewRows(this, model, options as PreviewOptions);
  }

  /** Arrays of `size` rows (the last may be shorter); other work may run between them. */
  async *batches(size = 1000): AsyncGenerator<Row[]> {
    if (!Number.isInteger(size) || size < 1) throw new DataError(`batches: expected a size of 1 or more, got ${size}`);
    for (let start = 0; start < this.length; start += size) {
      const count = Math.min(size, this.length - start);
      yield Array.from({ length: count }, (_, i) => this.#row(start + i));
    }
  }

  /** Batches of 1,000 rows. */
  [Symbol.asyncIterator](): AsyncGenerator<Row[]> {
    return this.batches();
  }

  /** The first rows as a table, with the shape and the types. */
  toTable(rows = 8): ShownTable {
    const count = (n: number, noun: string): string => `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;
    const head = this.head(rows);
    const cells = head.columns.map((name) => (head.column(name as never) as unknown[]).map(shortList));
    return table(
      this.columns,
      Array.from({ length: head.length }, (_, row) => cells.map((column) => column[row])),
      {
        title: `${count(this.length, "row")} × ${count(this.columns.length, "column")}`,
        totalRows: this.length,
        maxRows: rows,
        subtitles: Object.fromEntries(this.schema.map(({ name, type }) => [name, type])),
        maxCell: 240,
      },
    );
  }

  #pick(order: Uint32Array): Dataset<Row> {
    return new Dataset<Row>(this.#table, order);
  }

  #rows(): Uint32Array {
    return this.#order ?? Uint32Array.from({ length: this.#table.numRows }, (_, index) => index);
  }

  #readers(): Cell[] {
    this.#cells ??= this.columns.map((name) => columnReader(this.#table, name));
    return this.#cells;
  }

  #row(index: number): Row {
    const at = this.#order ? this.#order[index]! : index;
    const readers = this.#readers();
    const fields = this.#table.schema.fields;
    const row: Record<string, unknown> = {};
    for (let i = 0; i < readers.length; i++) row[fields[i]!.name] = readers[i]!(at);
    return row as Row;
  }

  #check(names: readonly string[]): void {
    for (const name of names) if (!this.columns.includes(name)) throw this.#noColumn(name);
  }

  #noColumn(name: string): DataError {
    return new DataError(`no column ${JSON.stringify(name)}: there are ${this.columns.join(", ") || "none"}`);
  }
}

/** Long lists of numbers, such as ids, by their beginning and end. */
function shortList(value: unknown): unknown {
  if (!Array.isArray(value) || value.length <= 12 || !value.every((n) => typeof n === "number")) return value;
  return `[${value.slice(0, 3).join(", ")}, … ${value.length - 5} more …, ${value.slice(-2).join(", ")}]`;
}

defineDisplay(
  Dataset,
  (data) => {
    const shown = data.toTable();
    return { "text/html": shown.toHtml().toString(), "text/plain": shown.toText() };
  },
  (data) => data.toTable().toText(),
);
