import type { WeightBlocks, WeightPlace } from "../hub/weight-source.js";
import type { Device } from "../tensor/device.js";
import { DTYPE_BYTES, type DType } from "../tensor/dtype.js";
import { part } from "../tensor/host.js";
import { FileLoads } from "../tensor/load.js";
import { settle } from "../tensor/native.js";
import { BlockWeight } from "../tensor/ops/blocks.js";
import { outsideScope } from "../tensor/scope.js";
import { sizeOf } from "../tensor/shape.js";
import { empty, type Tensor } from "../tensor/tensor.js";
import { aligned, Staging } from "./staging.js";

interface Common {
  readonly name: string;
  readonly shape: readonly number[];
  /** Whether the elements stay as the file has them, so that they are read to where they stay. */
  readonly kept: boolean;
}

/** A tensor of a checkpoint, as plain numbers, on its way to a device. */
export interface PlainArrival extends Common {
  readonly place: WeightPlace;
  /** As the file has it. */
  readonly dtype: DType;
  readonly device: Device;
  /** Takes the elements: queues what is made of them. What is `kept` belongs to it from now on; else it is gone when this returns. */
  take(weight: Tensor): void;
}

/** A matrix in blocks on its way to the CPU. */
export interface BlocksArrival extends Common {
  readonly place: WeightBlocks;
  /** As that of plain numbers. */
  take(weight: BlockWeight): void;
}

/** A matrix in blocks that are restored to float32 on the CPU while they are read. */
export interface RestoredArrival extends Common {
  readonly place: WeightBlocks;
  readonly restored: true;
  /** As that of plain numbers. */
  take(weight: Tensor): void;
}

export type Arrival = PlainArrival | BlocksArrival | RestoredArrival;

const MOST_AHEAD = 256; // tensors on their way: enough that reading never waits for JavaScript
const BLOCK_BYTES_AHEAD = 64 * 2 ** 20; // of matrices in blocks that are not kept

/** An arrival that has been asked for. */
interface Ahead {
  readonly arrival: Arrival;
  readonly loaded: Promise<void>;
  /** Queues what is made of it. */
  take(): void;
  /** Frees what it holds. */
  drop(): void;
}

/**
 * Brings tensors from files to their devices, in the order of the files. What stays as it is is read to its place; other plain tensors come through one piece of
 * memory that is used again and again, so that little more than the finished model ever exists. Reading runs ahead of what is made of the tensors, by a bounded
 * amount.
 *
 * @throws CheckpointError when a file cannot be read; the signal's reason. Nothing is on its way then, and only what was taken has memory.
 */
export async function streamWeights(
  arrivals: readonly Arrival[],
  onTaken: (name: string) => void,
  signal?: AbortSignal,
): Promise<void> {
  if (arrivals.length === 0) return;
  signal?.throwIfAborted();
  const inOrder = [...arrivals].sort((a, b) => compare(a.place, b.place));
  const reading = new Reading(inOrder);
  const cancel = (): void => reading.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  const ahead: Ahead[] = [];
  const takeOldest = async (): Promise<void> => {
    const oldest = ahead[0]!;
    await oldest.loaded;
    signal?.throwIfAborted();
    oldest.take();
    ahead.shift();
    onTaken(oldest.arrival.name);
  };
  try {
    for (const arrival of inOrder) {
      while (ahead.length >= MOST_AHEAD) await takeOldest();
      let begun = reading.begin(arrival);
      while (begun === undefined) {
        await takeOldest();
        begun = reading.begin(arrival);
      }
      ahead.push(begun);
    }
    while (ahead.length > 0) await takeOldest();
    await settle();
  } catch (error) {
    cancel();
    signal?.throwIfAborted(); // what was cancelled failed for that reason
    throw error;
  } finally {
    signal?.removeEventListener("abort", cancel);
    await reading.end();
    for (const each of ahead) each.drop();
  }
}

function compare(a: WeightPlace, b: WeightPlace): number {
  return a.path === b.path ? a.offset - b.offset : a.path < b.path ? -1 : 1;
}

