/** Decodes Arrow IPC bytes and checks what they claim. */
import { type Data, RecordBatchReader, Table, Type } from "apache-arrow";

/** The table in an IPC file or stream. @throws Error where the bytes are damaged. */
export function decodeArrow(bytes: Uint8Array): Table {
  const reader = RecordBatchReader.from(bytes).open();
  // Kept now: a reader that has come to its end forgets it.
  const { schema } = reader;
  const batches = [];
  if (reader.isFile()) {
    // Asked for one by one: the library's own loop never ends where a footer points to another kind of message.
    for (let i = 0; i < reader.numRecordBatches; i++) {
      const batch = reader.readRecordBatch(i);
      if (!batch) throw new Error(`no record batch at place ${i}`);
      batches.push(batch);
    }
  } else {
    for (const batch of reader) batches.push(batch);
  }
  const table = schema ? new Table(schema, batches) : new Table();
  for (const batch of table.batches) for (const column of batch.data.children) checkData(column, batch.numRows);
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
