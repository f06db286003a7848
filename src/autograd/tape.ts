import { ShapeError, StateError } from "../errors.js";
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
 * Uses up the entries of `recordApart`: spreads gradients of several results, which stay the caller's, to everything that they depend on.
 * Gradients of results of other tapes are left in their `adjoint`.
 */
export function spread(
  entries: TapeEntry[],
  results: readonly Tensor[],
  gradients: readonly (Tensor | undefined)[],
): void {
  const holders = new Map<Tensor, number>();
  results.forEach((result, i) => {
    const gradient = gradients[i];
    if (!gradient || !result.requiresGrad) return;
    // Held twice: by the result, and by the caller, so that it is neither added to in place nor freed.
    if (!holders.has(gradient)) hold(holders, gradient);
    result.adjoint = hold(holders, gradient);
  });
  runBackward(entries, holders);
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
  tape.entries = [];
  noGrad(() => {
    loss.adjoint = gradient ?? fill(activationLike(loss), 1);
    const holders = new Map<Tensor, number>();
    hold(holders, loss.adjoint);
    runBackward(entries, holders, loss);
  });
}

/** Walks entries in reverse, spreading every output's gradient to the inputs. `keep` is not freed. */
function runBackward(entries: TapeEntry[], holders: Map<Tensor, number>, keep?: Tensor): void {
  for (let i = entries.length - 1; i >= 0; i--) {
    const entry = entries[i]!;
    entries.length = i;
    if (entry.outputs.some((o) => o.adjoint)) {
      const grads = entry.outputs.map(
        (o) => o.adjoint ?? (entry.partial ? undefined : hold(holders, fill(activationLike(o), 0))),
      );
      const results = entry.backward(...(grads as Tensor[]));
      entry.inputs.forEach((input, j) => {
        const grad = results[j];
        if (grad && input?.requiresGrad) give(holders, input, grad);
      });
      for (const g of results) if (g && !holders.has(g)) g.dispose();
      for (const g of grads) if (g) release(holders, g);
    }
    for (const t of entry.reads) if (t !== keep) t.wasRead();
    for (const o of entry.outputs) {
      o.adjoint = undefined;
      if (o !== keep) o.dispose();
    }
    for (const s of entry.saved) s.dispose();
  }
}

// An operation may pass one gradient on to several inputs (a residual, y = a + a): it is freed when the last holder is done with it.
function hold(holders: Map<Tensor, number>, gradient: Tensor): Tensor {
  holders.set(gradient, (holders.get(gradient) ?? 0) + 1);
  return gradient;
}

function release(holders: Map<Tensor, number>, gradient: Tensor): void {
  const left = (holders.get(gradient) ?? 0) - 1;
  if (left > 0) holders.set(gradient, left);
  else {
    holders.delete(gradient);
    gradient.dispose();
  }
}

function give(holders: Map<Tensor, number>, input: Tensor, gradient: Tensor): void {
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
    input.adjoint = hold(holders, inDType(gradient, activationDType(input)));
    return;
  }
  // Add in place only where nobody else reads that memory.
  if (holders.get(before) === 1 && !before.aliased) {
    addScaled(before, gradient);
    return;
  }
  const sum = clone(before);
  addScaled(sum, gradient);
  input.adjoint = hold(holders, sum);
  release(holders, before);
}
