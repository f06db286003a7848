import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { DeviceError, InterruptedError, OutOfMemoryError, StateError } from "../errors.js";
import type { RecordingAddon } from "./recording.js";
import type { UpdateAddon } from "./update.js";

/** A tensor's memory as the native side knows it: a positive integer whose bit 30 tells the device; 0 stands for "absent". */
export type Handle = number;

/** Where memory stands and operations run. */
export type Device = "cpu" | "cuda";
const DEVICES: readonly Device[] = ["cpu", "cuda"];
/** Number of a device. @internal */
export const codeOf = (device: Device): number => (device === "cuda" ? 1 : 0);

let gpuBit = 0; // an addon that knows the CPU alone uses the bit for other things

/** Number of a handle's device: 0 the CPU, 1 the GPU. @internal */
export function placeOf(handle: Handle): number {
  // Handles of a dry run (above 2^40, dry.ts) tell it by the bit even where no GPU is.
  return (handle & (handle < 2 ** 40 ? gpuBit : 2 ** 30)) === 0 ? 0 : 1;
}

/** The device of a handle. */
export function deviceOf(handle: Handle): Device {
  return placeOf(handle) === 1 ? "cuda" : "cpu";
}

/** What is known of an opened GPU. */
export interface DeviceFacts {
  /** "NVIDIA H200", … */
  readonly name: string;
  /** "9.0", … */
  readonly computeCapability?: string;
  /** Bytes. */
  readonly memory?: number;
}

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
  /** Bytes of tensors in a GPU's host memory, which are counted nowhere else. */
  readonly hostBytes: number;
  /** Live handles, views included. */
  readonly handles: number;
  /** Commands that have been enqueued and have not run. */
  readonly queued: number;
  /** Threads that work on one op. */
  readonly threads: number;
  /** Instruction set of the kernels in use: "avx512bf16", "avx512", "avx2", "portable", or a GPU's architecture. */
  readonly isa: string;
  /** Seconds that the device has worked. */
  readonly busySeconds: number;
}

/** What of a file is read, and which loads are cancelled together. */
type FileArgs = [fd: number, offset: number, bytes: number, group: number];

/** A load fills a tensor once everything queued before has been done. It rejects with an Error whose `code` is TUNEBOOK_CUT (the message is where
 * the file ends), _READ, _DEVICE or _CANCELLED, or with InterruptedError. */
interface FileCalls {
  load(into: Handle, ...from: FileArgs): Promise<void>;
  /** Blocks of 32 elements to planes of their own in the CPU's memory: kind 0 Q8_0 (no minimum: 0), 1 Q4_0, 2 Q4_1. */
  loadBlocks(
    codes: Handle,
    scale: Handle,
    minimum: Handle,
    ...rest: [...from: FileArgs, kind: number, columns: number, headRows: number]
  ): Promise<void>;
  /** Blocks restored to float32 in the CPU's memory: kind 0 Q5_0, 1 Q4_K, 2 Q5_K, 3 Q6_K. */
  loadRestored(
    into: Handle,
    ...rest: [...from: FileArgs, kind: number, columns: number, headRows: number]
  ): Promise<void>;
  /** Cancels a group's loads; `over`: none is on its way, and working memory is given back. */
  endLoads(device: number, group: number, over: boolean): void;
}

