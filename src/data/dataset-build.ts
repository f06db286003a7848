/** JavaScript values → Arrow buffers. */
import {
  Binary,
  type Data,
  type DataType,
  type Dictionary,
  Field,
  type Float,
  Float32,
  List,
  makeData,
  Null,
  Precision,
  RecordBatch,
  Schema,
  Struct,
  Table,
  TimestampMillisecond,
  Type,
  Utf8,
} from "apache-arrow";
import { DataError } from "../errors.js";
import { TypeFinder, type Where } from "./dataset-types.js";

/** Rows of a record batch. */
const batchRows = 65_536;
/** Arrow's string offsets are 32-bit. */
const maxTextBytes = 2 ** 31 - 1;

/**
 * An Arrow table of records. Keys that a record lacks are null.
 *
 * @throws DataError naming the place of what does not fit.
 */
export function tableFromRecords(records: readonly unknown[], where: Where): Table {
  const finder = new TypeFinder(where);
  for (let row = 0; row < records.length; row++) finder.add(records[row], row);
  const schema = new Schema(finder.fields());
  const batches: RecordBatch[] = [];
  for (let start = 0; start < records.length; start += batchRows) {
    batches.push(recordBatch(schema, records.slice(start, start + batchRows) as Record<string, unknown>[]));
  }
  return new Table(schema, batches);
}

/** An Arrow table of columns whose types are known; types that are only read here are written as the nearest plain one. */
export function tableFromColumns(fields: readonly Field[], columns: readonly unknown[][], length: number): Table {
  const kept = fields.map(
    ({ name, type }, index) => new Field(name, writableType(type) ?? inferred(columns[index]!), true),
  );
  const schema = new Schema(kept);
  const batches: RecordBatch[] = [];
  for (let start = 0; start < length; start += batchRows) {
    const rows = Math.min(batchRows, length - start);
    const children = kept.map(({ type }, index) => columnData(type, columns[index]!.slice(start, start + rows)));
    const data = makeData({ type: new Struct(kept), length: rows, nullCount: 0, children });
    batches.push(new RecordBatch(schema, data as Data<Struct>));
  }
  return new Table(schema, batches);
}

function writableType(type: DataType): DataType | undefined {
  switch (type.typeId) {
    case Type.LargeUtf8:
    case Type.Decimal:
      return new Utf8();
    case Type.LargeBinary:
    case Type.FixedSizeBinary:
      return new Binary();
    case Type.Timestamp:
    case Type.Date:
      return new TimestampMillisecond();
    case Type.Dictionary:
      return writableType((type as Dictionary).valueType);
    case Type.Float:
      return (type as Float).precision === Precision.HALF ? new Float32() : type;
    case Type.LargeList:
    case Type.FixedSizeList:
    case Type.List: {
      const item = writableType((type as List).valueType);
      return item && new List(new Field("item", item, true));
    }
    case Type.Struct: {
      const fields = type.children!.map(({ name, type: part }: Field) => ({ name, type: writableType(part) }));
      if (fields.some((field) => !field.type)) return undefined;
      return new Struct(fields.map((field) => new Field(field.name, field.type!, true)));
    }
    case Type.Null:
    case Type.Bool:
    case Type.Int:
    case Type.Utf8:
    case Type.Binary:
      return type;
    default:
      return undefined;
  }
}

function inferred(values: readonly unknown[]): DataType {
  const finder = new TypeFinder((row) => `row ${row}`);
  values.forEach((value, row) => {
    finder.add({ value }, row);
  });
  return finder.fields()[0]?.type ?? new Null();
}

function recordBatch(schema: Schema, records: readonly (Record<string, unknown> | null)[]): RecordBatch {
  const type = new Struct(schema.fields);
  return new RecordBatch(schema, structData(type, records, false) as Data<Struct>);
}

function structData(type: Struct, records: readonly unknown[], nullable: boolean): Data {
  const children = type.children.map((field: Field) => {
    const column = records.map((record) => ownValue(record, field.name));
    return columnData(field.type, column);
  });
  const nulls = nullable ? nullsOf(records) : noNulls;
  return makeData({ type, length: records.length, ...nulls, children });
}

function ownValue(record: unknown, name: string): unknown {
  if (record === null || record === undefined || !Object.hasOwn(record, name)) return null;
  return (record as Record<string, unknown>)[name];
}

