// What the timing programs of raw calls on the GPU share: memory that is freed together, random operands, and the clock.
import * as calls from "../../src/tensor/calls.js";
import { alloc, free, type Handle, sync } from "../../src/tensor/native.js";

export const [F32, BF16, INT32, UINT8] = [0, 1, 3, 4];
const CACHE = 256 * 2 ** 20; // bytes; no second-level cache is larger
const held: Handle[] = [];

/** Device memory that `release` frees. */
export function memory(bytes: number, dtype: number): Handle {
  const handle = alloc(bytes, dtype, 1);
  held.push(handle);
  return handle;
}

/** Frees one piece of memory before the others. */
export function drop(handle: Handle): void {
  free(held.splice(held.indexOf(handle), 1)[0] as Handle);
}

/** Frees what `memory` has given since the last time. */
export function release(): void {
  for (const handle of held.splice(0)) free(handle);
}

/** n random numbers in bfloat16. */
export function random(n: number, scale = 1): Handle {
  const out = memory(n * 2, BF16);
  const wide = alloc(n * 4, F32, 1);
  calls.randomNormal(wide, n, 1, 0, 0, scale);
  calls.copy(wide, out, n);
  free(wide);
  return out;
}

/** Milliseconds a call: the best of five rounds of about 50 ms. */
export function time(call: (i: number) => void): number {
  for (let i = 0; i < 3; i++) call(i);
  sync("cuda");
  let started = performance.now();
  for (let i = 0; i < 5; i++) call(i);
  sync("cuda");
  const count = Math.max(5, Math.min(2000, Math.ceil(50 / ((performance.now() - started) / 5))));
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 5; round++) {
    started = performance.now();
    for (let i = 0; i < count; i++) call(i);
    sync("cuda");
    best = Math.min(best, (performance.now() - started) / count);
  }
  return best;
}

/** Prints a time and what it comes to a second. */
export function line(name: string, ms: number, work: { flops?: number; bytes?: number }): void {
  const rate = work.flops
    ? `${(work.flops / ms / 1e9).toFixed(0).padStart(6)} TFLOP/s`
    : `${((work.bytes ?? 0) / ms / 1e6).toFixed(0).padStart(6)} GB/s`;
  console.log(`${name.padEnd(52)} ${ms.toFixed(4).padStart(10)} ms ${rate}`);
}

/** Copies of an operand, so that consecutive calls read other memory. */
export function copies<T>(bytes: number, make: () => T): T[] {
  return Array.from({ length: Math.max(1, Math.ceil(CACHE / bytes)) }, make);
}
/** The i-th copy, from the first again after the last. */
export const pick = <T>(list: readonly T[], i: number): T => list[i % list.length] as T;

/** [name, out, in] of the weights of a layer of Llama-3-8B. */
export const WEIGHTS: [string, number, number][] = [
  ["q, k, v", 6144, 4096],
  ["o", 4096, 4096],
  ["gate, up", 28_672, 4096],
  ["down", 4096, 14_336],
];
