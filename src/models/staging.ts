import type { Device } from "../tensor/device.js";
import { outsideScope } from "../tensor/scope.js";
import { empty, type Tensor } from "../tensor/tensor.js";

const ALIGN = 256;
// Several of the largest tensors, so that reading, copying and quantising overlap across tensors.
const LARGEST = 4;
const MOST_BYTES = 512 * 2 ** 20;

/** Bytes rounded up to where the next tensor may begin. */
export const aligned = (bytes: number): number => Math.ceil(bytes / ALIGN) * ALIGN;

/**
 * Memory that tensors pass through, the oldest making room first. What is freed may be taken at once: a load into it begins when what was queued before has been
 * done.
 */
export class Staging {
  readonly bytes: number;
  readonly memory: Tensor;
  readonly #taken: { begin: number; end: number }[] = [];

  /** @param sizes Bytes of all tensors that will pass. */
  constructor(sizes: readonly number[], device: Device) {
    const largest = aligned(sizes.reduce((a, b) => Math.max(a, b), 0));
    const all = sizes.reduce((sum, bytes) => sum + aligned(bytes), 0);
    this.bytes = Math.min(all, Math.max(largest, Math.min(LARGEST * largest, MOST_BYTES)));
    this.memory = outsideScope(() => empty([this.bytes], "uint8", device));
  }

  /** Where `bytes` (aligned) begin, or undefined when the oldest must be freed before. */
  take(bytes: number): number | undefined {
    const begin = this.#place(bytes);
    if (begin !== undefined) this.#taken.push({ begin, end: begin + bytes });
    return begin;
  }

  #place(bytes: number): number | undefined {
    const first = this.#taken[0];
    const last = this.#taken.at(-1);
    if (first === undefined || last === undefined) return 0;
    const wrapped = last.begin < first.begin;
    if (last.end + bytes <= (wrapped ? first.begin : this.bytes)) return last.end;
    return !wrapped && bytes <= first.begin ? 0 : undefined;
  }

  /** Frees the oldest. */
  free(): void {
    this.#taken.shift();
  }

  dispose(): void {
    this.memory.dispose();
  }
}
