import type { Device } from "./device.js";
import { type Recorded, recordBegin, recordEnd, recordFree, recordLaunch } from "./native.js";

const registry = new FinalizationRegistry<{ device: Device; id: number }>(({ device, id }) => recordFree(device, id));

/**
 * Operations of one synchronous function, kept to be run again without it: on a GPU as one CUDA graph. What they read and write stays in its place until
 * `dispose()`, whatever JavaScript frees meanwhile. Values that change from run to run have to be in the tensors, since numbers are kept as they were.
 */
export class Recording implements Disposable {
  readonly device: Device;
  private readonly facts: Recorded;
  private alive = true;

  private constructor(device: Device, facts: Recorded) {
    this.device = device;
    this.facts = facts;
    registry.register(this, { device, id: facts.id }, this);
  }

  /** Runs `fn`, whose operations run as always, and records those on `device`. */
  static of(device: Device, fn: () => void): Recording {
    let done = false;
    recordBegin(device);
    try {
      fn();
      done = true;
    } finally {
      if (!done) recordEnd(device, false);
    }
    return new Recording(device, recordEnd(device, true) as Recorded);
  }

  /**
   * Why it must not be run again: values came from JavaScript or went there, a tensor from before was freed, or one that was made is still in use.
   * `undefined` when nothing was found; what JavaScript computes for itself only a comparison with a second recording shows (`equals`).
   */
  get obstacle(): string | undefined {
    return this.facts.obstacle === "" ? undefined : this.facts.obstacle;
  }

  /** Number of operations. */
  get ops(): number {
    return this.facts.ops;
  }

  /** Whether another one has the same operations with the same numbers and tensors. */
  equals(other: Recording): boolean {
    return this.facts.digest === other.facts.digest && this.facts.ops === other.facts.ops;
  }

  /** Enqueues the operations once more. */
  launch(): void {
    recordLaunch(this.device, this.facts.id);
  }

  /** Frees what it kept. */
  dispose(): void {
    if (!this.alive) return;
    this.alive = false;
    registry.unregister(this);
    recordFree(this.device, this.facts.id);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
