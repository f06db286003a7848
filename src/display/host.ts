/**
 * The meeting point with a kernel. Library and kernel never import each other: they find one another through global
 * symbols, so the same code works in tunebook's kernel, in other TypeScript kernels and in plain Node.
 */
import { InterruptedError } from "../errors.js";

/** What a front end may show: MIME type → text, base64 text (images), or a JSON object. */
export type MimeBundle = Record<string, string | object>;

/** A method under this symbol makes any object displayable; Deno's kernel uses the same name. */
export const displaySymbol: unique symbol = Symbol.for("Jupyter.display") as never;
/** Node's own symbol for what `console.log` prints. */
export const inspectSymbol: unique symbol = Symbol.for("nodejs.util.inspect.custom") as never;

const publishSymbol = Symbol.for("tunebook.publish/1");
const interruptSymbol = Symbol.for("tunebook.interrupt/1");

/** An object that says how it is shown. */
export interface Displayable {
  [displaySymbol](): MimeBundle | Promise<MimeBundle>;
}

/**
 * Gives a class its display in notebooks and its text in terminals. (As a function, since classes with methods under
 * symbols cannot be declared file by file.)
 */
export function defineDisplay<T extends object>(
  type: { readonly prototype: T },
  bundle: (value: T) => MimeBundle | Promise<MimeBundle>,
  text: (value: T) => string,
): void {
  const method = (value: (self: T) => unknown): PropertyDescriptor => ({
    configurable: true,
    writable: true,
    value(this: T) {
      return value(this);
    },
  });
  Object.defineProperty(type.prototype, displaySymbol, method(bundle));
  Object.defineProperty(type.prototype, inspectSymbol, method(text));
}

/** Options of one publication. `cell` is a token from {@link Publisher.cell}: late output lands under its own cell. */
export interface PublishOptions {
  id?: string;
  update?: boolean;
  metadata?: object;
  cell?: unknown;
}

/** What a kernel offers for output. */
export interface Publisher {
  publish(bundle: MimeBundle, options?: PublishOptions): void;
  clear(wait?: boolean): void;
  cell(): unknown;
  /** Keeps the cell from being reported as done until this output is made. Kernels may leave it out. */
  hold?(work: Promise<unknown>, cell?: unknown): void;
}

/** What a kernel offers for interrupts. `flag[0]` is 1 while the running cell is interrupted, `flag[1]` counts work that is not to be stopped. */
export interface InterruptHost {
  flag: Int32Array;
  /** Of the cell that calls; "running": of the one that runs now, where the stack says nothing (`await` calls a `then` by itself). */
  signal(which?: "running"): AbortSignal;
  /** Calls back after an interrupt that may have skipped `finally` blocks. Kernels may leave it out. */
  onReset?(callback: () => void): () => void;
  /** Says that work of a cell goes on after it and heeds the cell's signal. Kernels may leave it out. */
  beside?(work: Promise<unknown>, cell?: unknown): void;
}

const registry = globalThis as unknown as Record<symbol, unknown>;

/** The kernel's output side, or undefined in plain Node. */
export function publisher(): Publisher | undefined {
  return registry[publishSymbol] as Publisher | undefined;
}

/** The kernel's interrupt side, or undefined in plain Node. */
export function interruptHost(): InterruptHost | undefined {
  return registry[interruptSymbol] as InterruptHost | undefined;
}

/** Whether the running cell was interrupted or the caller's own signal was aborted. */
export function isInterrupted(signal?: AbortSignal): boolean {
  if (signal?.aborted) return true;
  const host = interruptHost();
  return host !== undefined && Atomics.load(host.flag, 0) !== 0;
}

/** Short work that a kernel lets end before it stops the thread: stopped in the middle, what waits for it would wait for ever. */
export function toItsEnd<T>(work: () => T): T {
  const flag = interruptHost()?.flag;
  if (flag === undefined || flag.length < 2) return work();
  Atomics.add(flag, 1, 1);
  try {
    return work();
  } finally {
    Atomics.sub(flag, 1, 1);
  }
}

/** @throws InterruptedError when {@link isInterrupted}; `what` says what was stopped. */
export function throwIfInterrupted(what: string, signal?: AbortSignal): void {
  if (!isInterrupted(signal)) return;
  const cause = signal?.aborted ? signal.reason : undefined;
  throw new InterruptedError(`${what} was interrupted`, cause === undefined ? undefined : { cause });
}

/** One signal that is aborted by the caller's own signal or by an interrupt of the cell running now. */
export function interruptSignal(signal?: AbortSignal): AbortSignal | undefined {
  const host = interruptHost();
  const parts = [signal, host?.signal()].filter((part) => part !== undefined);
  return parts.length < 2 ? parts[0] : AbortSignal.any(parts);
}

/**
 * The same promise, rejected as soon as the cell that awaits it is interrupted; the work behind it may go on.
 *
 * @param which "running" where `await` itself calls
 */
export async function interruptible<T>(work: Promise<T>, what: string, which?: "running"): Promise<T> {
  const signal = interruptHost()?.signal(which);
  if (signal === undefined) return work;
  let stop: (() => void) | undefined;
  const interrupted = new Promise<never>((_, reject) => {
    stop = () => reject(new InterruptedError(`Waiting for ${what} was interrupted`, { cause: signal.reason }));
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
  });
  try {
    return await Promise.race([work, interrupted]);
  } finally {
    if (stop) signal.removeEventListener("abort", stop);
  }
}

/** Whether an object says how it is shown. */
export function isDisplayable(value: unknown): value is Displayable {
  const kind = typeof value;
  if (value === null || (kind !== "object" && kind !== "function")) return false;
  return typeof (value as Record<symbol, unknown>)[displaySymbol] === "function";
}

let counter = 0;
const session = Math.random().toString(36).slice(2, 8);

/** A display id that no other display of this process has. */
export function newDisplayId(): string {
  counter += 1;
  return `tunebook-${process.pid}-${session}-${counter}`;
}
