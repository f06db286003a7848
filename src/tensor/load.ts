/** Reading files into tensors: native threads read, JavaScript only says what goes where. */
import { CheckpointError } from "../errors.js";
import { DTYPE_BYTES } from "./dtype.js";
import { codeOf, type Device, fileCalls } from "./native.js";
import type { BlockWeight } from "./ops/blocks.js";
import type { Tensor } from "./tensor.js";

/** Where in an open file bytes stand. */
export interface FileStretch {
  /** The descriptor; it must be open when a load begins, not longer. */
  readonly fd: number;
  /** For messages. */
  readonly path: string;
  /** The first byte. */
  readonly offset: number;
  readonly bytes: number;
}

// Formats whose blocks are taken apart while they are read, by their native codes.
const BLOCK_FORMATS: readonly string[] = ["Q8_0", "Q4_0", "Q4_1"];

// Formats whose blocks can be restored to 32 bits while they are read, by their native codes.
const RESTORED_FORMATS: readonly string[] = ["Q5_0", "Q4_K", "Q5_K", "Q6_K", ...BLOCK_FORMATS];

/** Whether blocks of a format cannot be kept by `loadBlocks`: only restored while they are read, by `loadRestored`. */
export const isRestored = (format: string): boolean => !BLOCK_FORMATS.includes(format);

let groups = 0;

/** Loads that belong together: one failure or an interrupt ends them all. They run side by side, the earlier ones first. */
export class FileLoads {
  readonly #device: Device;
  readonly #group = ++groups;
  readonly #open = new Set<Promise<void>>();

  constructor(device: Device) {
    this.#device = device;
  }

  /**
   * Fills a tensor from a file, once everything queued before is done with its memory. Operations that need the elements may be queued when the promise
   * has resolved. The tensor may be disposed meanwhile: its memory is given away only after the load.
   *
   * @param name The tensor's, for messages.
   * @throws (rejects) CheckpointError when the file is shorter than it was, or cannot be read.
   */
  load(into: Tensor, from: FileStretch, name: string): Promise<void> {
    if (from.bytes !== into.size * DTYPE_BYTES[into.dtype])
      throw new CheckpointError(
        `${from.path}: ${name} has ${from.bytes} bytes, its place ${into.size * DTYPE_BYTES[into.dtype]}.`,
      );
    return this.#add(fileCalls.load(into.handle, from.fd, from.offset, from.bytes, this.#group), from, name);
  }

  /**
   * Fills a matrix in blocks (on the CPU) from a file that holds each block's scale, minimum and codes together.
   *
   * @param format "Q8_0", "Q4_0" or "Q4_1".
   * @param headRows Rows of a head, where the file holds them in the order of rotating neighbouring pairs; else 0.
   * @throws (rejects) as `load`.
   */
  loadBlocks(into: BlockWeight, from: FileStretch, name: string, format: string, headRows: number): Promise<void> {
    const kind = BLOCK_FORMATS.indexOf(format);
    const { codes, scale, minimum } = into;
    const file = [from.fd, from.offset, from.bytes, this.#group] as const;
    const columns = into.shape[1]!;
    return this.#add(
      fileCalls.loadBlocks(codes.handle, scale.handle, minimum?.handle ?? 0, ...file, kind, columns, headRows),
      from,
      name,
    );
  }

  /**
   * Fills a float32 matrix on the CPU with the numbers of blocks.
   *
   * @param format one of those of {@link isRestored}, or of `loadBlocks`.
   * @param headRows as in `loadBlocks`.
   * @throws (rejects) as `load`.
   */
  loadRestored(into: Tensor, from: FileStretch, name: string, format: string, headRows: number): Promise<void> {
    const kind = RESTORED_FORMATS.indexOf(format);
    const file = [from.fd, from.offset, from.bytes, this.#group] as const;
    return this.#add(fileCalls.loadRestored(into.handle, ...file, kind, into.shape[1]!, headRows), from, name);
  }

  #add(native: Promise<void>, from: FileStretch, name: string): Promise<void> {
    const loading = native
      .catch((error: unknown) => Promise.reject(explained(error, from, name)))
      .finally(() => this.#open.delete(loading));
    loading.catch(() => {}); // whoever waits for it may come later, or never after another failure
    this.#open.add(loading);
    return loading;
  }

  /** Ends what is on its way: it rejects when the pieces that are being read have come, within milliseconds. */
  cancel(): void {
    fileCalls.endLoads(codeOf(this.#device), this.#group, false);
  }

  /** Waits for what is on its way and gives working memory back. */
  async end(): Promise<void> {
    await Promise.allSettled(this.#open);
    fileCalls.endLoads(codeOf(this.#device), this.#group, true);
  }
}

function explained(error: unknown, from: FileStretch, name: string): unknown {
  const { code, message } = error as { code?: unknown; message: string };
  if (code === "TUNEBOOK_CUT")
    return new CheckpointError(
      `${from.path} ended at byte ${message}, inside of ${name} (bytes ${from.offset} to ${from.offset + from.bytes}): it was cut short or changed while it was read. Fetch it again.`,
      { cause: error },
    );
  if (code === "TUNEBOOK_READ")
    return new CheckpointError(
      `${from.path}: ${name} could not be read: ${message}. Check the disk or the network it is on, and fetch the file again if it is damaged.`,
      { cause: error },
    );
  if (code === "TUNEBOOK_DEVICE")
    return new CheckpointError(`${from.path}: ${name} could not be brought to the device: ${message}`, {
      cause: error,
    });
  return error;
}
