/** What files of tensors have in common: an open descriptor, and tensors by name at places that the header gives. */
import { type FileHandle, open } from "node:fs/promises";
import { CheckpointError } from "../errors.js";
import { describe } from "./json.js";

// One read call is kept below 2 GiB on every system.
const READ_BYTES = 256 * 1024 * 1024;

/** Where a tensor stands in its file. */
interface Place {
  readonly offset: number;
  readonly bytes: number;
}

/** An open file whose header has been read. Close it, or let `await using` do so. */
export abstract class TensorFile<Entry extends Place> {
  /** The path it was opened by. */
  readonly path: string;
  protected readonly file: FileHandle;
  protected readonly entries: ReadonlyMap<string, Entry>;

  protected constructor(path: string, file: FileHandle, entries: ReadonlyMap<string, Entry>) {
    this.path = path;
    this.file = file;
    this.entries = entries;
  }

  /** The tensors' names, in the order of the file. */
  names(): string[] {
    return [...this.entries.keys()];
  }

  /** True when the file has a tensor of that name. */
  has(name: string): boolean {
    return this.entries.has(name);
  }

  /** Shape, type and size of a tensor. @throws CheckpointError when there is none of that name. */
  entry(name: string): Entry {
    const entry = this.entries.get(name);
    if (entry === undefined) throw missingTensor(name, this.path, this.entries.keys());
    return entry;
  }

  /** All bytes of a tensor as they are in the file, in memory of their own. @throws CheckpointError */
  async read(name: string): Promise<Uint8Array> {
    const entry = this.entry(name);
    const bytes = new Uint8Array(entry.bytes);
    await readExactly(this.file, bytes, entry.offset, this.path);
    return bytes;
  }

  /** Closes the descriptor; a second call does nothing. */
  async close(): Promise<void> {
    await this.file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Opens a file for what `read` makes of it; closed again when that throws. @throws CheckpointError when it cannot be opened */
export async function openFile<T>(path: string, read: (file: FileHandle) => Promise<T>): Promise<T> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (cause) {
    throw new CheckpointError(`${path} cannot be opened: ${(cause as Error).message}.`, { cause });
  }
  try {
    return await read(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The error for a name that is not there, with the nearest names that are. */
export function missingTensor(name: string, path: string, names: Iterable<string>): CheckpointError {
  const all = [...names];
  const tail = name.split(".").slice(-2).join(".");
  const alike = all.filter((other) => other.endsWith(tail)).slice(0, 3);
  const shown = alike.length > 0 ? alike : all.slice(0, 3);
  const hint = shown.length > 0 ? ` It has ${all.length}, for example ${shown.join(", ")}.` : " It has none.";
  return new CheckpointError(`${path} has no tensor ${describe(name)}.${hint}`);
}

/** Fills `target` from a position of an open file. @throws CheckpointError when the file ends before. */
export async function readExactly(file: FileHandle, target: Uint8Array, position: number, path: string): Promise<void> {
  let done = 0;
  while (done < target.byteLength) {
    const wanted = Math.min(READ_BYTES, target.byteLength - done);
    const { bytesRead } = await file.read(target, done, wanted, position + done);
    if (bytesRead === 0)
      throw new CheckpointError(
        `${path} ended at byte ${position + done}, ${target.byteLength - done} bytes too early: it was cut short or changed while it was read. Fetch it again.`,
      );
    done += bytesRead;
  }
}
