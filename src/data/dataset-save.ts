/** Data sets → files. */
import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, extname } from "node:path";
import { tableToIPC } from "apache-arrow";
import { DataError } from "../errors.js";
import type { AnyRow, Dataset } from "./dataset.js";

/** Rows written at a time. */
const step = 1000;

type Writer = (data: Dataset) => Iterable<string | Uint8Array>;

const writers: Readonly<Record<string, Writer>> = {
  ".jsonl": jsonLines,
  ".json": jsonArray,
  ".csv": (data) => delimited(data, ","),
  ".tsv": (data) => delimited(data, "\t"),
  ".arrow": (data) => [tableToIPC(data.toArrow(), "file")],
};

/**
 * Writes a data set in the format of the file's ending. The text goes to a new file beside it, which takes the name when
 * all of it is on the disk, so that a reader never sees half a file.
 */
export async function saveDataset(data: Dataset, file: string): Promise<void> {
  const ending = extname(file).toLowerCase();
  const writer = Object.hasOwn(writers, ending) ? writers[ending] : undefined;
  if (!writer) {
    throw new DataError(`save: expected a file name ending in ${Object.keys(writers).join(", ")}, got ${file}`);
  }
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.${randomBytes(6).toString("hex")}.part`;
  let handle: FileHandle | undefined;
  try {
    handle = await open(temporary, "wx");
    for (const part of writer(data)) await handle.writeFile(part);
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, file);
  } catch (error) {
    await handle?.close();
    await rm(temporary, { force: true });
    throw error;
  }
}

function* chunks(data: Dataset): Generator<AnyRow[]> {
  for (let start = 0; start < data.length; start += step) yield data.slice(start, start + step).toRows();
}

function* jsonLines(data: Dataset): Generator<string> {
  for (const rows of chunks(data)) yield rows.map((row) => `${json(row)}\n`).join("");
}

function* jsonArray(data: Dataset): Generator<string> {
  yield "[";
  let separator = "\n";
  for (const rows of chunks(data)) {
    yield separator + rows.map(json).join(",\n");
    separator = ",\n";
  }
  yield "\n]\n";
}

function* delimited(data: Dataset, delimiter: string): Generator<string> {
  const { columns } = data;
  const line = (values: unknown[]): string => `${values.map((value) => field(value, delimiter)).join(delimiter)}\n`;
  yield line(columns);
  for (const rows of chunks(data)) yield rows.map((row) => line(columns.map((name) => row[name]))).join("");
}

/** One field: nothing for null, and quotes around an empty string, so that the two stay apart. */
function field(value: unknown, delimiter: string): string {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" ? value : value instanceof Date ? value.toISOString() : json(value);
  const plain = text !== "" && !text.includes(delimiter) && !/["\r\n]|^\s|\s$|^\ufeff/.test(text);
  return plain ? text : `"${text.replaceAll('"', '""')}"`;
}

function json(value: unknown): string {
  return JSON.stringify(value, (name, part) => {
    if (typeof part === "bigint") {
      throw new DataError(
        `save: ${part} in ${name || "a row"} is above 2^53, which JSON readers do not keep; save as .arrow`,
      );
    }
    if (typeof part === "number" && !Number.isFinite(part)) {
      throw new DataError(`save: ${part} in ${name || "a row"} has no form in JSON; make it null or save as .arrow`);
    }
    return part instanceof Uint8Array ? Buffer.from(part).toString("base64") : part;
  });
}
