/** When a run saves itself, and what becomes of it when the disk does not play along. */
import { formatBytes } from "../display/format.js";
import { InterruptedError } from "../errors.js";
import type { TensorToWrite } from "../hub/safetensors-write.js";
import { state as deviceState } from "../tensor/native.js";
import type { Tensor } from "../tensor/tensor.js";
import { type Checkpoint, listCheckpoints, NewCheckpoint, pruneCheckpoints } from "./checkpoint-files.js";
import { type RunState, readers, snapshot, stateBytes, writeState } from "./checkpoint-state.js";

/** Larger states are written while the run waits, tensor by tensor: a copy of all of them might not fit into memory. */
export const SNAPSHOT_BYTES = 512 << 20;

/** What a saver needs. */
export interface CheckpointsOptions {
  output: string;
  /** Steps between two; Infinity: only when it is asked for. */
  every: number;
  /** Writes the adapter in PEFT's layout into a folder; without an adapter nothing. */
  saveAdapter: ((folder: string) => Promise<void>) | undefined;
  /** Folders that were found damaged. */
  damaged?: Iterable<string>;
  /** Called when a checkpoint stands or has failed. */
  onChange?: () => void;
  snapshotBytes?: number;
}

/** Saves a run now and then, beside its steps where the state is small enough to be copied. */
export class Checkpoints {
  /** The newest one of this run. */
  last: Checkpoint | undefined;
  /** Why the newest attempt failed; `undefined` after one that did not. */
  problem: string | undefined;
  private failures = 0;
  private newestFailure = "";
  private readonly options: CheckpointsOptions;
  private readonly damaged: Set<string>;
  private writing: Promise<void> = Promise.resolve();
  private under: number | undefined;
  private number: number | undefined;

  constructor(options: CheckpointsOptions) {
    this.options = options;
    this.damaged = new Set(options.damaged);
  }

  /** Whether one is due after a step. */
  due(step: number): boolean {
    return step % this.options.every === 0;
  }

  /** Whether a step is saved, or being saved. */
  holds(step: number): boolean {
    return this.last?.step === step || this.under === step;
  }

  /**
   * Saves the state that the run has now. It returns as soon as steps may go on; a failure of the disk is noted, not thrown: training goes on, and
   * the next save tries again.
   *
   * @throws what a device throws: then the state is not to be had.
   */
  async save(state: RunState, tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    await this.writing; // one copy of the state at most is in memory
    this.under = state.step;
    const { output, saveAdapter, snapshotBytes = SNAPSHOT_BYTES } = this.options;
    const small = stateBytes(tensors) <= snapshotBytes;
    let made: NewCheckpoint | undefined;
    try {
      const own = await NewCheckpoint.begin(output, state.step);
      made = own;
      await saveAdapter?.(own.folder);
      const parts = small ? await snapshot(tensors) : readers(tensors);
      const written = this.write(own, parts, state);
      this.writing = small ? written : Promise.resolve();
      if (!small) await written;
    } catch (error) {
      await made?.discard();
      if (error instanceof InterruptedError || deviceState() !== "running") throw error;
      this.failed(state.step, error);
    }
  }

  private async write(made: NewCheckpoint, parts: readonly TensorToWrite[], state: RunState): Promise<void> {
    const { output, onChange } = this.options;
    try {
      const meant = await writeState(made.folder, parts, state);
      this.number ??= Math.max(0, ...(await listCheckpoints(output)).map((each) => each.checkpoint?.saved ?? 0));
      this.last = await made.commit(meant, ++this.number);
      this.problem = undefined;
      this.damaged.delete(this.last.folder);
    } catch (error) {
      await made.discard();
      if (error instanceof InterruptedError) throw error;
      this.failed(state.step, error);
      return;
    }
    // What is left over costs room alone.
    await pruneCheckpoints(output, this.damaged).catch(() => {});
    onChange?.();
  }

  private failed(step: number, error: unknown): void {
    const { code } = error as NodeJS.ErrnoException;
    const full = [code, ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code].some(
      (each) => each === "ENOSPC" || each === "EDQUOT",
    );
    const why = full ? `the disk of ${this.options.output} is full; free some space` : (error as Error).message;
    const before = this.last ? `The last good one is of step ${this.last.step}.` : "There is none of this run yet.";
    this.under = undefined;
    this.failures++;
    this.problem = `The checkpoint of step ${step} was not saved: ${why}. ${before} Training goes on; the next save tries again.`;
    this.newestFailure = `of step ${step}: ${why}`;
    this.options.onChange?.();
  }

  /** What a run's result says of saves that failed, also where later ones did not. */
  warnings(): string[] {
    if (this.failures === 0) return [];
    const count = this.failures === 1 ? "A checkpoint was" : `${this.failures} checkpoints were`;
    return [`${count} not saved, the last one ${this.newestFailure}.`];
  }

  /** Waits until nothing is being written. */
  async settle(): Promise<void> {
    await this.writing;
  }

  /** Where to go on from after the run has broken off, in words; "" when nothing is saved. */
  hint(): string {
    if (!this.last) return "";
    return `Step ${this.last.step} is saved in ${this.last.folder}: the same call with resume: true goes on from there.`;
  }

  /** For the progress bar. */
  note(): string {
    if (this.problem !== undefined) return this.problem;
    if (!this.last) return "";
    const bytes = [...this.last.files.values()].reduce((n, f) => n + f.bytes, 0);
    return `step ${this.last.step} (${formatBytes(bytes)})`;
  }
}
