import { type Device, recorder } from "./native.js";

/** What the addon says of a recording. */
interface Recorded {
  readonly id: number;
  /** The same for two recordings of the same work: operations, numbers, and tensors. */
  readonly digest: string;
  readonly ops: number;
  /** Why running it again would not do what was recorded; "" if nothing was found. */
  readonly obstacle: string;
}

/** What a device knows of recordings. @internal */
export interface RecordingFacts {
  readonly alive: number;
  /** Launches that went as one: as a CUDA graph. */
  readonly wholeLaunches: number;
  /** Why the last capture failed; "": none did. */
  readonly captureError: string;
}

/** The addon's calls, by the number of a device: 0 the CPU, 1 the GPU. @internal */
export interface RecordingAddon {
  recordBegin(device: number): void;
  recordEnd(device: number, keep: boolean): Recorded | null;
  recordLaunch(device: number, id: number): void;
  recordFree(device: number, id: number): void;
  recordings(device: number): RecordingFacts;
}

const place = (device: Device): number => (device === "cuda" ? 1 : 0);
const registry = new FinalizationRegistry<{ device: Device; id: number }>(({ device, id }) =>
  recorder.recordFree(place(device), id),
);

/** Recordings that are alive on a device, and how they were launched. */
export function recordings(device: Device): RecordingFacts {
  return recorder.recordings(place(device));
}

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
    recorder.recordBegin(place(device));
    try {
      fn();
      done = true;
    } finally {
      if (!done) recorder.recordEnd(place(device), false);
    }
    return new Recording(device, recorder.recordEnd(place(device), true) as Recorded);
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
    recorder.recordLaunch(place(this.device), this.facts.id);
  }

  /** Frees what it kept. */
  dispose(): void {
    if (!this.alive) return;
    this.alive = false;
    registry.unregister(this);
    recorder.recordFree(place(this.device), this.facts.id);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
