/**
 * The header of a GGUF file (versions 2 and 3, little-endian), checked whole before anything is allocated for its tensors:
 * magic, version, counts, metadata, then name, shape, type and offset of each tensor; the tensors' bytes follow, aligned.
 */
import { isUtf8 } from "node:buffer";
import { GGUF_DTYPES, type GgufDtype, VALUE, VALUE_BYTES } from "./gguf-types.js";
import { describe } from "./json.js";
import { elementCount, HeaderError, MAX_TENSORS } from "./safetensors-header.js";

/** A metadata value. 64-bit integers beyond ±2^53 stay bigint: no field that is used may be one. */
export type GgufValue = number | bigint | boolean | string | number[] | bigint[] | boolean[] | string[];

/** One tensor of a file. */
export interface GgufEntry {
  readonly name: string;
  /** The type's name: "F32", "Q4_1" … */
  readonly dtype: string;
  /** Row-major, outermost dimension first: the reverse of the file's order. */
  readonly shape: readonly number[];
  /** Number of bytes, packed as they are in the file. */
  readonly bytes: number;
  /** Where they begin, from the start of the file. */
  readonly offset: number;
}

/** A checked header. */
export interface GgufHeader {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly entries: ReadonlyMap<string, GgufEntry>;
}

/** The bytes that were read of a file do not hold its whole header: read more. */
export class MoreBytesNeeded extends Error {}

const MAGIC = 0x46554747; // "GGUF"
const MAX_NAME = 65_535;
const MAX_DIMENSIONS = 4;
// Sixty times the largest vocabularies: an array of single bytes becomes eight times as large here.
const MAX_ELEMENTS = 2 ** 24;
const MAX_ALIGNMENT = 4096;
const DEFAULT_ALIGNMENT = 32;
// key length and one character, kind, a value of one byte
const MIN_PAIR_BYTES = 8 + 1 + 4 + 1;
// name length, number of dimensions, type, offset
const MIN_TENSOR_BYTES = 8 + 4 + 4 + 8;

/**
 * Checks a header against the file.
 *
 * @param bytes The beginning of the file, or all of it.
 * @param fileBytes The size of the file: what no count or length may go beyond.
 * @throws HeaderError
 * @throws MoreBytesNeeded when the header goes on after `bytes`, and the file too
 */
export function parseGgufHeader(bytes: Uint8Array, fileBytes: number): GgufHeader {
  const cursor = new Cursor(bytes, fileBytes);
  if (cursor.uint32("magic") !== MAGIC) throw new HeaderError('it does not begin with "GGUF"');
  const version = cursor.uint32("version");
  if (version !== 2 && version !== 3) {
    const what =
      version === 0x03000000 || version === 0x02000000 ? "it is big-endian" : `it has the version ${version}`;
    throw new HeaderError(`${what}; versions 2 and 3, little-endian, are read`);
  }
  const tensors = cursor.count("number of tensors", MIN_TENSOR_BYTES);
  if (tensors > MAX_TENSORS) throw new HeaderError(`it names ${tensors} tensors, at most ${MAX_TENSORS} are read`);
  const pairs = cursor.count("number of metadata values", MIN_PAIR_BYTES);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < pairs; i++) {
    const key = cursor.name(`metadata key ${i}`);
    if (metadata.has(key)) throw new HeaderError(`the metadata key ${describe(key)} appears twice`);
    metadata.set(key, cursor.value(`metadata value ${describe(key)}`));
  }
  const alignment = alignmentOf(metadata);
  const found = Array.from({ length: tensors }, (_, i) => cursor.tensor(i));
  const dataBegin = Math.ceil(cursor.at / alignment) * alignment;
  return { metadata, entries: place(found, dataBegin, alignment, fileBytes) };
}

function alignmentOf(metadata: ReadonlyMap<string, GgufValue>): number {
  const value = metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT;
  // Powers of two alone have no bit in common with the number before them.
  const fits = typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= MAX_ALIGNMENT;
  if (!fits || (value & (value - 1)) !== 0)
    throw new HeaderError(`general.alignment is ${describe(value)}, expected a power of two up to ${MAX_ALIGNMENT}`);
  return value;
}

interface FoundTensor {
  name: string;
  type: GgufDtype;
  shape: number[];
  bytes: number;
  offset: number;
}

/** Each tensor begins where the one before it ends, at the next multiple of the alignment. */
function place(
  found: readonly FoundTensor[],
  dataBegin: number,
  alignment: number,
  fileBytes: number,
): Map<string, GgufEntry> {
  let at = 0;
  const ordered = [...found].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  for (const tensor of ordered) {
    if (tensor.offset !== at) {
      const fault = tensor.offset < at ? "overlaps the tensor before it" : "leaves a gap before it";
      throw new HeaderError(`tensor ${describe(tensor.name)} ${fault}: its offset is ${tensor.offset}, expected ${at}`);
    }
    if (dataBegin + at + tensor.bytes > fileBytes)
      throw new HeaderError(
        `it is cut short: tensor ${describe(tensor.name)} ends at byte ${dataBegin + at + tensor.bytes}, the file has ${fileBytes}`,
      );
    at = Math.ceil((at + tensor.bytes) / alignment) * alignment;
  }
  const entries = new Map<string, GgufEntry>();
  for (const { name, type, shape, bytes, offset } of found) {
    if (entries.has(name)) throw new HeaderError(`the tensor ${describe(name)} appears twice`);
    entries.set(name, { name, dtype: type.name, shape, bytes, offset: dataBegin + offset });
  }
  return entries;
}

/** Reads value after value; every length is compared with what is left of the file before it is used. */
class Cursor {
  at = 0;
  #elements = 0;
  readonly #bytes: Buffer;
  readonly #view: DataView;
  readonly #fileBytes: number;

