import type { WeightPlace } from "../hub/weight-source.js";
import type { Device } from "../tensor/device.js";
import { DTYPE_BYTES, type DType } from "../tensor/dtype.js";
import { part } from "../tensor/host.js";
import { FileLoads } from "../tensor/load.js";
import { settle } from "../tensor/native.js";
import { outsideScope } from "../tensor/scope.js";
import { sizeOf } from "../tensor/shape.js";
import { empty, type Tensor } from "../tensor/tensor.js";

/** One tensor of a checkpoint on its way to where it belongs. */
export interface Arrival {
  readonly name: string;
  readonly place: WeightPlace;
  readonly shape: readonly number[];
  /** As the file has it. */
  readonly dtype: DType;
  /** Whether the elements stay as the file has them, so that they are read to where they stay. */
  readonly kept: boolean;
  /** Takes the elements: queues what is made of them. What is `kept` belongs to it from now on; else the tensor is gone when it returns. */
  take(weight: Tensor): void;
}

const ALIGN = 256;
const MOST_AHEAD = 256; // tensors on their way: enough that reading never waits for JavaScript
// Staged tensors are on their way in the file's dtype: several of the largest, so that reading, copying and quantising overlap across tensors.
const STAGED = 4;
const STAGED_BYTES = 512 * 2 ** 20;

const aligned = (bytes: number): number => Math.ceil(bytes / ALIGN) * ALIGN;

/**
 * Brings tensors from files to a device, in the order of the files. What stays as it is is read to its place; the rest comes through one piece of memory that is
 * used again and again, so that little more than the finished model ever exists. Reading runs ahead of what is made of the tensors, by a bounded amount.
 *
 * @throws CheckpointError when a file cannot be read; the signal's reason. Nothing is on its way then, and only what was taken has memory.
 */
export async function streamWeights(
  arrivals: readonly Arrival[],
  device: Device,
  onTaken: (arrival: Arrival) => void,
  signal?: AbortSignal,
): Promise<void> {
  if (arrivals.length === 0) return;
  signal?.throwIfAborted();
  const inOrder = [...arrivals].sort((a, b) => compare(a.place, b.place));
  const loads = new FileLoads(device);
  const cancel = (): void => loads.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  const staging = new Staging(inOrder.filter((a) => !a.kept).map((a) => sizeOf(a.shape) * DTYPE_BYTES[a.dtype]));
  const ahead: { arrival: Arrival; weight: Tensor; loaded: Promise<void> }[] = [];
  const takeOldest = async (): Promise<void> => {
    const { arrival, weight, loaded } = ahead[0]!;
    await loaded;
    signal?.throwIfAborted();
    arrival.take(weight);
    if (!arrival.kept) {
      weight.dispose();
      staging.free();
    }
    ahead.shift();
    onTaken(arrival);
  };
  try {
    for (const arrival of inOrder) {
      while (ahead.length >= MOST_AHEAD) await takeOldest();
      let weight: Tensor | undefined;
      if (arrival.kept) weight = outsideScope(() => empty(arrival.shape, arrival.dtype, device));
      else while ((weight = staging.take(arrival, device)) === undefined) await takeOldest();
      ahead.push({ arrival, weight, loaded: loads.load(weight, arrival.place, arrival.name) });
    }
    while (ahead.length > 0) await takeOldest();
    await settle(device);
  } catch (error) {
    loads.cancel();
    signal?.throwIfAborted(); // what was cancelled failed for that reason
    throw error;
  } finally {
    signal?.removeEventListener("abort", cancel);
    await loads.end();
    for (const { weight } of ahead) weight.dispose();
    staging.dispose();
  }
}

function compare(a: WeightPlace, b: WeightPlace): number {
  return a.path === b.path ? a.offset - b.offset : a.path < b.path ? -1 : 1;
}

/**
 * Memory that tensors pass through, the oldest making room first. What is freed may be taken at once: a load into it begins when what was queued before has been
 * done.
 */
class Staging {
  readonly #bytes: number;
  #memory: Tensor | undefined;
  readonly #taken: { begin: number; end: number }[] = [];

  constructor(sizes: readonly number[]) {
    const largest = aligned(sizes.reduce((a, b) => Math.max(a, b), 0));
    const all = sizes.reduce((sum, bytes) => sum + aligned(bytes), 0);
    this.#bytes = Math.min(all, Math.max(largest, Math.min(STAGED * largest, STAGED_BYTES)));
  }

  /** A tensor over free memory, or undefined when the oldest must be freed before. */
  take(arrival: Arrival, device: Device): Tensor | undefined {
    const bytes = aligned(sizeOf(arrival.shape) * DTYPE_BYTES[arrival.dtype]);
    const begin = this.#place(bytes);
    if (begin === undefined) return undefined;
    return outsideScope(() => {
      this.#memory ??= empty([this.#bytes], "uint8", device);
      const weight = part(this.#memory, arrival.shape, arrival.dtype, begin);
      this.#taken.push({ begin, end: begin + bytes });
      return weight;
    });
  }

  #place(bytes: number): number | undefined {
    const first = this.#taken[0];
    const last = this.#taken.at(-1);
    if (first === undefined || last === undefined) return 0;
    const wrapped = last.begin < first.begin;
    if (last.end + bytes <= (wrapped ? first.begin : this.#bytes)) return last.end;
    return !wrapped && bytes <= first.begin ? 0 : undefined;
  }

  /** Frees the oldest. */
  free(): void {
    this.#taken.shift();
  }

  dispose(): void {
    this.#memory?.dispose();
  }
}
