import { activationDType, Tensor } from "./tensor.js";

// How long the results of recorded operations live: until the last backward pass that reads their elements has run. `readers` counts those passes and
// the tensors that are made again from it; a tensor that was disposed keeps its shape, its dtype and its place in the graph.

/** The forward pass is done with it: it is freed now, or by its last reader. What can be made again is freed until it is read. */
export function endForward(t: Tensor): void {
  t.done = true;
  if (t.readers > 0) t.forget();
  else t.dispose();
}

/** The backward pass of one of its readers has run, or will never run. */
export function wasRead(t: Tensor): void {
  t.readers--;
  // Nobody can ask for a recorded operation's result after the backward pass; a leaf may be the user's.
  if (!t.leaf) t.done = true;
  if (t.readers > 0) return;
  if (t.done) t.dispose();
  else t.forget();
}

/** A reader says in the middle of its backward pass that it needs the elements no more: they are freed already if it is the last one. */
export function endReading(t: Tensor): void {
  if (!lastOf(t)) return;
  if (t.leaf) t.forget();
  else t.dispose();
}

/**
 * The memory of an operation's input as a new tensor, where the operation is its last reader and may write over it.
 * @param own how many of its readers belong to the operation.
 */
export function handOver(t: Tensor, own = 1): Tensor | undefined {
  if (t.leaf || t.aliased || !lastOf(t, own)) return undefined;
  const { shape, dtype } = t;
  return new Tensor(t.surrender(), shape, dtype);
}

/**
 * Leaves what a reader of x does with its elements in a backward pass to the one of x's own operation, which follows and makes them on its way: where they are
 * not there now and nobody else reads them. False: nothing was left to it.
 */
export function leaveToMaker(x: Tensor, use: (elements: Tensor) => void): boolean {
  if (!x.madeAgain || x.held || !x.requiresGrad || !lastOf(x)) return false;
  x.awaited = use;
  return true;
}

/** Whether the last reader of the elements of a recorded operation's input is asking. */
function lastOf(t: Tensor, own = 1): boolean {
  return t.readers === own && !t.disposed;
}

let replaying = false;

/**
 * Runs a forward pass again whose results nobody may need: operations that ask `isReplaying()` compute theirs when they are first read. Off: one
 * whose intermediate results are freed at its end.
 */
export function replay<T>(fn: () => T, on = true): T {
  const outer = replaying;
  replaying = on;
  try {
    return fn();
  } finally {
    replaying = outer;
  }
}

/** Whether a forward pass runs again for its gradients' sake. */
export function isReplaying(): boolean {
  return replaying;
}

/** Forgets an open `replay`: an interrupted cell skips `finally`. */
export function resetReplay(): void {
  replaying = false;
}

/** An activation made from x whose elements are not there yet: `remake` must be set. */
export function unmade(x: Tensor, shape: readonly number[]): Tensor {
  const y = new Tensor(0, shape, activationDType(x));
  y.place = x.place;
  y.rescope();
  return y;
}

/** What `make` gives, an activation of a shape made from x; in a `replay` it is made, once, when somebody reads it. */
export function whenRead(x: Tensor, shape: readonly number[], make: () => Tensor): Tensor {
  if (!replaying) return make();
  const y = unmade(x, shape);
  x.readers++;
  y.from = [x];
  (x.waiting ??= []).push(y);
  y.remake = () => {
    const made = make();
    y.remake = undefined;
    y.from = undefined;
    if (--x.readers === 0 && x.done) x.dispose();
    return made;
  };
  return y;
}

/** Makes what still waits for x, which its owner frees in the middle of a forward pass. */
export function makeWaiting(x: Tensor): void {
  const { waiting } = x;
  x.waiting = undefined;
  if (replaying && waiting) for (const y of waiting) if (!y.disposed) void y.handle;
}
