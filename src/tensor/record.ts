import { StateError } from "../errors.js";
import type { Tensor } from "./tensor.js";

/**
 * Gradients of an operation's inputs from the gradients of its outputs; `undefined` where none is needed or where the function has
 * already added it to a leaf's `grad` (see `leafGradient`).
 */
export type Backward = (...outputGrads: Tensor[]) => readonly (Tensor | undefined)[];

/** One recorded operation. `saved` are tensors that only its backward pass needs: they are freed after it. */
export interface TapeEntry {
  readonly op: string;
  readonly inputs: readonly (Tensor | undefined)[];
  readonly outputs: readonly Tensor[];
  readonly saved: readonly Tensor[];
  /** Inputs and outputs whose elements `backward` reads. */
  readonly reads: readonly Tensor[];
  readonly backward: Backward;
  /**
   * Whether `backward` goes through a tape of its own (`spread`): it takes the outputs' gradients over, and `undefined` where none has come. Others get
   * zeros there, and their gradients are freed for them.
   */
  readonly whole?: boolean;
}

/** What autograd installs here; the tensor layer only knows that someone may be listening. */
export interface Recorder {
  record(entry: TapeEntry): void;
}

let recorder: Recorder | undefined;
let paused = 0;

/** Installs the listener (autograd's tape). */
export function setRecorder(r: Recorder | undefined): void {
  recorder = r;
}

/** Runs a synchronous function without recording: its results need no gradient. */
export function noGrad<T>(fn: () => T): T {
  paused++;
  try {
    return fn();
  } finally {
    paused--;
  }
}

/** Runs a synchronous function with recording on, inside `noGrad` too: what a backward pass computes anew must be recorded. */
export function withGrad<T>(fn: () => T): T {
  const outer = paused;
  paused = 0;
  try {
    return fn();
  } finally {
    paused = outer;
  }
}

/**
 * Says how to make the elements of `y` again, so that a backward pass can do without its memory until it reads them. `from` are the tensors
 * that `remake` reads.
 */
export function recomputable(y: Tensor, from: readonly Tensor[], remake: () => Tensor): void {
  if (!isRecording()) return;
  for (const t of from) t.readers++;
  y.remake = remake;
  y.from = from;
}

/** Forgets open `noGrad` sections: an interrupted cell skips `finally`. */
export function resetRecording(): void {
  paused = 0;
}

/** Whether operations are being recorded now. */
export function isRecording(): boolean {
  return paused === 0 && recorder !== undefined;
}

/**
 * Marks outputs as results of a differentiable operation. `backward` must be given: "none" says that the operation has no gradient,
 * and recording it (an input needs a gradient) throws, so that no fused operation can drop a gradient silently.
 * @param reads the inputs and outputs whose elements `backward` reads, all of them unless given: memory of others can be freed before it
 * (see `discard`). `saved` need not be named.
 */
export function record(
  op: string,
  inputs: readonly (Tensor | undefined)[],
  outputs: readonly Tensor[],
  backward: Backward | "none",
  saved: readonly Tensor[] = [],
  reads?: readonly (Tensor | undefined)[],
): void {
  if (paused !== 0 || recorder === undefined) return;
  let needed = false;
  for (const t of inputs) {
    if (t?.requiresGrad) {
      needed = true;
      break;
    }
  }
  if (!needed) return;
  if (backward === "none") {
    throw new StateError(
      `${op} has no gradient, but an input needs one: call it inside noGrad(…), or on a detached tensor (x.detach()).`,
    );
  }
  for (const t of outputs) {
    t.requiresGrad = true;
    t.leaf = false;
  }
  const read = (reads ?? [...inputs, ...outputs]).filter((t) => t !== undefined);
  for (const t of read) t.readers++;
  recorder.record({ op, inputs, outputs, saved, reads: read, backward });
}
