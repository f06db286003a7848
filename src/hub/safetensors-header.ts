/**
 * The header of a safetensors file, checked whole before anything is allocated for its tensors.
 * Format: 8 bytes little-endian length, that many bytes of JSON, then the tensors' bytes without gaps.
 */
import { describe, isObject, type Json, type JsonObject, parseStrict } from "./json.js";

/** Largest header that is read, in bytes. */
export const MAX_HEADER_BYTES: number = 25 * 1024 * 1024;
/** Most tensors of one file. */
export const MAX_TENSORS = 250_000;
const MAX_RANK = 16;

/** Bytes of one element by the name of its type in the file, smallest alignment first as the Python package orders them. */
export const DTYPE_BYTES: ReadonlyMap<string, number> = new Map([
  ["BOOL", 1],
  ["U8", 1],
  ["I8", 1],
  ["F8_E5M2", 1],
  ["F8_E4M3", 1],
  ["F8_E8M0", 1],
  ["I16", 2],
  ["U16", 2],
  ["F16", 2],
  ["BF16", 2],
  ["I32", 4],
  ["U32", 4],
  ["F32", 4],
  ["C64", 8],
  ["F64", 8],
  ["I64", 8],
  ["U64", 8],
]);

/** One tensor of a file. */
export interface TensorEntry {
  readonly name: string;
  /** The file's name of the element type: "F32", "BF16" … */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Number of bytes. */
  readonly bytes: number;
  /** Where they begin, from the start of the file. */
  readonly offset: number;
}

/** A checked header. */
export interface Header {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** A reason why a header cannot be used; the reader adds the path and the remedy. */
export class HeaderError extends Error {}

/** Elements of a shape. @throws HeaderError for what is no shape, or beyond 2^53 */
export function elementCount(shape: readonly unknown[], what: string): number {
  if (shape.length > MAX_RANK)
    throw new HeaderError(`${what} has ${shape.length} dimensions, at most ${MAX_RANK} are read`);
  let count = 1;
  for (const size of shape) {
    if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0)
      throw new HeaderError(`${what} has the size ${describe(size)} in its shape, expected whole numbers from 0`);
    count *= size;
    if (!Number.isSafeInteger(count)) throw new HeaderError(`the shape of ${what} has more than 2^53 elements`);
  }
  return count;
}

/**
 * Checks the JSON of a header against the file: types, shapes, and offsets that follow each other from 0 to the end of the file.
 *
 * @param text The JSON of the header.
 * @param dataBegin Where the tensors' bytes begin in the file: 8 + the header's length.
 * @param fileBytes The size of the file.
 * @throws HeaderError
 */
export function parseHeader(text: string, dataBegin: number, fileBytes: number): Header {
  let root: Json;
  try {
    root = parseStrict(text, { maxDepth: 4, maxValues: MAX_TENSORS * 12 });
  } catch (error) {
    throw new HeaderError(`its header is not JSON that can be used: ${(error as Error).message}`);
  }
  if (!isObject(root)) throw new HeaderError(`its header should be an object, got ${describe(root)}`);
  const names = Object.keys(root).filter((name) => name !== "__metadata__");
  if (names.length > MAX_TENSORS)
    throw new HeaderError(`it names ${names.length} tensors, at most ${MAX_TENSORS} are read`);
  const entries = names.map((name) => entryOf(name, root[name]!, dataBegin));
  checkContiguous(entries, dataBegin, fileBytes);
  return { entries: new Map(entries.map((entry) => [entry.name, entry])), metadata: metadataOf(root) };
}

function metadataOf(root: JsonObject): Map<string, string> {
  const metadata = new Map<string, string>();
  const value = root.__metadata__;
  if (value === undefined || value === null) return metadata;
  if (!isObject(value)) throw new HeaderError(`__metadata__ should be an object of strings, got ${describe(value)}`);
  for (const [name, text] of Object.entries(value)) {
    if (typeof text !== "string")
      throw new HeaderError(`__metadata__ has ${describe(text)} under ${describe(name)}, expected a string`);
    metadata.set(name, text);
  }
  return metadata;
}

function entryOf(name: string, value: Json, dataBegin: number): TensorEntry {
  const what = `tensor ${describe(name)}`;
  if (!isObject(value)) throw new HeaderError(`${what} should be an object, got ${describe(value)}`);
  const { dtype, shape, data_offsets: offsets } = value;
  const elementBytes = typeof dtype === "string" ? DTYPE_BYTES.get(dtype) : undefined;
  if (elementBytes === undefined)
    throw new HeaderError(`${what} has the dtype ${describe(dtype)}, known are ${[...DTYPE_BYTES.keys()].join(", ")}`);
  if (!Array.isArray(shape)) throw new HeaderError(`${what} should have a list as its shape, got ${describe(shape)}`);
  const count = elementCount(shape, what);
  const bytes = count * elementBytes;
  if (!Number.isSafeInteger(bytes)) throw new HeaderError(`${what} has more than 2^53 bytes`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isOffset))
    throw new HeaderError(
      `${what} should have two whole numbers from 0 as data_offsets, got ${JSON.stringify(offsets)}`,
    );
  const [begin, end] = offsets as [number, number];
  if (end < begin || end - begin !== bytes)
    throw new HeaderError(
      `${what} is ${dtype} [${(shape as number[]).join(", ")}], which is ${bytes} bytes, but its data_offsets [${begin}, ${end}] hold ${end - begin}`,
    );
  return { name, dtype: dtype as string, shape: shape as number[], bytes, offset: dataBegin + begin };
}

function isOffset(value: Json): boolean {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function checkContiguous(entries: readonly TensorEntry[], dataBegin: number, fileBytes: number): void {
  const ordered = [...entries].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let at = dataBegin;
  for (const entry of ordered) {
    if (entry.offset !== at) {
      const fault = entry.offset < at ? "overlaps the tensor before it" : "leaves a gap before it";
      throw new HeaderError(`tensor ${describe(entry.name)} ${fault}: it begins at ${entry.offset}, expected ${at}`);
    }
    at += entry.bytes;
  }
  if (at === fileBytes) return;
  const fault = at > fileBytes ? "is cut short" : "has bytes after its last tensor";
  throw new HeaderError(`it ${fault}: the header describes ${at} bytes, the file has ${fileBytes}`);
}
