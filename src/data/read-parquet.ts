/** Parquet files → records. */
import { type FileHandle, open } from "node:fs/promises";
import * as zlib from "node:zlib";
import type { Compressors, FileMetaData } from "hyparquet";
import { throwIfInterrupted } from "../display/host.js";
import { DataError, InterruptedError } from "../errors.js";
import { checkMetadata, PageCheck, type ReadAt } from "./parquet-check.js";
import type { Records } from "./read-json.js";
import { defaultMaxBytes, type ReadBudget } from "./read-text.js";

const maxMetadataBytes = 64 * 1024 * 1024;
const decoder = new TextDecoder("utf-8", { fatal: true });

// Loaded when a Parquet file is read.
const library = async () => {
  const [hyparquet, { decompressZstd, decompressLz4Raw }] = await Promise.all([
    import("hyparquet"),
    import("hyparquet-compressors"),
  ]);
  return { ...hyparquet, decompressZstd, decompressLz4Raw };
};
type Library = Awaited<ReturnType<typeof library>>;

/**
 * Reads a file group by group, each checked before it is decoded. Whole numbers of 64 bits are bigint, times are Date.
 *
 * @throws DataError for other files, damaged ones, and ones that unpack to more than the budget allows
 */
export async function readParquet(file: string, budget: ReadBudget = {}): Promise<Records> {
  const rows: unknown[] = [];
  for await (const group of parquetGroups(file, budget)) for (const row of group) rows.push(row);
  return { rows, where: (row) => `${file}, row ${row}` };
}

/** The rows of a file, one row group after the other. @throws DataError as {@link readParquet} */
export async function* parquetGroups(
  file: string,
  budget: ReadBudget = {},
): AsyncGenerator<Record<string, unknown>[], void, undefined> {
  const found = await library();
  const handle = await open(file, "r");
  try {
    const source = await readAt(handle);
    const limits = { maxBytes: budget.maxBytes ?? defaultMaxBytes };
    const metadata = await metadataOf(found, source);
    const kinds = checkMetadata(metadata, source.size);
    const unpackers = compressors(found);
    const unpack = (codec: string) => unpackers[codec as keyof Compressors] ?? notRead(codec);
    const check = new PageCheck(source, kinds, unpack, limits);
    let rowStart = 0;
    let bytes = 0;
    for (const group of metadata.row_groups) {
      throwIfInterrupted(`reading ${file}`, budget.signal);
      await check.group(group);
      const rowEnd = rowStart + Number(group.num_rows);
      const rows = await found.parquetReadObjects({
        file: { byteLength: source.size, slice: (start, end = source.size) => source.read(start, end) },
        metadata,
        rowStart,
        rowEnd,
        compressors: unpackers,
        utf8: false,
        geoparquet: false,
        parsers,
      });
      if (rows.length !== rowEnd - rowStart) throw new Error(`${rows.length} rows in a group of ${rowEnd - rowStart}`);
      // A dictionary holds a text once, the rows may repeat it.
      bytes += rows.reduce((sum, row) => sum + textBytes(row), 0);
      if (bytes > limits.maxBytes) throw new Error(`more than ${limits.maxBytes} bytes; pass maxBytes to allow more`);
      rowStart = rowEnd;
      yield rows;
    }
  } catch (error) {
    if (error instanceof DataError || error instanceof InterruptedError) throw error;
    throw new DataError(`${file}: not a Parquet file, or damaged (${(error as Error).message.slice(0, 200)})`, {
      cause: error,
    });
  } finally {
    await handle.close();
  }
}

async function readAt(handle: FileHandle): Promise<ReadAt> {
  const { size } = await handle.stat();
  return {
    size,
    read: async (start, end) => {
      if (!(start >= 0 && end >= start && end <= size)) throw new Error(`bytes ${start} to ${end} of ${size}`);
      const bytes = new Uint8Array(end - start);
      for (let done = 0; done < bytes.length; ) {
        const { bytesRead } = await handle.read(bytes, done, bytes.length - done, start + done);
        if (bytesRead === 0) throw new Error(`it ended at byte ${start + done}`);
        done += bytesRead;
      }
      return bytes.buffer;
    },
  };
}

async function metadataOf({ parquetMetadata }: Library, source: ReadAt): Promise<FileMetaData> {
  if (source.size < 12) throw new Error(`it has ${source.size} bytes`);
  const view = new DataView(await source.read(source.size - 8, source.size));
  if (view.getUint32(4, true) !== 0x31524150) throw new Error('it does not end with "PAR1"');
  const length = view.getUint32(0, true);
  if (length > Math.min(maxMetadataBytes, source.size - 12)) throw new Error(`its metadata would have ${length} bytes`);
  return parquetMetadata(await source.read(source.size - 8 - length, source.size), { geoparquet: false });
}

function notRead(codec: string): never {
  throw new Error(`its packing ${codec} is not read`);
}

// Each writes no more than the length that was checked.
function compressors({ snappyUncompress, decompressZstd, decompressLz4Raw }: Library): Compressors {
  const { zstdDecompressSync } = zlib as { zstdDecompressSync?: typeof zlib.gunzipSync };
  return {
    UNCOMPRESSED: (input) => input,
    SNAPPY: (input, length) => {
      const output = new Uint8Array(length);
      snappyUncompress(input, output);
      return output;
    },
    GZIP: (input, length) => zlib.gunzipSync(input, { maxOutputLength: Math.max(1, length) }),
    BROTLI: (input, length) => zlib.brotliDecompressSync(input, { maxOutputLength: Math.max(1, length) }),
    ZSTD: (input, length) =>
      zstdDecompressSync
        ? zstdDecompressSync(input, { maxOutputLength: Math.max(1, length) })
        : decompressZstd(input, new Uint8Array(length)),
    LZ4_RAW: decompressLz4Raw,
  };
}

const parsers = {
  stringFromBytes: (bytes: Uint8Array | undefined) => bytes && decoder.decode(bytes),
  // Text that holds JSON stays text, as in other files.
  jsonFromBytes: (bytes: Uint8Array | undefined) => bytes && decoder.decode(bytes),
};

function textBytes(value: unknown): number {
  if (typeof value === "string") return value.length;
  if (value instanceof Uint8Array) return value.length;
  if (typeof value !== "object" || value === null) return 0;
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) throw new Error("a time that is out of range");
    return 0;
  }
  let sum = 0;
  for (const part of Array.isArray(value) ? value : Object.values(value)) sum += textBytes(part);
  return sum;
}
