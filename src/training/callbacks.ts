/** What a run calls while it goes on. */
import { ConfigError } from "../errors.js";
import type { TrainStep } from "./options.js";
import type { TrainResult } from "./run.js";

/** What a callback can do with the run that calls it. */
export interface RunControl {
  /** Ends the run after this step; the model keeps what it has learnt. */
  stop(): void;
  /** The steps taken before this one. */
  readonly steps: readonly TrainStep[];
}

/** What was saved. */
export interface SaveEvent {
  step: number;
  folder: string;
}

/** Functions called at a run's events; a promise is awaited, though not beyond an interrupt; an error ends the run. */
export interface TrainCallbacks {
  /** After each step. */
  onStep?(step: TrainStep, run: RunControl): unknown;
  /** After each measurement of the validation loss. */
  onEvaluate?(step: TrainStep & { validationLoss: number }, run: RunControl): unknown;
  /** After each save of the adapter or of a checkpoint. */
  onSave?(saved: SaveEvent, run: RunControl): unknown;
  /** At the end of a run that did not fail. */
  onEnd?(result: TrainResult, run: RunControl): unknown;
}

/** A function alone is called after each step. */
export type TrainCallback = TrainCallbacks | ((step: TrainStep, run: RunControl) => unknown);

const EVENTS: readonly string[] = ["onStep", "onEvaluate", "onSave", "onEnd"];

/** All callbacks of a run as one. */
export class Callbacks {
  readonly #all: readonly TrainCallbacks[];
  readonly #control: RunControl;
  readonly #signal: AbortSignal | undefined;

  constructor(given: readonly TrainCallback[], control: RunControl, signal?: AbortSignal) {
    this.#all = given.map((each) => (typeof each === "function" ? { onStep: each } : each));
    this.#control = control;
    this.#signal = signal;
  }

  async step(step: TrainStep): Promise<void> {
    for (const each of this.#all) await this.#done(each.onStep?.(step, this.#control));
    if (step.validationLoss === undefined) return;
    for (const each of this.#all)
      await this.#done(each.onEvaluate?.(step as TrainStep & { validationLoss: number }, this.#control));
  }

  async save(saved: SaveEvent): Promise<void> {
    for (const each of this.#all) await this.#done(each.onSave?.(saved, this.#control));
  }

  async end(result: TrainResult): Promise<void> {
    for (const each of this.#all) await this.#done(each.onEnd?.(result, this.#control));
  }

  // Until an interrupt: what a callback waits for may never come then (a kernel takes timers away), or may wait for the end of this run.
  async #done(given: unknown): Promise<void> {
    const signal = this.#signal;
    if (!signal) {
      await given;
      return;
    }
    let stop = (): void => {};
    const interrupted = new Promise<void>((resolve) => {
      stop = resolve;
      signal.addEventListener("abort", stop, { once: true });
      if (signal.aborted) resolve();
    });
    try {
      await Promise.race([given, interrupted]);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }
}

/** The option as a list. @throws ConfigError naming what is no callback. */
export function callbackList(given: TrainCallback | readonly TrainCallback[]): readonly TrainCallback[] {
  const list = Array.isArray(given) ? (given as readonly TrainCallback[]) : [given as TrainCallback];
  for (const each of list) {
    if (typeof each === "function") continue;
    const names = each !== null && typeof each === "object" ? methodsOf(each) : [];
    const unknown = names.filter((name) => !EVENTS.includes(name));
    if (names.length === 0 || unknown.length > 0)
      throw new ConfigError(
        `train: a callback must be a function, or an object with some of ${EVENTS.join(", ")}; received ${unknown.join(", ") || String(each)}.`,
      );
  }
  return list;
}

// Fields that start with "on", of an object or of its class: a class may keep what it likes beside them.
function methodsOf(each: object): string[] {
  const names = new Set<string>();
  for (let at = each; at && at !== Object.prototype; at = Object.getPrototypeOf(at) as object)
    for (const name of Object.getOwnPropertyNames(at)) if (/^on[A-Z]/.test(name)) names.add(name);
  return [...names];
}
