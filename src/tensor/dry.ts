import type { DryMemory, Handle } from "./native.js";
import { setDryMemory } from "./native.js";
import { watchTensors } from "./scope.js";

// Handles of a dry run stand above all real ones, which have 32 bits; the bit that tells the device is the same.
const FIRST = 2 ** 40;
const GPU_BIT = 2 ** 30;

/** How memory of a device is rounded: as native/pool.cc and native/segments.cc do it. */
export function roundedBytes(bytes: number, device: "cpu" | "cuda"): number {
  if (device === "cuda") return Math.ceil(Math.max(bytes, 1) / 512) * 512;
  if (bytes <= 64) return 64;
  let step = 8;
  while (step * 16 < bytes) step *= 2;
  step = Math.max(step, 64);
  return Math.ceil(bytes / step) * step;
}

/** Memory that is counted instead of taken. */
class Counted implements DryMemory {
  readonly halves: boolean;
  readonly device: "cpu" | "cuda";
  live = 0;
  peak = 0;
  host = 0;
  hostPeak = 0;
  private next = FIRST;
  private readonly blocks = new Map<Handle, { bytes: number; host: boolean; references: number }>();

  constructor(device: "cpu" | "cuda") {
    this.device = device;
    this.halves = device === "cuda";
  }

  alloc(bytes: number, place: number, host: boolean): Handle {
    const block = { bytes: roundedBytes(bytes, this.device), host, references: 1 };
    if (host) this.hostPeak = Math.max(this.hostPeak, (this.host += block.bytes));
    else this.peak = Math.max(this.peak, (this.live += block.bytes));
    return this.enter(block, place);
  }

  view(handle: Handle): Handle {
    const block = this.blocks.get(handle) ?? { bytes: 0, host: false, references: 0 }; // of real memory: nothing
    block.references++;
    return this.enter(block, (handle & GPU_BIT) === 0 ? 0 : 1);
  }

  private enter(block: { bytes: number; host: boolean; references: number }, place: number): Handle {
    const handle = this.next++ + (place === 0 ? 0 : GPU_BIT);
    this.blocks.set(handle, block);
    return handle;
  }

  free(handle: Handle): boolean {
    const block = this.blocks.get(handle);
    if (!block) return false;
    this.blocks.delete(handle);
    if (--block.references > 0) return true;
    if (block.host) this.host -= block.bytes;
    else this.live -= block.bytes;
    return true;
  }
}

/** What a dry run would have taken, in bytes. */
export interface DryRun {
  peak: number;
  /** In a GPU's host memory. */
  host: number;
}

/**
 * Runs a synchronous function without computing anything: memory is counted as the device would take it, operations do nothing, and tensors that
 * have no values yet need none. Tensors it makes are gone afterwards.
 */
export function dryRun(device: "cpu" | "cuda", fn: () => void): DryRun {
  const memory = new Counted(device);
  const tensors = watchTensors();
  setDryMemory(memory);
  try {
    fn();
  } finally {
    tensors.end();
    setDryMemory(undefined);
  }
  return { peak: memory.peak, host: memory.hostPeak };
}
