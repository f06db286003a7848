import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { DeviceError, InterruptedError, OutOfMemoryError, StateError } from "../errors.js";

/** A tensor's memory as the native side knows it: a positive integer; 0 stands for "absent". */
export type Handle = number;

/** Typed arrays that can be sent to a device or read back. */
export type TypedArray =
  | Float32Array
  | Float64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | BigInt64Array
  | BigUint64Array;

/** What the native runtime is doing and holding. */
export interface Stats {
  /** Bytes of tensors that are alive. */
  readonly liveBytes: number;
  /** The most bytes alive at once since the start or the last `resetPeak()`. */
  readonly peakBytes: number;
  /** Bytes of freed blocks kept for reuse. */
  readonly cachedBytes: number;
  /** Live bytes never exceed this: the machine's memory, its control group's, or TUNEBOOK_MEMORY_LIMIT. */
  readonly limitBytes: number;
  /** Live handles, views included. */
  readonly handles: number;
  /** Commands that have been enqueued and have not run. */
  readonly queued: number;
  /** Threads that work on one op. */
  readonly threads: number;
  /** Instruction set of the kernels in use. */
  readonly isa: "avx512bf16" | "avx512" | "avx2" | "portable";
  /** Seconds that the device has worked. */
  readonly busySeconds: number;
}

interface Addon {
  open(makeError: (kind: string, message: string, sequence: number, device: number, code: string) => Error): {
    shared: ArrayBuffer;
    opNames: string[];
  };
  run(): void;
  alloc(): void;
  view(): void;
  free(): void;
  upload(handle: Handle, data: TypedArray, byteOffset: number): void;
  download(handle: Handle, into: TypedArray, byteOffset: number): Promise<void>;
  settle(): Promise<void>;
  sync(): void;
  stats(): Stats;
  profile(): Float64Array;
  state(): "running" | "failed" | "interrupted";
  resetPeak(): void;
  trim(): void;
  recover(): void;
  setInterruptFlag(flag: Int32Array | null): void;
}

function load(): Addon {
  // dist/src/tensor/native.js stands three folders below the package.
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json")) && dirname(folder) !== folder) folder = dirname(folder);
  const file = join(folder, "build", "tunebook.node");
  if (!existsSync(file)) {
    throw new DeviceError(
      `The native kernels are not built: ${file} does not exist. Run "node scripts/build.mjs" in ${folder} (it needs a C++ compiler).`,
    );
  }
  try {
    return createRequire(import.meta.url)(file) as Addon;
  } catch (cause) {
    throw new DeviceError(
      `The native kernels in ${file} cannot be loaded on ${process.platform}-${process.arch}, Node ${process.version}: ` +
        `${(cause as Error).message}. Build them on this machine: "node scripts/build.mjs".`,
      { cause },
    );
  }
}

/** Where ops that can fail because of their data were recorded, by the op's number; the newest few hundred. */
const origins = new Map<number, Error>();
const ORIGINS = 512;
const traceAll = process.env.TUNEBOOK_TRACE === "1";

/** Frames of this library's own tensor layer say nothing about who made the call. */
function originOf(sequence: number): string {
  // The shared buffer carries the low 32 bits of an op's number.
  const stack = origins.get(sequence | 0)?.stack;
  if (stack === undefined) return "";
  const frames = stack
    .split("\n")
    .slice(1)
    .filter((line) => !/[\\/]src[\\/]tensor[\\/](calls|native)\.[jt]s/.test(line));
  return frames.length === 0
    ? ""
    : `\n  recorded${frames[0]?.replace(/^\s*at/, " at") ?? ""}\n${frames.slice(1, 6).join("\n")}`;
}

function makeError(kind: string, message: string, sequence: number, _device = 0, code = ""): Error {
  if (kind === "failed" && code === "memory") return new OutOfMemoryError(`${message}${originOf(sequence)}`);
  if (kind === "failed") return new DeviceError(`${message}${originOf(sequence)}`, { lost: code === "lost" });
  return new InterruptedError(
    "The work was interrupted: queued operations were dropped, and this result was not computed.",
  );
}

const addon = load();
const opened = addon.open(makeError);

/** The shared command buffer as integers: opcode, handles, lengths of lists, integers. @internal */
export const I: Int32Array = new Int32Array(opened.shared);
/** The same memory as floats. @internal */
export const F: Float32Array = new Float32Array(opened.shared);
/** Names of all native ops, by opcode. */
export const opNames: readonly string[] = opened.opNames;

const nativeAlloc = addon.alloc;
const nativeView = addon.view;
const nativeFree = addon.free;

/** Enqueues the command in the shared buffer. @internal */
export const run: () => void = traceAll ? runTraced : addon.run;

const nativeRun = addon.run;

/** As `run`, and remembers the caller, so that a failure can name it. @internal */
export function runTraced(): void {
  nativeRun();
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 16;
  origins.set(I[0] as number, new Error());
  Error.stackTraceLimit = limit;
  if (origins.size > ORIGINS) {
    const oldest = origins.keys().next();
    if (!oldest.done) origins.delete(oldest.value);
  }
}

