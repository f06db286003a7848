/** Reading one GGUF file, llama.cpp's format: an open descriptor and `pread` into memory of our own, as with safetensors. */
import { type FileHandle, open } from "node:fs/promises";
import { CheckpointError } from "../errors.js";
import { RESTORED_DTYPES, restoreBlocks } from "./gguf-blocks.js";
import { type GgufEntry, type GgufHeader, type GgufValue, MoreBytesNeeded, parseGgufHeader } from "./gguf-header.js";
import { describe } from "./json.js";
import { missingTensor, readExactly } from "./safetensors.js";
import { HeaderError } from "./safetensors-header.js";

export type { GgufEntry, GgufValue } from "./gguf-header.js";

// The largest vocabularies make headers of some 15 MB; more is read only where that is not enough.
const FIRST_BYTES = 16 * 1024 * 1024;
const MAX_HEADER_BYTES = 256 * 1024 * 1024;

/** One open GGUF file. Close it, or let `await using` do so. */
export class GgufFile {
  /** The path it was opened by. */
  readonly path: string;
  /** All metadata by key, e.g. "general.architecture". */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly #file: FileHandle;
  readonly #entries: ReadonlyMap<string, GgufEntry>;

  private constructor(path: string, file: FileHandle, header: GgufHeader) {
    this.path = path;
    this.#file = file;
    this.metadata = header.metadata;
    this.#entries = header.entries;
  }

  /**
   * Opens a file and checks its whole header.
   *
   * @throws CheckpointError when it is missing, cut short, no GGUF file, or its header does not fit its size.
   */
  static async open(path: string): Promise<GgufFile> {
    let file: FileHandle;
    try {
      file = await open(path, "r");
    } catch (cause) {
      throw new CheckpointError(`${path} cannot be opened: ${(cause as Error).message}.`, { cause });
    }
    try {
      return new GgufFile(path, file, await readHeader(path, file));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The tensors' names, in the order of the file. */
  names(): string[] {
    return [...this.#entries.keys()];
  }

  /** True when the file has a tensor of that name. */
  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** Shape, type and size of a tensor. @throws CheckpointError when there is none of that name. */
  entry(name: string): GgufEntry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw missingTensor(name, this.path, this.#entries.keys());
    return entry;
  }

  /** The descriptor, open until `close`. */
  get fd(): number {
    return this.#file.fd;
  }

  /** All bytes of a tensor, packed as they are in the file. @throws CheckpointError */
  async read(name: string): Promise<Uint8Array> {
    const entry = this.entry(name);
    const bytes = new Uint8Array(entry.bytes);
    await readExactly(this.#file, bytes, entry.offset, this.path);
    return bytes;
  }

  /** A tensor as 32-bit numbers, row-major. @throws CheckpointError for types that are not restored. */
  async readFloat32(name: string): Promise<Float32Array> {
    const { dtype, shape } = this.entry(name);
    if (!RESTORED_DTYPES.includes(dtype))
      throw new CheckpointError(
        `Tensor ${describe(name)} of ${this.path} is ${dtype}: expected ${RESTORED_DTYPES.join(", ")}. Take a file of the model in one of these types, such as Q8_0 or F16.`,
      );
    const count = shape.reduce((n, size) => n * size, 1);
    return restoreBlocks(dtype, await this.read(name), count)!;
  }

  /** Closes the descriptor; a second call does nothing. */
  async close(): Promise<void> {
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

async function readHeader(path: string, file: FileHandle): Promise<GgufHeader> {
  const stat = await file.stat();
  const fail = (reason: string, remedy: string) =>
    new CheckpointError(`${path} cannot be used as GGUF: ${reason}. ${remedy}`);
  if (!stat.isFile()) throw fail("it is not a regular file", "Give the path of a .gguf file.");
  for (let wanted = Math.min(FIRST_BYTES, stat.size); ; wanted = Math.min(wanted * 4, stat.size)) {
    if (wanted > MAX_HEADER_BYTES)
      throw fail(`its header has more than ${MAX_HEADER_BYTES} bytes`, "Check where it came from.");
    const bytes = new Uint8Array(wanted);
    await readExactly(file, bytes, 0, path);
    try {
      return parseGgufHeader(bytes, stat.size);
    } catch (error) {
      if (error instanceof HeaderError) throw fail(error.message, "Fetch the file again.");
      if (!(error instanceof MoreBytesNeeded)) throw error;
    }
  }
}
