/**
 * What a Parquet file claims about itself, checked before it is decoded: a few bytes can claim billions of values, and the decoder
 * allocates for as many as a page says.
 */
import type { FileMetaData } from "hyparquet";
import { parquetHeader } from "hyparquet/src/column.js";
import { checkPage, type PageKind, type Unpack } from "./parquet-pages.js";

/** A file that is read at positions. */
export interface ReadAt {
  readonly size: number;
  read(start: number, end: number): Promise<ArrayBuffer>;
}

/** Most bytes and values that may come out of a file. */
export interface ParquetLimits {
  maxBytes: number;
}

const MiB = 1024 * 1024;
const maxColumns = 10_000;
const maxDepth = 64;
const maxRatio = 200;
/** Counts and bytes below these are never refused. */
const freeValues = 2 ** 24;
const freeBytes = 64 * MiB;

/** The names of the schema and the counts of the groups: what its columns are, in order. @throws Error with what is wrong */
export function checkMetadata(metadata: FileMetaData, fileBytes: number): PageKind[] {
  const { schema, row_groups: groups } = metadata;
  if (schema.length > maxColumns) throw new Error(`it has ${schema.length} columns, at most ${maxColumns} are read`);
  for (const { name } of schema) if (name === "__proto__") throw new Error('a column named "__proto__" is refused');
  const found = leaves(schema);
  const names = found.map(({ path }) => path).join();
  let rows = 0;
  for (const group of groups) {
    // The decoder looks columns up by name, and leaves those that it does not find to fail where nobody listens.
    const paths = group.columns.map((column) => JSON.stringify(column.meta_data?.path_in_schema));
    if (paths.join() !== names) throw new Error("the columns of a row group are not those of the schema");
    const count = Number(group.num_rows);
    if (!(Number.isSafeInteger(count) && count >= 0)) throw new Error(`a row group of ${group.num_rows} rows`);
    if (count > 0 && group.columns.length === 0) throw new Error("a row group without columns");
    rows += count;
    for (const { meta_data: column, file_path: other } of group.columns) {
      if (column === undefined || other) throw new Error("a column that is encrypted or lies in another file");
      const values = Number(column.num_values);
      if (!(Number.isSafeInteger(values) && values >= count))
        throw new Error(`a column of ${column.num_values} values in ${count} rows`);
      const [start, end] = chunkRange(column);
      if (!(start >= 4 && end >= start && end <= fileBytes))
        throw new Error(`a column at bytes ${start} to ${end} of ${fileBytes}`);
    }
  }
  if (rows !== Number(metadata.num_rows)) throw new Error(`${metadata.num_rows} rows, but ${rows} in its groups`);
  return found;
}

interface Leaf extends PageKind {
  /** As JSON. */
  path: string;
}

/** The columns that hold values, in order. */
function leaves(schema: FileMetaData["schema"]): Leaf[] {
  const found: Leaf[] = [];
  let next = 1;
  const walk = (parent: readonly string[], children: number, maxRepetition: number, maxDefinition: number): void => {
    if (parent.length > maxDepth) throw new Error(`its schema is nested deeper than ${maxDepth}`);
    const names = new Set<string>();
    for (let i = 0; i < children; i++) {
      const element = schema[next++];
      if (element === undefined) throw new Error("its schema is cut short");
      if (names.has(element.name)) throw new Error(`two columns are named ${JSON.stringify(element.name)}`);
      names.add(element.name);
      const path = [...parent, element.name];
      const repetition = maxRepetition + (element.repetition_type === "REPEATED" ? 1 : 0);
      const definition = maxDefinition + (element.repetition_type === "REQUIRED" ? 0 : 1);
      if (element.num_children) walk(path, element.num_children, repetition, definition);
      else {
        const { type = "" } = element;
        found.push({ path: JSON.stringify(path), type, maxRepetition: repetition, maxDefinition: definition });
      }
    }
  };
  walk([], schema[0]?.num_children ?? 0, 0, 0);
  if (next !== schema.length) throw new Error("its schema has columns outside of it");
  return found;
}

type Column = NonNullable<FileMetaData["row_groups"][number]["columns"][number]["meta_data"]>;

