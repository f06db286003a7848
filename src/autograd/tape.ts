import { ShapeError, StateError } from "../errors.js";
import { wasRead } from "../tensor/lifetime.js";
import { addScaled, fill } from "../tensor/ops/elementwise.js";
import { cast, clone, inDType } from "../tensor/ops/layout.js";
import { noGrad, type Recorder, setRecorder, type TapeEntry } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { sameShape, shapeText } from "../tensor/shape.js";
import { activationDType, activationLike, type Tensor } from "../tensor/tensor.js";

/** Operations in the order they ran. Reverse order is a valid order for gradients, so no graph is sorted. */
class Tape implements Recorder {
  entries: TapeEntry[] = [];

  record(entry: TapeEntry): void {
    this.entries.push(entry);
  }
}

const tape = new Tape();
setRecorder(tape);

/** Number of recorded operations that no `backward()` has used yet. */
export function tapeLength(): number {
  return tape.entries.length;
}

/** Forgets what was recorded: after an interrupt, or when a loss is not needed after all. */
export function resetTape(): void {
  tape.entries = [];
}

/** Runs a function whose operations go on a tape of their own. */
export function recordApart<T>(fn: () => T): { result: T; entries: TapeEntry[] } {
  const outer = tape.entries;
  const entries: TapeEntry[] = [];
  tape.entries = entries;
  try {
    return { result: fn(), entries };
  } finally {
    tape.entries = outer;
  }
}

/** Puts an operation on the tape whose outputs are known to need gradients. */
export function recordEntry(entry: TapeEntry): void {
  tape.record(entry);
}

/**
 * Uses up the entries of `recordApart`: spreads gradients of several results, which it takes over, to everything that they depend on. Gradients of
 * results of other tapes are left in their `adjoint`.
 */
export function spread(
  entries: TapeEntry[],
  results: readonly Tensor[],
  gradients: readonly (Tensor | undefined)[],
): void {
  results.forEach((result, i) => {
    const gradient = gradients[i];
    if (!gradient) return;
    if (result.requiresGrad) result.adjoint = gradient;
    else release(gradient);
  });
  runBackward(entries);
}

/** Takes the gradient that `spread` has left at a tensor; the caller frees it. */
export function takeAdjoint(t: Tensor): Tensor | undefined {
  const { adjoint } = t;
  t.adjoint = undefined;
  if (adjoint) adjoint.holders--;
  return adjoint;
}

/**
 * Gradients of `loss` (one element) for every leaf that needs one, added to `leaf.grad`. The tape is used up and what only it held is
 * freed on the way: results of recorded operations cannot be read afterwards, but `loss` itself and clones can.
 * @param gradient what stands for dloss/dloss, 1 by default.
 */
export function backward(loss: Tensor, gradient?: Tensor): void {
  if (loss.size !== 1 && !gradient)
    throw new ShapeError(`backward(): expected a loss of one element, received shape ${shapeText(loss.shape)}.`);
  if (!loss.requiresGrad) {
    throw new StateError(
      "backward(): the loss depends on no tensor that needs a gradient: set requiresGrad, or add adapters before training.",
    );
  }
  const entries = tape.entries;
  if (!entries.findLast((e) => e.outputs.includes(loss))) {
    throw new StateError(
      "backward(): the operations that led to this loss are not recorded any more: an earlier backward() has used them up. Compute the loss anew, or add up the losses and call backward() once.",
    );
  }
  tape.entries = [];
  loss.readers++; // keeps its elements
  noGrad(() => {
    loss.adjoint = hold(gradient ?? fill(activationLike(loss), 1));
    runBackward(entries, loss);
  });
  loss.readers--;
}

/** Walks entries in reverse, spreading every output's gradient to the inputs. `keep` is not freed. */
function runBackward(entries: TapeEntry[], keep?: Tensor): void {
  for (let i = entries.length - 1; i >= 0; i--) {
    const entry = entries[i]!;
    entries.length = i;
    const { outputs, whole } = entry;
    if (outputs.some((o) => o.adjoint)) {
      for (const o of outputs) if (o.readers === 0) o.dispose(); // nor will this backward pass read it
      if (!whole) for (const o of outputs) o.adjoint ??= hold(fill(activationLike(o), 0));
      const results = entry.backward(...(outputs.map((o) => o.adjoint) as Tensor[]));
      entry.inputs.forEach((input, j) => {
        const grad = results[j];
        if (grad && input?.requiresGrad) give(input, grad);
      });
      for (const g of results) if (g && g.holders === 0) g.dispose();
      for (const o of outputs) {
        if (o.adjoint && !whole) release(o.adjoint);
        o.adjoint = undefined;
      }
    }
    for (const t of entry.reads) wasRead(t);
    for (const o of outputs) if (o !== keep) o.dispose();
    for (const s of entry.saved) s.dispose();
  }
}

// An operation may pass one gradient on to several inputs (a residual, y = a + a): it is freed when the last holder is done with it.
function hold(gradient: Tensor): Tensor {
  gradient.holders++;
  return gradient;
}

function release(gradient: Tensor): void {
  if (--gradient.holders <= 0) gradient.dispose();
}

function give(input: Tensor, gradient: Tensor): void {
  if (!sameShape(input.shape, gradient.shape)) {
    throw new ShapeError(
      `A gradient of shape ${shapeText(gradient.shape)} came for a tensor of shape ${shapeText(input.shape)}.`,
    );
  }
  if (input.leaf) {
    // Sums over micro-batches are made in float32.
    if (input.grad) addScaled(input.grad, gradient);
    else input.grad = outsideScope(() => (gradient.dtype === "float32" ? clone(gradient) : cast(gradient, "float32")));
    return;
  }
  const before = input.adjoint;
  if (!before) {
    input.adjoint = hold(inDType(gradient, activationDType(input)));
    return;
  }
  // Add in place only where nobody else reads that memory.
  if (before.holders === 1 && !before.aliased) {
    addScaled(before, gradient);
    return;
  }
  const sum = clone(before);
  addScaled(sum, gradient);
  input.adjoint = hold(sum);
  release(before);
}
