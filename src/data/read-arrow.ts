/** Arrow files: IPC files (Feather V2) and streams. */
import { readFile, stat } from "node:fs/promises";
import { type Data, type Table, Type, tableFromIPC } from "apache-arrow";
import { DataError } from "../errors.js";
import { defaultMaxBytes, type ReadBudget } from "./read-text.js";

/** Reads an Arrow file. @throws DataError for other files, damaged ones and compressed ones. */
export async function readArrow(file: string, budget: ReadBudget = {}): Promise<Table> {
  const { size } = await stat(file);
  // Node reads at most 2 GiB into one buffer.
  const limit = Math.min(budget.maxBytes ?? defaultMaxBytes, 2 ** 31 - 1);
  if (size > limit) throw new DataError(`${file}: ${size} bytes are more than the ${limit} allowed; split the file`);
  const bytes = await readFile(file, budget.signal ? { signal: budget.signal } : {});
  let table: Table;
  try {
    table = tableFromIPC(bytes);
    for (const batch of table.batches) for (const column of batch.data.children) checkData(column, column.length);
  } catch (error) {
    const message = (error as Error).message;
    const why = /codec|compress/i.test(message)
      ? "its buffers are compressed, which is not supported; write it uncompressed (pyarrow: compression='uncompressed')"
      : `not an Arrow file, or damaged (${message.slice(0, 200)})`;
    throw new DataError(`${file}: ${why}`, { cause: error });
  }
  if (table.schema.fields.length === 0) throw new DataError(`${file}: no Arrow data, or no columns`);
  return table;
}

/** Lengths and offsets of a file are claims: each must lie inside the buffers that came. */
function checkData(data: Data, length: number): void {
  if (data.length < length || length < 0) throw new RangeError(`an array of ${data.length} where ${length} are needed`);
  const { valueOffsets, values, nullBitmap, type } = data;
  if (data.nullCount > 0 && nullBitmap.byteLength * 8 < data.offset + data.length)
    throw new RangeError("a short null bitmap");
  switch (type.typeId) {
    case Type.Null:
      return;
    case Type.Utf8:
    case Type.Binary:
    case Type.LargeUtf8:
    case Type.LargeBinary:
      checkOffsets(valueOffsets, data.length, values?.length ?? 0);
      return;
    case Type.List:
    case Type.LargeList:
    case Type.Map: {
      const child = data.children[0]!;
      checkOffsets(valueOffsets, data.length, child.length);
      checkData(child, child.length);
      return;
    }
    case Type.Struct:
      for (const child of data.children) checkData(child, data.length);
      return;
    case Type.FixedSizeList:
      checkData(data.children[0]!, data.length * data.stride);
      return;
    case Type.Bool:
      if (values.byteLength * 8 < data.offset + data.length) throw new RangeError("a short buffer of booleans");
      return;
    case Type.Dictionary:
      for (const chunk of data.dictionary?.data ?? []) checkData(chunk, chunk.length);
      return;
    case Type.Union:
    case Type.Utf8View:
    case Type.BinaryView:
      throw new TypeError(`columns of type ${String(type)} are not supported`);
    default:
      if ((values?.length ?? 0) < data.length * (data.stride || 1)) throw new RangeError("a short buffer of numbers");
  }
}

function checkOffsets(offsets: ArrayLike<number | bigint>, length: number, limit: number): void {
  // An empty array may come without offsets.
  if (length === 0) return;
  if (offsets.length < length + 1) throw new RangeError("a short buffer of offsets");
  let last = Number(offsets[0]);
  if (last < 0) throw new RangeError("an offset below zero");
  for (let i = 1; i <= length; i++) {
    const next = Number(offsets[i]);
    if (next < last) throw new RangeError("offsets that go down");
    last = next;
  }
  if (last > limit) throw new RangeError(`an offset of ${last} into ${limit}`);
}