  constructor(bytes: Uint8Array, fileBytes: number) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#fileBytes = fileBytes;
  }

  /** Moves on by `length` bytes and gives where they begin. */
  #take(length: number, what: string): number {
    const begin = this.at;
    if (length > this.#fileBytes - begin)
      throw new HeaderError(
        `it is cut short: ${what} needs ${length} bytes from byte ${begin}, the file has ${this.#fileBytes}`,
      );
    if (length > this.#bytes.length - begin) throw new MoreBytesNeeded();
    this.at = begin + length;
    return begin;
  }

  uint32(what: string): number {
    return this.#view.getUint32(this.#take(4, what), true);
  }

  /** A 64-bit size. @throws HeaderError beyond 2^53 */
  size(what: string): number {
    const value = this.#view.getBigUint64(this.#take(8, what), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new HeaderError(`${what} is ${value}, which is beyond 2^53`);
    return Number(value);
  }

  /** How many entries follow, each of at least `smallest` bytes. */
  count(what: string, smallest: number): number {
    const count = this.size(what);
    const room = Math.floor((this.#fileBytes - this.at) / smallest);
    if (count > room)
      throw new HeaderError(`${what} is ${count}, but what is left of the file has room for at most ${room}`);
    return count;
  }

  /** A key or a tensor's name. */
  name(what: string): string {
    const length = this.count(`the length of ${what}`, 1);
    if (length === 0 || length > MAX_NAME)
      throw new HeaderError(`${what} has ${length} bytes, expected 1 to ${MAX_NAME}`);
    const begin = this.#take(length, what);
    const bytes = this.#bytes.subarray(begin, begin + length);
    if (!isUtf8(bytes)) throw new HeaderError(`${what} is not UTF-8`);
    return bytes.toString();
  }

  #string(what: string): string {
    // Vocabularies have some hundred thousand: no big integers and no texts for errors where the string is there.
    const begins = this.at + 8;
    if (begins <= this.#bytes.length) {
      const length = this.#view.getUint32(this.at, true) + this.#view.getUint32(this.at + 4, true) * 2 ** 32;
      if (length <= this.#bytes.length - begins) {
        this.at = begins + length;
        return this.#bytes.toString("utf8", begins, this.at);
      }
    }
    const length = this.count(`the length of ${what}`, 1);
    const begin = this.#take(length, what);
    return this.#bytes.toString("utf8", begin, begin + length);
  }

  value(what: string): GgufValue {
    const kind = this.uint32(`the kind of ${what}`);
    if (kind !== VALUE.array) return this.#scalar(kind, what) as GgufValue;
    const inner = this.uint32(`the kind of the elements of ${what}`);
    const smallest = VALUE_BYTES.get(inner);
    if (smallest === undefined || inner === VALUE.array)
      throw new HeaderError(`${what} is an array of elements of the kind ${inner}, which is not read`);
    const count = this.count(`the length of ${what}`, smallest);
    this.#elements += count;
    if (this.#elements > MAX_ELEMENTS)
      throw new HeaderError(`its arrays have more than ${MAX_ELEMENTS} elements, up to ${what}`);
    const values: unknown[] = [];
    for (let i = 0; i < count; i++) values.push(this.#scalar(inner, what));
    return values as GgufValue;
  }

  #scalar(kind: number, what: string): number | bigint | boolean | string {
    const view = this.#view;
    const bytes = VALUE_BYTES.get(kind);
    if (bytes === undefined || kind === VALUE.array) throw new HeaderError(`${what} has the unknown kind ${kind}`);
    if (kind === VALUE.string) return this.#string(what);
    const at = this.#take(bytes, what);
    switch (kind) {
      case VALUE.uint8:
        return view.getUint8(at);
      case VALUE.int8:
        return view.getInt8(at);
      case VALUE.uint16:
        return view.getUint16(at, true);
      case VALUE.int16:
        return view.getInt16(at, true);
      case VALUE.uint32:
        return view.getUint32(at, true);
      case VALUE.int32:
        return view.getInt32(at, true);
      case VALUE.float32:
        return view.getFloat32(at, true);
      case VALUE.float64:
        return view.getFloat64(at, true);
      case VALUE.uint64:
        return narrow(view.getBigUint64(at, true));
      case VALUE.int64:
        return narrow(view.getBigInt64(at, true));
      default: {
        const byte = view.getUint8(at);
        if (byte > 1) throw new HeaderError(`${what} should be true or false, got the byte ${byte}`);
        return byte === 1;
      }
    }
  }

  tensor(index: number): FoundTensor {
    const name = this.name(`the name of tensor ${index}`);
    const what = `tensor ${describe(name)}`;
    const rank = this.uint32(`the rank of ${what}`);
    if (rank > MAX_DIMENSIONS)
      throw new HeaderError(`${what} has ${rank} dimensions, expected at most ${MAX_DIMENSIONS}`);
    const sizes = Array.from({ length: rank }, () => this.size(`a dimension of ${what}`));
    const id = this.uint32(`the type of ${what}`);
    const type = GGUF_DTYPES.get(id);
    if (type === undefined) throw new HeaderError(`${what} has the unknown type ${id}`);
    const count = elementCount(sizes, what);
    const row = sizes[0] ?? 1;
    if (row % type.blockElements !== 0)
      throw new HeaderError(
        `${what} is ${type.name} with rows of ${row}, expected a multiple of ${type.blockElements}`,
      );
    const bytes = (count / type.blockElements) * type.blockBytes;
    if (!Number.isSafeInteger(bytes)) throw new HeaderError(`${what} has more than 2^53 bytes`);
    return { name, type, shape: sizes.reverse(), bytes, offset: this.size(`the offset of ${what}`) };
  }
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
