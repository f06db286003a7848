import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

/** What the addon gave for a device: its memory and its queue. */
export interface DeviceStats {
  liveBytes: number;
  peakBytes: number;
  cachedBytes: number;
  scratchBytes: number;
  reservedBytes: number;
  limitBytes: number;
  handles: number;
  queued: number;
  busySeconds: number;
}

interface Addon {
  open(makeError: (...parts: unknown[]) => Error): { shared: ArrayBuffer; opNames: string[] };
  openDevice(name: string): Record<string, unknown> & { name: string };
  run(): void;
  alloc(): void;
  view(): void;
  free(): void;
  upload(handle: number, data: ArrayBufferView, offset: number): void;
  download(handle: number, into: ArrayBufferView, offset: number): Promise<void>;
  transfer(from: number, to: number): void;
  settle(device: number): Promise<void>;
  sync(device: number): void;
  stats(device: number): DeviceStats;
  profile(device: number): Float64Array;
  state(device: number): string;
  resetPeak(device: number): void;
  trim(device: number): void;
  recover(device: number): void;
  setInterruptFlag(flag: Int32Array | null): void;
}

/** An error as the addon reports it, before the library gives it a class. */
export class Stopped extends Error {
  readonly kind: string;
  readonly sequence: number;
  readonly device: number;
  readonly code: string;

  constructor(kind: string, message: string, sequence: number, device: number, code: string) {
    super(message);
    this.kind = kind;
    this.sequence = sequence;
    this.device = device;
    this.code = code;
  }
}

/** The addon itself, below everything that the library adds. */
export const addon: Addon = createRequire(import.meta.url)(
  fileURLToPath(new URL("../../../build/tunebook.node", import.meta.url)),
);
const { shared, opNames } = addon.open(
  (...parts) => new Stopped(...(parts as [string, string, number, number, string])),
);
const I = new Int32Array(shared);
const F = new Float32Array(shared);

/** Memory on a device; 0 when it is exhausted. */
export function alloc(bytes: number, device: number, dtype = 0): number {
  I[0] = bytes | 0;
  I[1] = Math.floor(bytes / 2 ** 32);
  I[2] = dtype;
  I[3] = device;
  addon.alloc();
  return I[0] as number;
}

/** Frees a handle; false when there is none. */
export function free(handle: number): boolean {
  I[0] = handle;
  addon.free();
  return I[0] === 1;
}

/** A handle on a part of another's memory. */
export function view(handle: number, offset: number, bytes: number): number {
  I.set([handle, offset, 0, bytes, 0, 0]);
  addon.view();
  return I[0] as number;
}

/** Enqueues an op: tensors (lists as arrays), integers, floats. */
export function run(op: string, tensors: (number | number[])[], integers: number[], floats: number[] = []): void {
  let at = 0;
  I[at++] = opNames.indexOf(op);
  for (const t of tensors) {
    if (typeof t === "number") I[at++] = t;
    else for (const word of [t.length, ...t]) I[at++] = word;
  }
  for (const n of integers) I[at++] = n;
  for (const n of floats) F[at++] = n;
  addon.run();
}

/** A float32 tensor on a device. */
export function send(data: Float32Array | Int32Array, device: number): number {
  const handle = alloc(data.byteLength, device, data instanceof Float32Array ? 0 : 3);
  addon.upload(handle, data, 0);
  return handle;
}

/** Reads a float32 tensor. */
export async function read(handle: number, count: number): Promise<Float32Array> {
  const out = new Float32Array(count);
  await addon.download(handle, out, 0);
  return out;
}
