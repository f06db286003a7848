/** Writing safetensors, tensor by tensor, so that a file appears whole under its name or not at all. */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { CheckpointError } from "../errors.js";
import { describe } from "./json.js";
import { DTYPE_BYTES, elementCount, HeaderError } from "./safetensors-header.js";

/** A tensor to be written; `data` may be a function, called when its turn comes, so that no two need be in memory at once. */
export interface TensorToWrite {
  name: string;
  /** "F32", "BF16", "F16", "U8" … */
  dtype: string;
  shape: readonly number[];
  /** Row-major little-endian bytes. */
  data: Uint8Array | (() => Uint8Array | Promise<Uint8Array>);
}

/**
 * Writes a safetensors file as the Python package lays it out: header padded to 8 bytes, tensors by falling size of their type, then by name.
 * It goes to a temporary file in the same folder, is flushed, and takes its name at the end.
 *
 * @param onBytes Called with all bytes in their order, to hash what the file should hold.
 * @throws CheckpointError when a tensor does not fit its shape, or the disk fails: what stood under `path` before is then unchanged.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = {},
  onBytes: (bytes: Uint8Array) => void = () => {},
): Promise<void> {
  const ordered = order([...tensors]);
  const header = headerBytes(ordered, metadata);
  await replaceFile(path, async (file) => {
    const write = async (bytes: Uint8Array): Promise<void> => {
      onBytes(bytes);
      await writeAll(file, bytes);
    };
    await write(header);
    for (const tensor of ordered) await write(await bytesOf(tensor, path));
  });
}

/**
 * Replaces a file in one step: `write` fills a temporary file beside it, which is flushed and renamed, and then the folder is flushed.
 *
 * @throws CheckpointError naming the path when the system fails; errors of `write` itself come as they are.
 */
export async function replaceFile(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
  let file: FileHandle | undefined;
  let renamed = false;
  try {
    // "wx" fails on whatever stands there already, a link too.
    file = await open(temporary, "wx");
    await write(file);
    await file.sync();
    await file.close();
    file = undefined;
    await rename(temporary, path);
    renamed = true;
    await syncFolder(dirname(path));
  } catch (error) {
    await file?.close().catch(() => {});
    await unlink(temporary).catch(() => {});
    throw systemFailure(path, error, renamed);
  }
}

function systemFailure(path: string, error: unknown, renamed: boolean): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (typeof code !== "string" || (error as NodeJS.ErrnoException).syscall === undefined) return error;
  const reason =
    code === "ENOSPC" || code === "EDQUOT"
      ? "the disk is full. Free some space and save again"
      : `${(error as Error).message}`;
  const state = renamed ? "Its new content may not outlive a power failure" : "What stood there before is unchanged";
  return new CheckpointError(`${path} could not be written: ${reason}. ${state}.`, { cause: error });
}

/** Flushes the names in a folder. */
export async function syncFolder(folder: string): Promise<void> {
  // Windows cannot open a folder; there the rename is already durable.
  if (process.platform === "win32") return;
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function order(tensors: TensorToWrite[]): TensorToWrite[] {
  const ranks = new Map([...DTYPE_BYTES.keys()].map((dtype, rank) => [dtype, rank]));
  const names = new Set<string>();
  for (const { name, dtype } of tensors) {
    if (name === "__metadata__" || names.has(name))
      throw new CheckpointError(
        `The tensor name ${describe(name)} cannot be written ${names.has(name) ? "twice" : "at all"}.`,
      );
    if (!ranks.has(dtype))
      throw new CheckpointError(
        `Tensor ${describe(name)} has the dtype ${describe(dtype)}: known are ${[...ranks.keys()].join(", ")}.`,
      );
    names.add(name);
  }
  const byName = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));
  return tensors.sort((a, b) => ranks.get(b.dtype)! - ranks.get(a.dtype)! || byName(a.name, b.name));
}

function sizeOf(tensor: TensorToWrite): number {
  try {
    return elementCount(tensor.shape, `tensor ${describe(tensor.name)}`) * DTYPE_BYTES.get(tensor.dtype)!;
  } catch (error) {
    if (error instanceof HeaderError) throw new CheckpointError(`It cannot be written: ${error.message}.`);
    throw error;
  }
}

function headerBytes(tensors: readonly TensorToWrite[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const fields: string[] = [];
  if (Object.keys(metadata).length > 0) fields.push(`"__metadata__":${JSON.stringify(metadata)}`);
  let at = 0;
  for (const tensor of tensors) {
    const end = at + sizeOf(tensor);
    const info = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [at, end] };
    fields.push(`${JSON.stringify(tensor.name)}:${JSON.stringify(info)}`);
    at = end;
  }
  const json = Buffer.from(`{${fields.join(",")}}`);
  const length = Math.ceil(json.length / 8) * 8;
  const header = Buffer.alloc(8 + length, " ");
  header.writeBigUInt64LE(BigInt(length));
  json.copy(header, 8);
  return header;
}

async function bytesOf(tensor: TensorToWrite, path: string): Promise<Uint8Array> {
  const bytes = typeof tensor.data === "function" ? await tensor.data() : tensor.data;
  const expected = sizeOf(tensor);
  if (bytes.byteLength !== expected)
    throw new CheckpointError(
      `Tensor ${describe(tensor.name)} for ${path}: ${tensor.dtype} [${tensor.shape.join(", ")}] is ${expected} bytes, got ${bytes.byteLength}.`,
    );
  return bytes;
}

/** Writes all bytes at the end of an open file. */
export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  const most = 256 * 1024 * 1024;
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(most, bytes.byteLength - done));
    done += bytesWritten;
  }
}