/** What arrivals stand in until they are taken, and the loads that fill it. */
class Reading {
  readonly #loads = new Map<Device, FileLoads>();
  readonly #staging = new Map<Device, Staging>();
  readonly #sizes = new Map<Device, number[]>();
  #blockBytes = 0;

  constructor(arrivals: readonly Arrival[]) {
    for (const a of arrivals) {
      if (!("dtype" in a) || a.kept) continue;
      const sizes = this.#sizes.get(a.device) ?? [];
      sizes.push(sizeOf(a.shape) * DTYPE_BYTES[a.dtype]);
      this.#sizes.set(a.device, sizes);
    }
  }

  /** Begins to read; undefined when older ones must be taken first. */
  begin(arrival: Arrival): Ahead | undefined {
    if ("dtype" in arrival) return this.#beginPlain(arrival);
    return "restored" in arrival ? this.#beginRestored(arrival) : this.#beginBlocks(arrival);
  }

  #beginPlain(arrival: PlainArrival): Ahead | undefined {
    const { device, shape, dtype, kept } = arrival;
    let staging: Staging | undefined;
    let weight: Tensor;
    if (kept) weight = outsideScope(() => empty(shape, dtype, device));
    else {
      staging = this.#staging.get(device) ?? new Staging(this.#sizes.get(device)!, device);
      this.#staging.set(device, staging);
      const at = staging.take(aligned(sizeOf(shape) * DTYPE_BYTES[dtype]));
      if (at === undefined) return undefined;
      const { memory } = staging;
      weight = outsideScope(() => part(memory, shape, dtype, at));
    }
    const take = (): void => {
      arrival.take(weight);
      weight.dispose(); // nothing is left of one that was kept
      staging?.free();
    };
    const loaded = this.#of(device).load(weight, arrival.place, arrival.name);
    return { arrival, loaded, take, drop: () => weight.dispose() };
  }

  #beginBlocks(arrival: BlocksArrival): Ahead | undefined {
    const { place, shape, kept, name } = arrival;
    const bytes = kept ? 0 : place.bytes;
    if (this.#blockBytes > 0 && this.#blockBytes + bytes > BLOCK_BYTES_AHEAD) return undefined;
    const weight = outsideScope(() => BlockWeight.empty(shape, place.format === "Q8_0" ? 8 : 4));
    this.#blockBytes += bytes;
    const take = (): void => {
      arrival.take(weight);
      if (!kept) weight.dispose();
      this.#blockBytes -= bytes;
    };
    const loaded = this.#of("cpu").loadBlocks(weight, place, name, place.format, place.headRows);
    return { arrival, loaded, take, drop: () => weight.dispose() };
  }

  #beginRestored(arrival: RestoredArrival): Ahead | undefined {
    const { place, shape, kept, name } = arrival;
    const bytes = kept ? 0 : sizeOf(shape) * DTYPE_BYTES.float32;
    if (this.#blockBytes > 0 && this.#blockBytes + bytes > BLOCK_BYTES_AHEAD) return undefined;
    const weight = outsideScope(() => empty(shape, "float32", "cpu"));
    this.#blockBytes += bytes;
    const take = (): void => {
      arrival.take(weight);
      weight.dispose();
      this.#blockBytes -= bytes;
    };
    const loaded = this.#of("cpu").loadRestored(weight, place, name, place.format, place.headRows);
    return { arrival, loaded, take, drop: () => weight.dispose() };
  }

  #of(device: Device): FileLoads {
    const loads = this.#loads.get(device) ?? new FileLoads(device);
    this.#loads.set(device, loads);
    return loads;
  }

  cancel(): void {
    for (const loads of this.#loads.values()) loads.cancel();
  }

  /** Waits for what is on its way and frees what tensors passed through. */
  async end(): Promise<void> {
    await Promise.all([...this.#loads.values()].map((loads) => loads.end()));
    for (const staging of this.#staging.values()) staging.dispose();
  }
}