interface Addon extends FileCalls, RecordingAddon, UpdateAddon {
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
  /** Absent where the addon knows the CPU alone. */
  openDevice?(name: string): DeviceFacts;
  /** Copies a tensor's bytes to one of the same size on another device; waits until they have been read. */
  transfer?(from: Handle, to: Handle): void;
  settle(device?: number): Promise<void>;
  sync(device?: number): void;
  stats(device?: number): Stats;
  profile(device?: number): Float64Array;
  state(device?: number): "running" | "failed" | "interrupted";
  resetPeak(device?: number): void;
  trim(device?: number): void;
  recover(device?: number): void;
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

/** Where ops that can fail because of their data were recorded, by device and the op's number; the newest few hundred. */
const origins: readonly Map<number, Error>[] = [new Map(), new Map()];
const ORIGINS = 512;
const traceAll = process.env.TUNEBOOK_TRACE === "1";

/** Frames of this library's own tensor layer say nothing about who made the call. */
function originOf(sequence: number, device: number): string {
  // The shared buffer carries the low 32 bits of an op's number.
  const stack = origins[device]?.get(sequence | 0)?.stack;
  if (stack === undefined) return "";
  const frames = stack
    .split("\n")
    .slice(1)
    .filter((line) => !/[\\/]src[\\/]tensor[\\/](calls|native)\.[jt]s/.test(line));
  return frames.length === 0
    ? ""
    : `\n  recorded${frames[0]?.replace(/^\s*at/, " at") ?? ""}\n${frames.slice(1, 6).join("\n")}`;
}

function makeError(kind: string, message: string, sequence: number, device = 0, code = ""): Error {
  if (kind === "failed" && code === "memory")
    return new OutOfMemoryError(`${message}${originOf(sequence, device)}${advised(DEVICES[device] as Device)}`);
  if (kind === "failed") return new DeviceError(`${message}${originOf(sequence, device)}`, { lost: code === "lost" });
  return new InterruptedError(
    "The work was interrupted: queued operations were dropped, and this result was not computed.",
  );
}

const addon = load();
/** The part of the addon that records; see recording.ts. @internal */
export const recorder: RecordingAddon = addon;
/** The part that makes updates whole; see update.ts. @internal */
export const updater: UpdateAddon = addon;
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
export let run: () => void = traceAll ? runTraced : addon.run;

const nativeRun = addon.run;

/** As `run`, and remembers the caller, so that a failure can name it. @internal */
export function runTraced(): void {
  if (dry) return;
  const known = origins[placeOf(I[1] as number)] as Map<number, Error>; // the first word is a tensor, but in ops on lists
  nativeRun();
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 16;
  known.set(I[0] as number, new Error());
  Error.stackTraceLimit = limit;
  if (known.size > ORIGINS) {
    const oldest = known.keys().next();
    if (!oldest.done) known.delete(oldest.value);
  }
}

// ---- dry runs -----------------------------------------------------------------------------

/** Memory that is only counted; see dry.ts. */
export interface DryMemory {
  /** Whether activations may have 16 bits. */
  readonly halves: boolean;
  /** The device that is meant, whatever the tensors stand on. */
  readonly device: Device;
  alloc(bytes: number, place: number, host: boolean): Handle;
  view(handle: Handle): Handle;
  /** False: the handle is a real one. */
  free(handle: Handle): boolean;
}

let dry: DryMemory | undefined;

/** Starts (or ends) counting instead of computing: operations and uploads do nothing from now on. @internal */
export function setDryMemory(memory: DryMemory | undefined): void {
  dry = memory;
  run = memory ? () => {} : traceAll ? runTraced : nativeRun;
}

/** The dry run that is under way. @internal */
export function dryMemory(): DryMemory | undefined {
  return dry;
}

// ---- devices ------------------------------------------------------------------------------

let gpu: (DeviceFacts & { asked: string }) | undefined;
let failure: string | undefined; // why no GPU can be used, once it was tried
let flag: Int32Array | null = null;

/** Opens the GPU if that has not been done, and says what it is. @throws DeviceError with the reason and what to do. */
export function openDevice(name = "cuda"): DeviceFacts {
  if (gpu === undefined) {
    const reason = openCuda(name);
    if (reason !== undefined) {
      throw new DeviceError(
        `"${name}" was asked for, and no CUDA device can be used: ${reason} "tunebook doctor" says what is there and what is missing; device: "cpu" works everywhere.`,
      );
    }
  } else if (name !== "cuda" && name !== gpu.asked && !(name === "cuda:0" && gpu.asked === "cuda")) {
    throw new DeviceError(
      `"${name}" was asked for, and this process already works on ${gpu.asked} (${gpu.name}); one process works on one GPU: restart it, or set CUDA_VISIBLE_DEVICES.`,
    );
  }
  return gpu as DeviceFacts;
}

/** Why no GPU can be used; `undefined` when one can, which is open then. */
export function cudaFailure(): string | undefined {
  return gpu === undefined ? (failure ?? openCuda("cuda")) : undefined;
}

function openCuda(name: string): string | undefined {
  if (addon.openDevice === undefined) {
    failure = "this build knows the CPU alone. Build with CUDA's compiler (nvcc) in the path.";
    return failure;
  }
  try {
    gpu = { ...addon.openDevice(name), asked: name };
    gpuBit = 0x40000000;
    failure = undefined;
    if (flag !== null) addon.setInterruptFlag(flag);
    return undefined;
  } catch (cause) {
    const reason = (cause as Error).message.trim();
    failure = /[.!]$/.test(reason) ? reason : `${reason}.`;
    return failure;
  }
}

/** The devices that are open: the CPU always, the GPU once it was used. */
export function openDevices(): readonly Device[] {
  return gpu === undefined ? ["cpu"] : DEVICES;
}

/** Whether activations on a device (by its number) may have 16 bits; the CPU computes with float32. @internal */
export function takesHalves(place: number): boolean {
  return dry?.halves ?? place === 1;
}

function places(device: Device | undefined): readonly number[] {
  if (device !== undefined) return [codeOf(device)];
  return gpu === undefined ? [0] : [0, 1];
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
 * Memory for `bytes` bytes of a dtype (its native code) on a device (its number) or in its host memory, not cleared.
 * @throws OutOfMemoryError naming the sizes when live bytes would exceed the limit; DeviceError when there is no such device.
 */
export function alloc(bytes: number, dtype: number, place = 0, host = false): Handle {
  if (dry) return dry.alloc(bytes, place, host);
  if (place !== 0 && gpu === undefined) openDevice();
  I[0] = bytes | 0;
  I[1] = Math.floor(bytes / 2 ** 32);
  I[2] = dtype;
  I[3] = host ? place | 2 : place;
  nativeAlloc();
  const handle = I[0] as number;
  if (handle !== 0) return handle;
  if (host) {
    throw new OutOfMemoryError(
      `Not enough host memory for ${mebibytes(bytes)} that the GPU copies from: use an optimizer that is not paged, or other checkpointing than "offload".`,
    );
  }
  throw outOfMemory(bytes, DEVICES[place] as Device);
}

let advice: ((device: Device) => string | undefined) | undefined;

/** Sets what is added to the message of an OutOfMemoryError: the planner's table, and what would fit. */
export function setMemoryAdvice(fn: ((device: Device) => string | undefined) | undefined): void {
  advice = fn;
}

// Advice that fails must not hide what it is about.
function advised(device: Device): string {
  try {
    const text = advice?.(device);
    return text === undefined ? "" : `\n${text}`;
  } catch {
    return "";
  }
}

function outOfMemory(bytes: number, device: Device): OutOfMemoryError {
  const s = stats(device);
  const where = device === "cpu" ? "" : ` on ${gpu?.name ?? device}`;
  return new OutOfMemoryError(
    `Not enough memory${where} for a tensor of ${mebibytes(bytes)}: ${mebibytes(s.liveBytes)} are in use (${s.handles} tensors) of a limit of ` +
      `${mebibytes(s.limitBytes)}. Use a smaller batch or sequence length, quantise the model, or free tensors that are not needed.${advised(device)}`,
  );
}

/** A handle on a part of another's memory; the memory lives until both are freed. */
export function view(handle: Handle, byteOffset: number, bytes: number, dtype: number): Handle {
  if (dry) return dry.view(handle);
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
  if (dry?.free(handle)) return;
  I[0] = handle;
  nativeFree();
  if (I[0] === 0) throw new StateError(`Handle ${handle} was freed twice, or never existed.`);
}

/** Writes a typed array's bytes into a tensor, in queue order. The array may be changed as soon as this returns. */
export function upload(handle: Handle, data: TypedArray, byteOffset = 0): void {
  if (dry) return;
  addon.upload(handle, data, byteOffset);
}

/**
 * Fills a typed array from a tensor once everything queued before has run. Keeps the process alive until then.
 * @throws (rejects) DeviceError naming the op that failed; InterruptedError after an interrupt.
 */
export function download(handle: Handle, into: TypedArray, byteOffset = 0): Promise<void> {
  return addon.download(handle, into, byteOffset);
}

/** Copies the bytes of a tensor to one of the same size on another device, once everything queued for it has run. */
export function transfer(from: Handle, to: Handle): void {
  if (dry) return;
  if (addon.transfer === undefined)
    throw new DeviceError("Tensors cannot be moved between devices: this build knows the CPU alone.");
  addon.transfer(from, to);
}

/** The addon's calls that read files into tensors, for load.ts. @internal */
export const fileCalls: FileCalls = addon;

/** Resolves when everything queued so far has run, on one device or all that are open; rejects as `download` does. */
export async function settle(device?: Device): Promise<void> {
  await Promise.all(places(device).map((p) => addon.settle(p)));
}

/** Blocks until everything queued has run, on one device or all that are open; throws what `settle` would reject with. */
export function sync(device?: Device): void {
  for (const p of places(device)) addon.sync(p);
}

/** Memory, queue and threads now: of one device, or of all that are open together (threads and instruction set are the CPU's then). */
export function stats(device?: Device): Stats {
  const all = places(device).map((p) => addon.stats(p));
  return all.reduce((a, b) => ({
    liveBytes: a.liveBytes + b.liveBytes,
    peakBytes: a.peakBytes + b.peakBytes,
    cachedBytes: a.cachedBytes + b.cachedBytes,
    limitBytes: a.limitBytes + b.limitBytes,
    hostBytes: a.hostBytes + b.hostBytes,
    handles: a.handles + b.handles,
    queued: a.queued + b.queued,
    threads: a.threads,
    isa: a.isa,
    busySeconds: a.busySeconds + b.busySeconds,
  }));
}

/** Calls and seconds of each op that has run since the start, on one device (the CPU by default). */
export function profile(device: Device = "cpu"): Record<string, { calls: number; seconds: number }> {
  const numbers = addon.profile(codeOf(device));
  const result: Record<string, { calls: number; seconds: number }> = {};
  opNames.forEach((name, i) => {
    const calls = numbers[i * 2] ?? 0;
    if (calls > 0) result[name] = { calls, seconds: numbers[i * 2 + 1] ?? 0 };
  });
  return result;
}

/**
 * Whether the queue (of one device, or of all that are open) runs, has stopped at a failed op, or was interrupted: the last two drop all work
 * until `recover()`.
 */
export function state(device?: Device): "running" | "failed" | "interrupted" {
  const all = places(device).map((p) => addon.state(p));
  return all.find((s) => s !== "running") ?? "running";
}

/** Starts `peakBytes` anew from the bytes that are alive now. */
export function resetPeak(device?: Device): void {
  for (const p of places(device)) addon.resetPeak(p);
}

/** Gives cached blocks back to the system. */
export function trim(device?: Device): void {
  for (const p of places(device)) addon.trim(p);
}

/**
 * The flag that stops queued work on every device: while `flag[0]` is not 0, ops are dropped and reads reject with InterruptedError. Looked at
 * between ops; after an interrupt `recover()` is needed, since tensors that dropped ops should have written hold nothing of use.
 */
export function setInterruptFlag(to: Int32Array | null): void {
  flag = to;
  addon.setInterruptFlag(to);
}

/** After an interrupt or a failed op: empties the queue and clears the error. */
export function recover(device?: Device): void {
  for (const p of places(device)) {
    addon.recover(p);
    origins[p]?.clear();
  }
}