/** One column of values as an Arrow array; null and undefined are null. */
export function columnData(type: DataType, values: readonly unknown[]): Data {
  const length = values.length;
  const nulls = nullsOf(values);
  switch (type.typeId) {
    case Type.Null:
      return makeData({ type: type as never, length });
    case Type.Bool:
      return makeData({
        type: type as never,
        length,
        ...nulls,
        data: bitmapOf(values, (value) => value === true) as never,
      });
    case Type.Int:
    case Type.Float:
      return makeData({ type: type as never, length, ...nulls, data: numbers(type, values) as never });
    case Type.Timestamp: {
      const data = new BigInt64Array(length);
      values.forEach((value, i) => {
        if (value instanceof Date) data[i] = BigInt(value.getTime());
      });
      return makeData({ type: type as never, length, ...nulls, data: data as never });
    }
    case Type.Utf8:
      return makeData({ type: type as never, length, ...nulls, ...strings(values as (string | null)[]) } as never);
    case Type.Binary:
      return makeData({
        type: type as never,
        length,
        ...nulls,
        ...byteStrings(values as (Uint8Array | null)[]),
      } as never);
    case Type.List:
      return listData(type as List, values as (ArrayLike<unknown> | null)[], nulls);
    case Type.Struct:
      return structData(type as Struct, values, true);
    default:
      throw new DataError(`columns of type ${String(type)} cannot be written`);
  }
}

interface Nulls {
  nullCount: number;
  nullBitmap?: Uint8Array;
}
const noNulls: Nulls = { nullCount: 0 };
const present = (value: unknown): boolean => value !== null && value !== undefined;

function nullsOf(values: readonly unknown[]): Nulls {
  let nullCount = 0;
  for (const value of values) if (!present(value)) nullCount += 1;
  return nullCount === 0 ? noNulls : { nullCount, nullBitmap: bitmapOf(values, present) };
}

function bitmapOf(values: readonly unknown[], test: (value: unknown) => boolean): Uint8Array {
  const bits = new Uint8Array(((values.length + 63) >> 6) << 3);
  for (let i = 0; i < values.length; i++) if (test(values[i])) bits[i >> 3]! |= 1 << (i & 7);
  return bits;
}

function numbers(type: DataType, values: readonly unknown[]): Int32Array | Float64Array | BigInt64Array {
  const data = new (type.ArrayType as new (length: number) => Int32Array | Float64Array | BigInt64Array)(values.length);
  if (data instanceof BigInt64Array) {
    for (let i = 0; i < values.length; i++) if (present(values[i])) data[i] = BigInt(values[i] as number | bigint);
  } else {
    for (let i = 0; i < values.length; i++) data[i] = (values[i] ?? 0) as number;
  }
  return data;
}

function strings(values: readonly (string | null)[]): { valueOffsets: Int32Array; data: Uint8Array } {
  const valueOffsets = new Int32Array(values.length + 1);
  let bytes = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (value) bytes += Buffer.byteLength(value);
    if (bytes > maxTextBytes) throw tooLarge();
    valueOffsets[i + 1] = bytes;
  }
  const data = Buffer.alloc(bytes);
  for (let i = 0; i < values.length; i++) if (values[i]) data.write(values[i]!, valueOffsets[i]!);
  return { valueOffsets, data };
}

function byteStrings(values: readonly (Uint8Array | null)[]): { valueOffsets: Int32Array; data: Uint8Array } {
  const valueOffsets = offsetsOf(values);
  const data = new Uint8Array(valueOffsets[values.length]!);
  for (let i = 0; i < values.length; i++) if (values[i]) data.set(values[i]!, valueOffsets[i]!);
  return { valueOffsets, data };
}

function listData(type: List, values: readonly (ArrayLike<unknown> | null)[], nulls: Nulls): Data {
  const items: unknown[] = [];
  for (const value of values) if (value) for (let i = 0; i < value.length; i++) items.push(value[i]);
  const child = columnData(type.valueType, items);
  return makeData({ type, length: values.length, ...nulls, valueOffsets: offsetsOf(values), child });
}

function offsetsOf(values: readonly ({ length: number } | null | undefined)[]): Int32Array {
  const offsets = new Int32Array(values.length + 1);
  let end = 0;
  for (let i = 0; i < values.length; i++) {
    end += values[i]?.length ?? 0;
    if (end > maxTextBytes) throw tooLarge();
    offsets[i + 1] = end;
  }
  return offsets;
}

const tooLarge = (): DataError => new DataError("more than 2 GiB of text in 65,536 rows of one column: split the rows");
