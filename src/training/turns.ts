/** Who may use a model when one of its training runs is under way, or is ending. */
import { resetTape } from "../autograd/tape.js";
import { interruptible } from "../display/host.js";
import { StateError } from "../errors.js";
import { recover, state } from "../tensor/native.js";

/** What is asked of a run. */
export interface Turn {
  /** Whether it has ended. */
  readonly over: boolean;
  /** Whether it was interrupted or has failed, and will take no further step; the state may still be on its way to the disk. */
  readonly ending: boolean;
  /** Fulfilled when it has ended, however. */
  readonly end: Promise<void>;
}

const PATIENCE = 60_000; // ms; a run that the kernel has stopped in the middle of a loop never ends

/** The runs of one model, one at a time: who comes while one is ending waits, who comes while one goes on is refused. */
export class Turns<Run extends Turn> {
  private run: Run | undefined;
  private beginning: Promise<void> | undefined; // of a run that waits for the one before
  private readonly patience: number;

  constructor(patience: number = PATIENCE) {
    this.patience = patience;
  }

  /** @throws StateError while there is a run, for what cannot wait. */
  require(what: string): void {
    if (this.run) throw refusal(what, this.run);
  }

  /**
   * Waits for a run that is ending; `undefined` when there is nothing to wait for: calls that compute at once go on doing so.
   *
   * @throws StateError, at once, while a run goes on.
   */
  idle(what: string): Promise<void> | undefined {
    if (!this.run) return undefined;
    if (!this.run.ending) throw refusal(what, this.run);
    return this.left(what, this.run).then(() => this.idle(what));
  }

  /**
   * Clears what an interrupted or failed call left behind, as soon as a run that is ending has ended; `undefined` when that is done already. Beside a run
   * that goes on it does nothing.
   */
  ready(what: string): Promise<void> | undefined {
    if (this.run?.ending) return this.left(what, this.run).then(() => this.ready(what));
    if (this.run) return this.beginning?.then(() => this.ready(what));
    clear();
    return undefined;
  }

  /**
   * Takes the next run in. What `make` makes must await `ready()` before it does anything, and call `over()` when it has ended, which says whether it was the
   * newest.
   *
   * @throws StateError while one goes on.
   */
  begin(make: (ready: () => Promise<void>, over: () => boolean) => Run): Run {
    const before = this.run;
    if (before && !before.ending) throw refusal("train", before);
    const ready = (): Promise<void> => {
      const begun = this.after(before);
      const done = (): void => {
        if (this.beginning === beginning) this.beginning = undefined;
      };
      const beginning = begun.then(done, done);
      if (before) this.beginning = beginning;
      return begun;
    };
    const over = (): boolean => {
      if (this.run !== run) return false;
      this.run = before?.over === false ? before : undefined; // it has given up waiting
      return true;
    };
    const run = make(ready, over);
    this.run = run;
    return run;
  }

  private left(what: string, run: Run): Promise<void> {
    return interruptible(this.ended(what, run), "the end of a training run");
  }

  // Not given up for an interrupt: the run that waits here keeps others from beginning.
  private async after(before: Run | undefined): Promise<void> {
    if (before && !before.over) await this.ended("train", before);
    clear();
  }

  private async ended(what: string, run: Run): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(refusal(what, run)), this.patience);
    });
    try {
      await Promise.race([run.end, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

function refusal(what: string, { ending }: Turn): StateError {
  return new StateError(
    ending
      ? `${what}: a training run of this model is ending, after an interrupt or an error; await it, or load the model anew if it never ends.`
      : `${what}: a training run of this model is under way; await it, or stop it with run.stop().`,
  );
}

function clear(): void {
  if (state() !== "running") recover();
  resetTape();
}
