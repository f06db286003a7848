/** Reading one GGUF file, llama.cpp's format: an open descriptor and `pread` into memory of our own, as with safetensors. */
import type { FileHandle } from "node:fs/promises";
import { CheckpointError } from "../errors.js";
import { RESTORED_DTYPES, restoreBlocks } from "./gguf-blocks.js";
import { type GgufEntry, type GgufHeader, type GgufValue, MoreBytesNeeded, parseGgufHeader } from "./gguf-header.js";
import { describe } from "./json.js";
import { HeaderError } from "./safetensors-header.js";
import { openFile, readExactly, TensorFile } from "./tensor-file.js";

export type { GgufEntry, GgufValue } from "./gguf-header.js";

// The largest vocabularies make headers of some 15 MB; more is read only where that is not enough.
const FIRST_BYTES = 16 * 1024 * 1024;
const MAX_HEADER_BYTES = 256 * 1024 * 1024;

/** One open GGUF file. Close it, or let `await using` do so. */
export class GgufFile extends TensorFile<GgufEntry> {
  /** All metadata by key, e.g. "general.architecture". */
  readonly metadata: ReadonlyMap<string, GgufValue>;

  private constructor(path: string, file: FileHandle, header: GgufHeader) {
    super(path, file, header.entries);
    this.metadata = header.metadata;
  }

  /**
   * Opens a file and checks its whole header.
   *
   * @throws CheckpointError when it is missing, cut short, no GGUF file, or its header does not fit its size.
   */
  static open(path: string): Promise<GgufFile> {
    return openFile(path, async (file) => new GgufFile(path, file, await readHeader(path, file)));
  }

  /** The descriptor, open until `close`. */
  get fd(): number {
    return this.file.fd;
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