/** Writes a list of handles behind its length and returns the next index. @internal */
export function putList(op: string, at: number, list: readonly Handle[]): number {
  if (at + list.length + 64 > I.length) {
    throw new StateError(
      `${op}: a list of ${list.length} tensors is too long for one command (at most ${I.length - 64} words): split it.`,
    );
  }
  I[at++] = list.length;
  for (let i = 0; i < list.length; i++) I[at++] = list[i] as number;
  return at;
}

/** @internal */
export function badInteger(op: string, integers: Record<string, number>): never {
  const bad = Object.entries(integers).find(([, v]) => (v | 0) !== v);
  throw new RangeError(
    `${op}: expected 32-bit integers, got ${bad?.[0]} = ${bad?.[1]} (of ${JSON.stringify(integers)}).`,
  );
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 24 ? 3 : 0)} MiB`;

/**
 * Memory for `bytes` bytes of a dtype (its native code), not cleared.
 * @throws OutOfMemoryError naming the sizes when live bytes would exceed the limit.
 */
export function alloc(bytes: number, dtype: number): Handle {
  I[0] = bytes | 0;
  I[1] = Math.floor(bytes / 2 ** 32);
  I[2] = dtype;
  I[3] = 0;
  nativeAlloc();
  const handle = I[0] as number;
  if (handle !== 0) return handle;
  const s = stats();
  throw new OutOfMemoryError(
    `Not enough memory for a tensor of ${mebibytes(bytes)}: ${mebibytes(s.liveBytes)} are in use (${s.handles} tensors) of a limit of ` +
      `${mebibytes(s.limitBytes)}. Use a smaller batch or sequence length, quantise the model, or free tensors that are not needed.`,
  );
}

/** A handle on a part of another's memory; the memory lives until both are freed. */
export function view(handle: Handle, byteOffset: number, bytes: number, dtype: number): Handle {
  I[0] = handle;
  I[1] = byteOffset | 0;
  I[2] = Math.floor(byteOffset / 2 ** 32);
  I[3] = bytes | 0;
  I[4] = Math.floor(bytes / 2 ** 32);
  I[5] = dtype;
  nativeView();
  return I[0] as number;
}

/**
 * Gives a handle back; work that is already queued still finds its memory.
 * @throws StateError when it has been freed before.
 */
export function free(handle: Handle): void {
  I[0] = handle;
  nativeFree();
  if (I[0] === 0) throw new StateError(`Handle ${handle} was freed twice, or never existed.`);
}

/** Writes a typed array's bytes into a tensor, in queue order. The array may be changed as soon as this returns. */
export function upload(handle: Handle, data: TypedArray, byteOffset = 0): void {
  addon.upload(handle, data, byteOffset);
}

/**
 * Fills a typed array from a tensor once everything queued before has run. Keeps the process alive until then.
 * @throws (rejects) DeviceError naming the op that failed; InterruptedError after an interrupt.
 */
export function download(handle: Handle, into: TypedArray, byteOffset = 0): Promise<void> {
  return addon.download(handle, into, byteOffset);
}

/** Resolves when everything queued so far has run; rejects as `download` does. */
export function settle(): Promise<void> {
  return addon.settle();
}

/** Blocks until everything queued has run; throws what `settle` would reject with. */
export function sync(): void {
  addon.sync();
}

/** Memory, queue and threads now. */
export function stats(): Stats {
  return addon.stats();
}

/** Calls and seconds of each op that has run since the start. */
export function profile(): Record<string, { calls: number; seconds: number }> {
  const numbers = addon.profile();
  const result: Record<string, { calls: number; seconds: number }> = {};
  opNames.forEach((name, i) => {
    const calls = numbers[i * 2] ?? 0;
    if (calls > 0) result[name] = { calls, seconds: numbers[i * 2 + 1] ?? 0 };
  });
  return result;
}

/** Whether the queue runs, has stopped at a failed op, or was interrupted: the last two drop all work until `recover()`. */
export function state(): "running" | "failed" | "interrupted" {
  return addon.state();
}

/** Starts `peakBytes` anew from the bytes that are alive now. */
export function resetPeak(): void {
  addon.resetPeak();
}

/** Gives cached blocks back to the system. */
export function trim(): void {
  addon.trim();
}

/**
 * The flag that stops queued work: while `flag[0]` is not 0, ops are dropped and reads reject with InterruptedError. Looked at between ops;
 * after an interrupt `recover()` is needed, since tensors that dropped ops should have written hold nothing of use.
 */
export function setInterruptFlag(flag: Int32Array | null): void {
  addon.setInterruptFlag(flag);
}

/** After an interrupt or a failed op: empties the queue and clears the error. */
export function recover(): void {
  addon.recover();
  origins.clear();
}
