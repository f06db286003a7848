import { syncBuiltinESMExports } from "node:module";
import timers from "node:timers";
import promises from "node:timers/promises";
import { promisify } from "node:util";

import { contexts } from "./context.js";

/** What the timers need to know about the cell that creates them. */
export interface TimerOwner {
  /** Timers that an interrupt of the cell takes away. */
  readonly timers: Set<NodeJS.Timeout | NodeJS.Immediate>;
  /** Aborted by an interrupt. */
  signal(): AbortSignal;
}

type Callback = (...args: unknown[]) => void;

/** The timers as Node made them, for the executor's own use. */
export const native: {
  setTimeout: typeof setTimeout;
  clearTimeout: typeof clearTimeout;
  setImmediate: typeof setImmediate;
} = {
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setImmediate: globalThis.setImmediate,
};

/**
 * Replaces the global timers and those of `node:timers`, `node:timers/promises`:
 * - callbacks run from a microtask, because stopping one inside Node 20's own timer loop aborts the process;
 * - each timer belongs to the running cell, and goes with it when it is interrupted.
 */
export function installTimers(owner: () => TimerOwner | undefined): void {
  const { setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate } = globalThis;
  const owners = new WeakMap<object, TimerOwner>();

  const forget = (timer: NodeJS.Timeout | NodeJS.Immediate): void => {
    owners.get(timer)?.timers.delete(timer);
  };
  const start = <T extends NodeJS.Timeout | NodeJS.Immediate>(
    create: (run: () => void) => T,
    callback: Callback,
    args: unknown[],
    once: boolean,
  ): T => {
    if (typeof callback !== "function") return create(callback as never);
    const whose = contexts.now;
    const timer = create(() => {
      if (once) forget(timer);
      queueMicrotask(() => contexts.run(whose, () => Reflect.apply(callback, timer, args)));
    });
    const cell = owner();
    if (cell !== undefined) {
      owners.set(timer, cell);
      cell.timers.add(timer);
    }
    return timer;
  };
  const clearing =
    (clear: (timer: never) => void) =>
    (timer: unknown): void => {
      if (typeof timer === "object" && timer !== null) forget(timer as NodeJS.Timeout);
      clear(timer as never);
    };

  const patched = {
    setTimeout: (callback: Callback, ms?: number, ...args: unknown[]) =>
      start((run) => setTimeout(run, ms), callback, args, true),
    setInterval: (callback: Callback, ms?: number, ...args: unknown[]) =>
      start((run) => setInterval(run, ms), callback, args, false),
    setImmediate: (callback: Callback, ...args: unknown[]) => start((run) => setImmediate(run), callback, args, true),
    clearTimeout: clearing(clearTimeout),
    clearInterval: clearing(clearInterval),
    clearImmediate: clearing(clearImmediate),
  };

  // The promised timers take the cell's signal, so that an interrupt rejects them where they are awaited.
  const withSignal = <O extends { signal?: AbortSignal | undefined }>(options: O | undefined): O | undefined => {
    const cell = owner();
    if (cell === undefined) return options;
    const signal = options?.signal ? AbortSignal.any([options.signal, cell.signal()]) : cell.signal();
    return { ...options, signal } as O;
  };
  const slept = { timeout: promises.setTimeout, immediate: promises.setImmediate };
  promises.setTimeout = (<T>(ms?: number, value?: T, options?: timers.TimerOptions) =>
    unwrapped(slept.timeout(ms, value, withSignal(options)), options)) as typeof promises.setTimeout;
  promises.setImmediate = (<T>(value?: T, options?: timers.TimerOptions) =>
    unwrapped(slept.immediate(value, withSignal(options)), options)) as typeof promises.setImmediate;
  Object.defineProperty(patched.setTimeout, promisify.custom, { value: promises.setTimeout });
  Object.defineProperty(patched.setImmediate, promisify.custom, { value: promises.setImmediate });

  for (const [name, value] of Object.entries(patched)) {
    Object.defineProperty(value, "name", { value: name });
    Reflect.set(globalThis, name, value);
    Reflect.set(timers, name, value);
  }
  syncBuiltinESMExports();

  // Node wraps the reason of an abort in an AbortError; an interrupt's own error says more.
  function unwrapped<T>(promise: Promise<T>, options: { signal?: AbortSignal | undefined } | undefined): Promise<T> {
    return promise.catch((error: unknown) => {
      const cause = (error as { cause?: unknown }).cause;
      throw options?.signal === undefined && cause instanceof Error ? cause : error;
    });
  }
}

/** Gives `fetch` the running cell's signal beside the caller's. */
export function installFetch(owner: () => TimerOwner | undefined): void {
  const original = globalThis.fetch;
  globalThis.fetch = function fetch(input, init) {
    const cell = owner();
    if (cell === undefined) return original(input, init);
    const own = init?.signal ?? (input instanceof Request ? input.signal : undefined);
    const signal = own ? AbortSignal.any([own, cell.signal()]) : cell.signal();
    return original(input, { ...init, signal });
  };
}
