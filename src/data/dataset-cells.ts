/** Arrow arrays → plain JavaScript values. */
import {
  type Data,
  type DataType,
  type Decimal,
  type FixedSizeList,
  type Float,
  type Int,
  type Table,
  Type,
  Vector,
} from "apache-arrow";
import { DataError } from "../errors.js";

/** Reads one value of a column by its row. */
export type Cell = (row: number) => unknown;

/** A reader of a column over all chunks of a table. */
export function columnReader(table: Table, name: string): Cell {
  const column = table.getChild(name);
  if (!column) throw new DataError(`no column ${JSON.stringify(name)}: there are ${table.schema.names.join(", ")}`);
  const chunks = column.data.filter((chunk) => chunk.length > 0);
  const readers = chunks.map(dataReader);
  if (readers.length === 1) return readers[0]!;
  const ends: number[] = [];
  let rows = 0;
  for (const chunk of chunks) ends.push((rows += chunk.length));
  // Rows are mostly read in order, so the last chunk is mostly the right one.
  let at = 0;
  return (row) => {
    while (row >= ends[at]!) at += 1;
    while (at > 0 && row < ends[at - 1]!) at -= 1;
    return readers[at]!(at === 0 ? row : row - ends[at - 1]!);
  };
}

/** A reader of one Arrow array: lists become arrays, structs and maps records, 64-bit integers numbers where exact. */
export function dataReader(data: Data): Cell {
  const read = presentReader(data);
  if (data.type.typeId === Type.Null) return () => null;
  return data.nullCount === 0 ? read : (row) => (data.getValid(row) ? read(row) : null);
}

function presentReader(data: Data): Cell {
  const { type } = data;
  switch (type.typeId) {
    case Type.Int:
      return (type as Int).bitWidth === 64 ? bigInteger(data.values) : (row) => data.values[row];
    case Type.Float:
      return (type as Float).precision === 0 ? leaf(data) : (row) => data.values[row];
    case Type.List:
    case Type.LargeList:
      return listReader(data);
    case Type.FixedSizeList: {
      const item = dataReader(data.children[0]!);
      const size = (type as FixedSizeList).listSize;
      return (row) => Array.from({ length: size }, (_, i) => item(row * size + i));
    }
    case Type.Struct:
      return structReader(data);
    case Type.Map:
      return mapReader(data);
    case Type.Timestamp:
    case Type.Date: {
      const read = leaf(data);
      return (row) => new Date(Number(read(row)));
    }
    case Type.Decimal: {
      const read = leaf(data);
      return (row) => decimalText(read(row) as Uint32Array, (type as Decimal).scale);
    }
    case Type.Binary:
    case Type.LargeBinary:
    case Type.FixedSizeBinary: {
      const read = leaf(data);
      return (row) => (read(row) as Uint8Array).slice();
    }
    case Type.Dictionary: {
      const read = leaf(data);
      return (row) => plainValue(read(row));
    }
    default:
      return leaf(data);
  }
}

function leaf(data: Data): Cell {
  const vector = new Vector([data]);
  return (row) => vector.get(row);
}

const plainValue = (value: unknown): unknown =>
  typeof value === "bigint" && Number.isSafeInteger(Number(value)) ? Number(value) : value;

function bigInteger(values: BigInt64Array): Cell {
  return (row) => plainValue(values[row]);
}

function listReader(data: Data): Cell {
  const item = dataReader(data.children[0]!);
  const offsets = data.valueOffsets as Int32Array;
  return (row) => {
    const start = Number(offsets[row]);
    const end = Number(offsets[row + 1]);
    const out = new Array<unknown>(end - start);
    for (let i = start; i < end; i++) out[i - start] = item(i);
    return out;
  };
}

function structReader(data: Data): Cell {
  const names = fieldNames(data.type);
  const readers = data.children.map(dataReader);
  return (row) => {
    const out: Record<string, unknown> = {};
    for (let i = 0; i < names.length; i++) out[names[i]!] = readers[i]!(row);
    return out;
  };
}

function mapReader(data: Data): Cell {
  const entries = listReader(data);
  const [keyName, valueName] = fieldNames(data.children[0]!.type);
  return (row) => {
    const out: Record<string, unknown> = {};
    for (const entry of entries(row) as Record<string, unknown>[]) {
      const key = String(entry[keyName!]);
      if (key === "__proto__") throw new DataError('a map with the key "__proto__" is refused');
      out[key] = entry[valueName!];
    }
    return out;
  };
}

/** Names of a record's fields. `__proto__` would set a prototype where it is assigned. */
export function fieldNames(type: DataType): string[] {
  const names = (type.children ?? []).map((field) => field.name);
  if (names.includes("__proto__")) throw new DataError('a field named "__proto__" is refused');
  return names;
}

function decimalText(words: Uint32Array, scale: number): string {
  let value = 0n;
  for (let i = words.length - 1; i >= 0; i--) value = (value << 32n) | BigInt(words[i]!);
  value = BigInt.asIntN(words.length * 32, value);
  const digits = (value < 0n ? -value : value).toString().padStart(scale + 1, "0");
  const text = scale > 0 ? `${digits.slice(0, -scale)}.${digits.slice(-scale)}` : digits;
  return value < 0n ? `-${text}` : text;
}
