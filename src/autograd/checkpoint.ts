import { endForward, replay, resetReplay } from "../tensor/lifetime.js";
import { clone } from "../tensor/ops/layout.js";
import { randomState, restoreRandomState } from "../tensor/ops/random.js";
import { isRecording, noGrad, withGrad } from "../tensor/record.js";
import { scope, thisScope } from "../tensor/scope.js";
import { type Tensor, view } from "../tensor/tensor.js";
import { movable, Offloaded } from "./offload.js";
import { recordApart, recordEntry, spread, takeAdjoint } from "./tape.js";

/**
 * What of a forward pass is kept for the backward pass. "none": everything. "selective": all but what is cheap to make again (outputs of norms
 * and of SwiGLU) and what no gradient needs. "full": each block's input alone, its forward pass is run again (Chen et al. 2016). "offload": as
 * full, with the blocks' inputs in host memory; on the CPU, whose memory that is, it equals full.
 */
export type Checkpointing = "none" | "selective" | "full" | "offload";
export const CHECKPOINTING: readonly Checkpointing[] = ["none", "selective", "full", "offload"];

const DEFAULT: Checkpointing = "selective";
let mode: Checkpointing = DEFAULT;
/** What the last checkpointed part of this forward pass has put into host memory. */
let offloaded: readonly Offloaded[] = [];

/** Runs a synchronous function, a forward and backward pass, in a mode of checkpointing; "selective" holds outside of it. */
export function withCheckpointing<T>(wanted: Checkpointing, fn: () => T): T {
  const outer = mode;
  mode = wanted;
  offloaded = [];
  try {
    return fn();
  } finally {
    mode = outer;
    offloaded = [];
  }
}

/** Whether a mode runs parts of the model again in the backward pass. */
export function runsAgain(checkpointing: Checkpointing): boolean {
  return checkpointing === "full" || checkpointing === "offload";
}

/** Whether parts of the model run again in the backward pass of this step. */
export function recomputing(): boolean {
  return runsAgain(mode);
}

/** Forgets the mode that is set: an interrupted cell skips `finally`. */
export function resetCheckpointing(): void {
  mode = DEFAULT;
  offloaded = [];
  resetReplay();
}

/**
 * Says that the forward pass is done with tensors that it has made. What no recorded operation reads is freed, what can be made again is freed
 * until the backward pass reads it, the rest stays. Tensors of `keep` (results, a module's inputs) are left alone even if they are named: a
 * module may hand back what it was given.
 */
export function discard(tensors: readonly (Tensor | undefined)[], keep: readonly Tensor[] = []): void {
  if (mode === "none") return;
  for (const t of tensors) {
    // Parameters and whatever else outlives the step stand outside of its scope.
    if (!t?.scoped || keep.includes(t)) continue;
    endForward(t);
  }
}

/**
 * Says that the forward pass will not read a tensor for a while, or not at all: one that can be made again is freed until somebody reads it.
 * A module may say so of what it was given, when what it has made of it takes much memory.
 */
export function rest(t: Tensor): void {
  if (mode !== "none" && t.scoped) t.forget();
}

/**
 * Runs a part of a model, in the modes "full" and "offload" without keeping what it makes: the backward pass runs `fn` again, with the same
 * random numbers. `fn` must give the same results for the same inputs; all tensors that need gradients must be inputs or parameters of modules.
 *
 * @example [h, normed] = checkpoint((h, normed) => block.forward(h, normed), [h, normed]);
 */
export function checkpoint<Out extends readonly Tensor[]>(
  fn: (...inputs: Tensor[]) => Out,
  inputs: readonly Tensor[],
): Out {
  if (!recomputing() || !isRecording()) return fn(...inputs);
  const random = randomState();
  let recorded = false;
  const before = offloaded;
  const moved = mode === "offload" ? inputs.filter(movable).map((t) => new Offloaded(t)) : []; // beside the part's work
  const outputs = scope(() => {
    const { result, entries } = recordApart(() => replay(() => ownResults(fn(...inputs), inputs), false));
    recorded = entries.length > 0;
    for (const { reads } of entries) for (const t of reads) t.readers--; // these will not be gone through
    return result;
  });
  for (const each of moved) each.leave();
  if (!recorded) return outputs;
  offloaded = moved;
  for (const t of inputs) t.readers++;
  recordEntry({
    op: "checkpoint",
    inputs,
    outputs,
    saved: [],
    reads: inputs,
    whole: true,
    backward: (...grads) => {
      for (const { tensor } of moved) void tensor.handle;
      const here = thisScope();
      return gradientsAgain(fn, inputs, grads, random, () => {
        // The input of the part before comes back while this one's gradients are made.
        for (const each of before) here(() => each.fetch());
      });
    },
  });
  return outputs;
}

/** Says that no further part follows before the backward pass: what its first step needs starts to come back from host memory. */
export function endParts(): void {
  for (const each of offloaded) each.fetch();
}

/** Runs the part once more, recorded, calls `then`, and spreads the gradients of its results to copies of its inputs. */
function gradientsAgain(
  fn: (...inputs: Tensor[]) => readonly Tensor[],
  inputs: readonly Tensor[],
  grads: readonly (Tensor | undefined)[],
  random: ReturnType<typeof randomState>,
  then: () => void,
): (Tensor | undefined)[] {
  return scope(() => {
    const views = inputs.map(standIn);
    const after = randomState();
    restoreRandomState(random);
    const { result, entries } = recordApart(() => withGrad(() => replay(() => ownResults(fn(...views), views))));
    restoreRandomState(after);
    discard([...views, ...result]); // read by gradients alone from here on
    then();
    noGrad(() => spread(entries, result, grads));
    return views.map(takeAdjoint);
  });
}

/** A view of a part's input, whose own gradient is still being summed up. What can be made again can be so in the view's place. */
function standIn(t: Tensor): Tensor {
  const again = (): Tensor => {
    const v = view(t, t.shape);
    if (t.from) t.forget(); // the view keeps the memory
    return v;
  };
  const remake = t.from && again;
  return Object.assign(again(), { requiresGrad: t.requiresGrad, leaf: false, remake });
}

/** A result that is one of the inputs, or a parameter, becomes a tensor of its own. */
function ownResults<Out extends readonly Tensor[]>(outputs: Out, inputs: readonly Tensor[]): Out {
  return outputs.map((o) => (inputs.includes(o) || !o.scoped ? clone(o) : o)) as readonly Tensor[] as Out;
}