function chunkRange(column: Column): [number, number] {
  const data = Number(column.data_page_offset);
  const dictionary = Number(column.dictionary_page_offset ?? 0);
  const start = dictionary > 0 && dictionary < data ? dictionary : data;
  return [start, start + Number(column.total_compressed_size)];
}

/** Adds up what the pages of a file claim. */
export class PageCheck {
  #bytes = 0;
  #values = 0;
  readonly #file: ReadAt;
  readonly #limits: ParquetLimits;
  readonly #kinds: readonly PageKind[];
  readonly #unpack: (codec: string) => Unpack;

  constructor(file: ReadAt, kinds: readonly PageKind[], unpack: (codec: string) => Unpack, limits: ParquetLimits) {
    this.#file = file;
    this.#kinds = kinds;
    this.#unpack = unpack;
    this.#limits = limits;
  }

  /** Looks at the header of every page of a row group. @throws Error with what is wrong */
  async group({ columns }: FileMetaData["row_groups"][number]): Promise<void> {
    for (const [i, { meta_data: column }] of columns.entries()) {
      const [start, end] = chunkRange(column!);
      this.#column(column!, this.#kinds[i]!, new DataView(await this.#file.read(start, end)));
    }
  }

  #column(column: Column, kind: PageKind, view: DataView): void {
    if (column.type !== kind.type) throw new Error(`a column of ${column.type} where the schema has ${kind.type}`);
    const unpack = this.#unpack(column.codec);
    const name = column.path_in_schema.join(".");
    const reader = { view, offset: 0 };
    let values = 0;
    while (reader.offset < view.byteLength - 1) {
      const header = parquetHeader(reader);
      const { compressed_page_size: packed, uncompressed_page_size: whole } = header;
      if (!isCount(packed) || !isCount(whole) || packed > view.byteLength - reader.offset)
        throw new Error(`column ${name}: a page of ${packed} bytes where ${view.byteLength - reader.offset} are left`);
      const page = new Uint8Array(view.buffer, view.byteOffset + reader.offset, packed);
      reader.offset += packed;
      const v2 = header.data_page_header_v2;
      if (v2) {
        const levels = v2.repetition_levels_byte_length + v2.definition_levels_byte_length;
        if (
          !isCount(levels) ||
          levels > Math.min(packed, whole) ||
          !isCount(v2.repetition_levels_byte_length) ||
          !isCount(v2.definition_levels_byte_length) ||
          !isCount(v2.num_nulls) ||
          v2.num_nulls > v2.num_values
        )
          throw new Error(`column ${name}: a page of ${packed} bytes with ${levels} bytes of levels`);
      }
      const dictionary = header.dictionary_page_header;
      // The values of a dictionary take a bit each at least.
      if (dictionary && !(isCount(dictionary.num_values) && dictionary.num_values <= whole * 8))
        throw new Error(`column ${name}: a dictionary of ${dictionary.num_values} values in ${whole} bytes`);
      const count = header.data_page_header?.num_values ?? v2?.num_values ?? 0;
      if (!isCount(count)) throw new Error(`column ${name}: a page of ${count} values`);
      values += count;
      if (values > Number(column.num_values))
        throw new Error(`column ${name}: pages of more than its ${column.num_values} values`);
      this.#add(whole, count);
      checkPage(header, page, kind, unpack);
    }
    if (values !== Number(column.num_values))
      throw new Error(`column ${name}: ${values} values in its pages, expected ${column.num_values}`);
  }

  #add(bytes: number, values: number): void {
    this.#bytes += bytes;
    this.#values += values;
    if (this.#bytes > this.#limits.maxBytes)
      throw new Error(`more than ${Math.round(this.#limits.maxBytes / MiB)} MiB; pass maxBytes to allow more`);
    if (this.#bytes > freeBytes && this.#bytes > maxRatio * this.#file.size)
      throw new Error(`it unpacks to more than ${maxRatio} times its size, which no data set does`);
    if (this.#values > freeValues && this.#values > maxRatio * this.#file.size)
      throw new Error(`it claims ${this.#values} values in ${this.#file.size} bytes, which no data set has`);
  }
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
