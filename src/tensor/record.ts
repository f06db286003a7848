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
  readonly backward: Backward;
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
 */
export function record(
  op: string,
  inputs: readonly (Tensor | undefined)[],
  outputs: readonly Tensor[],
  backward: Backward | "none",
  saved: readonly Tensor[] = [],
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
  recorder.record({ op, inputs, outputs, saved, backward });
}
