import { StateError } from "../errors.js";
import { free, type Handle } from "./native.js";
import type { Tensor } from "./tensor.js";

/** Tensors made since the innermost scope began; `undefined` outside every scope. */
let current: Tensor[] | undefined;

// Outside every scope nothing frees a tensor but dispose(): a collected one is freed late, and counted so that leaks can be reported.
let collected = 0;
const registry = new FinalizationRegistry<Handle>((handle) => {
  collected++;
  free(handle);
});

/** How many tensors were never disposed and had to be freed by the garbage collector. */
export function leakedTensors(): number {
  return collected;
}

let watched: Tensor[] | undefined;

/** Remembers every tensor made from now on until `end()`, which disposes those that are left: a dry run's have no memory behind them. @internal */
export function watchTensors(): { end(): void } {
  const outer = watched;
  const mine: Tensor[] = [];
  watched = mine;
  return {
    end(): void {
      watched = outer;
      for (const t of mine) t.dispose();
    },
  };
}

/** Enters a new tensor into the scope that is open (true), or the leak watch (false). */
export function track(tensor: Tensor, handle: Handle): boolean {
  watched?.push(tensor);
  if (current !== undefined) {
    current.push(tensor);
    return true;
  }
  if (handle !== 0) registry.register(tensor, handle, tensor);
  return false;
}

/** The tensor was disposed by hand. */
export function untrack(tensor: Tensor): void {
  if (!tensor.scoped) registry.unregister(tensor);
}

/** Whether a scope is open. */
export function inScope(): boolean {
  return current !== undefined;
}

/** Runs `fn` so that the tensors it makes belong to no scope: parameters, caches, optimizer state. */
export function outsideScope<T>(fn: () => T): T {
  return within(undefined, fn);
}

/** A function that runs others so that the tensors they make belong to the scope that is open now. */
export function thisScope(): <T>(fn: () => T) => T {
  const mine = current;
  return (fn) => within(mine, fn);
}

function within<T>(tensors: Tensor[] | undefined, fn: () => T): T {
  const outer = current;
  current = tensors;
  try {
    return fn();
  } finally {
    current = outer;
  }
}

/**
 * Runs a synchronous function and frees every tensor made in it, but those found in what it returns (a tensor, or arrays and plain objects of them).
 * @throws StateError when `fn` returns a promise: two overlapping asynchronous scopes would free each other's tensors; use `new Scope()` there.
 */
export function scope<T>(fn: () => T): T {
  const outer = current;
  const mine: Tensor[] = [];
  current = mine;
  let kept: Set<unknown> | undefined;
  try {
    const result = fn();
    if (result instanceof Promise) {
      throw new StateError(
        "scope(fn): expected a synchronous function, received a promise; use new Scope() and dispose() around await.",
      );
    }
    if (result !== undefined && result !== null && typeof result === "object") {
      kept = new Set();
      collect(result, kept, 0);
    }
    return result;
  } finally {
    current = outer;
    release(mine, kept);
  }
}

/** Forgets open scopes without freeing: an interrupted cell skips `finally`. Their tensors are freed. */
export function resetScopes(): void {
  const mine = current;
  current = undefined;
  if (mine) for (const t of mine) t.dispose();
}

function release(tensors: Tensor[], kept: Set<unknown> | undefined): void {
  for (const t of tensors) {
    if (t.disposed) continue;
    if (kept?.has(t)) t.rescope();
    else t.dispose();
  }
}

function collect(value: unknown, into: Set<unknown>, depth: number): void {
  if (value === null || typeof value !== "object" || into.has(value) || depth > 8) return;
  into.add(value);
  if ("handle" in value && "shape" in value) return;
  const values = Array.isArray(value) ? value : Object.values(value);
  for (const v of values) collect(v, into, depth + 1);
}

/** An explicit scope for asynchronous code: `run` collects what its synchronous parts make, `dispose` frees it. */
export class Scope implements Disposable {
  private readonly tensors: Tensor[] = [];

  /** Runs a synchronous part; its tensors live until `dispose()`. */
  run<T>(fn: () => T): T {
    return within(this.tensors, fn);
  }

  /** Frees everything made in `run`. */
  dispose(): void {
    for (const t of this.tensors.splice(0)) t.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
