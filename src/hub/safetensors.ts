/**
 * Reading one safetensors file: an open descriptor and `pread` into memory of our own. Never mapped: a file that shrinks
 * under a mapping kills the process, here it is an error.
 */
import type { FileHandle } from "node:fs/promises";
import { CheckpointError } from "../errors.js";
import { bfloat16ToFloat32, float16ToFloat32 } from "./float16.js";
import { describe } from "./json.js";
import { type Header, HeaderError, MAX_HEADER_BYTES, parseHeader, type TensorEntry } from "./safetensors-header.js";
import { openFile, readExactly, TensorFile } from "./tensor-file.js";
import type { WeightPlace } from "./weight-source.js";

export type { TensorEntry } from "./safetensors-header.js";

/** One open safetensors file. Close it, or let `await using` do so. */
export class SafetensorsFile extends TensorFile<TensorEntry> {
  /** The strings of `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;

  private constructor(path: string, file: FileHandle, header: Header) {
    super(path, file, header.entries);
    this.metadata = header.metadata;
  }

  /**
   * Opens a file and checks its whole header.
   *
   * @throws CheckpointError when it is missing, cut short, no safetensors file, or its header does not fit its size.
   */
  static open(path: string): Promise<SafetensorsFile> {
    return openFile(path, async (file) => new SafetensorsFile(path, file, await readHeader(path, file)));
  }

  /** Where a tensor stands in the file; the descriptor is open until `close`. @throws CheckpointError when there is none of that name. */
  locate(name: string): WeightPlace {
    const { offset, bytes } = this.entry(name);
    return { fd: this.file.fd, path: this.path, offset, bytes };
  }

  /**
   * Fills `target` with bytes of a tensor.
   *
   * @param from Which byte of the tensor comes first: reads parts of large tensors, row by row.
   * @throws CheckpointError when `target` reaches beyond the tensor, or the file has shrunk.
   */
  async readInto(name: string, target: Uint8Array, from = 0): Promise<void> {
    const entry = this.entry(name);
    if (!Number.isSafeInteger(from) || from < 0 || from + target.byteLength > entry.bytes)
      throw new CheckpointError(
        `Tensor ${describe(name)} of ${this.path} has ${entry.bytes} bytes: ${target.byteLength} from byte ${from} cannot be read.`,
      );
    await readExactly(this.file, target, entry.offset + from, this.path);
  }

  /**
   * A tensor of F32, F16 or BF16 as 32-bit numbers (the 16-bit ones exactly).
   *
   * @throws CheckpointError for other types.
   */
  async readFloat32(name: string): Promise<Float32Array> {
    const { dtype } = this.entry(name);
    if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16")
      throw new CheckpointError(
        `Tensor ${describe(name)} of ${this.path} is ${dtype}: expected F32, F16 or BF16. Read its bytes with read().`,
      );
    const bytes = await this.read(name);
    if (dtype === "F32") return new Float32Array(bytes.buffer);
    const halves = new Uint16Array(bytes.buffer);
    return dtype === "BF16" ? bfloat16ToFloat32(halves) : float16ToFloat32(halves);
  }
}

async function readHeader(path: string, file: FileHandle): Promise<Header> {
  const stat = await file.stat();
  const fail = (reason: string, remedy = "Fetch the file again.") =>
    new CheckpointError(`${path} cannot be used as safetensors: ${reason}. ${remedy}`);
  if (!stat.isFile()) throw fail("it is not a regular file", "Give the path of a .safetensors file.");
  if (stat.size < 8) throw fail(`it has ${stat.size} bytes, the shortest such file has 10`);
  const start = new Uint8Array(8);
  await readExactly(file, start, 0, path);
  const foreign = foreignFormat(start);
  if (foreign !== undefined) throw fail(foreign.reason, foreign.remedy);
  const view = new DataView(start.buffer);
  // Above 2^32 in its upper half the length cannot be a header's, so no 64-bit arithmetic is needed.
  const length = view.getUint32(4, true) === 0 ? view.getUint32(0, true) : Number.POSITIVE_INFINITY;
  if (length > MAX_HEADER_BYTES)
    throw fail(`its header would have ${view.getBigUint64(0, true)} bytes, at most ${MAX_HEADER_BYTES} are read`);
  if (length > stat.size - 8)
    throw fail(`it is cut short: the header has ${length} bytes, the file ${stat.size} in all`);
  const bytes = new Uint8Array(length);
  await readExactly(file, bytes, 8, path);
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return parseHeader(text, 8 + length, stat.size);
  } catch (error) {
    if (error instanceof HeaderError) throw fail(error.message);
    if (error instanceof TypeError) throw fail("its header is not UTF-8");
    throw error;
  }
}

/** How to turn pickled weights into safetensors, in words. `weights_only` refuses what is no tensor. @param name the file's, in its folder */
export function convertPickle(name: string): string {
  const from = /^[\w.-]+$/.test(name) ? name : "WEIGHTS.bin"; // nothing of a stranger's name that a shell or Python could read otherwise
  const to = /^adapter/i.test(from) ? "adapter_model.safetensors" : "model.safetensors";
  return (
    "Convert it once, in its folder: " +
    `python -c "import torch; from safetensors.torch import save_file; save_file({k: v.clone().contiguous() for k, v in torch.load('${from}', weights_only=True).items()}, '${to}', {'format': 'pt'})" ` +
    "(weights in several files: `from transformers import AutoModelForCausalLM as A; A.from_pretrained('FOLDER').save_pretrained('NEW_FOLDER')`)."
  );
}

/** Names of files that hold pickled weights. */
export const PICKLED: RegExp = /\.(bin|pt|pth|ckpt)$/i;

/** What makes pickled weights unusable, in words. */
export const PICKLE_REASON = "it is a pickle, and reading a pickle can run any program that its author put in it";

function foreignFormat(start: Uint8Array): { reason: string; remedy: string } | undefined {
  const text = String.fromCharCode(...start);
  if (text.startsWith("PK\x03\x04") || (start[0] === 0x80 && start[1]! >= 2 && start[1]! <= 5 && text[2] !== "\0"))
    return { reason: PICKLE_REASON, remedy: convertPickle("") };
  if (text === "version ")
    return { reason: "it is a Git LFS pointer, not the weights", remedy: "Run `git lfs pull` in its folder." };
  if (text.startsWith("GGUF")) return { reason: "it is a GGUF file", remedy: "Give a .safetensors file." };
  return undefined;
}
