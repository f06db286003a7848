// What the tests of native ops share: tensors with guarded borders, comparison with float64 references, finite differences.
import assert from "node:assert/strict";
import { after, afterEach } from "node:test";
import {
  alloc,
  download,
  free,
  type Handle,
  recover,
  settle,
  state,
  type TypedArray,
  upload,
  view,
} from "../../src/tensor/native.js";

export const FLOAT32 = 0;
export const INT32 = 3;

/** Elements of a guard on each side of an output: an op that writes past its tensor is caught. Odd, so that vectors stand unaligned. */
const GUARD = 19;
const SENTINEL = -12345.678;

interface Guarded {
  readonly base: Handle;
  readonly inner: Handle;
  readonly length: number;
}

let inputs: Handle[] = [];
let guarded: Guarded[] = [];

function releaseAll(): void {
  for (const h of inputs) free(h);
  for (const g of guarded) {
    free(g.inner);
    free(g.base);
  }
  inputs = [];
  guarded = [];
}

afterEach(async () => {
  try {
    for (const g of guarded) {
      const all = new Float32Array(g.length + 2 * GUARD);
      await download(g.base, all);
      const sentinel = Math.fround(SENTINEL);
      for (let i = 0; i < GUARD; i++) {
        assert.equal(all[i], sentinel, `element ${i - GUARD} before a tensor was overwritten`);
        assert.equal(
          all[all.length - 1 - i],
          sentinel,
          `element ${g.length + GUARD - 1 - i} past a tensor was overwritten`,
        );
      }
    }
  } finally {
    releaseAll();
  }
});
after(releaseAll);

/** A float32 tensor with these values (guarded: ops may write to it as well). */
export function f32(values: ArrayLike<number>): Handle {
  const length = values.length;
  const base = alloc(Math.max(4, (length + 2 * GUARD) * 4), FLOAT32);
  const all = new Float32Array(length + 2 * GUARD).fill(SENTINEL);
  all.set(Array.from(values), GUARD);
  upload(base, all);
  const inner = view(base, GUARD * 4, length * 4, FLOAT32);
  guarded.push({ base, inner, length });
  return inner;
}

/** A float32 tensor of `length` elements to be written: NaN until then. */
export function out(length: number): Handle {
  return f32(new Float32Array(length).fill(Number.NaN));
}

/** A tensor of another dtype. */
export function raw(data: TypedArray, dtype: number): Handle {
  const h = alloc(Math.max(1, data.byteLength), dtype);
  upload(h, data);
  inputs.push(h);
  return h;
}

export function i32(values: ArrayLike<number>): Handle {
  return raw(Int32Array.from(Array.from(values)), INT32);
}

export async function read(h: Handle, length: number): Promise<Float32Array> {
  const into = new Float32Array(length);
  await download(h, into);
  return into;
}

export async function readInts(h: Handle, length: number): Promise<Int32Array> {
  const into = new Int32Array(length);
  await download(h, into);
  return into;
}

/** max |actual - expected| / max(|expected|, floor) must not pass `tolerance`; NaN only where NaN is expected. */
export function close(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance = 1e-6,
  what = "values",
  floor = 1e-30,
): void {
  assert.equal(actual.length, expected.length);
  let scale = floor;
  for (let i = 0; i < expected.length; i++) {
    const e = Math.abs(expected[i]!);
    if (Number.isFinite(e)) scale = Math.max(scale, e);
  }
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i]!;
    const e = expected[i]!;
    if (Object.is(a, e) || a === e || (Number.isNaN(a) && Number.isNaN(e))) continue;
    const error = Math.abs(a - e) / scale;
    assert.ok(
      error <= tolerance,
      `${what}[${i}]: ${a}, expected ${e}: ${error.toExponential(2)} of the largest, more than ${tolerance}`,
    );
  }
}

/** Every element by itself: |actual - expected| / |expected| <= tolerance (below `tiny` the absolute difference counts). */
export function closeEach(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  tiny = 1e-37,
  what = "values",
): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i]!;
    const e = expected[i]!;
    if (a === e || (Number.isNaN(a) && Number.isNaN(e))) continue;
    const error = Math.abs(a - e) / Math.max(Math.abs(e), tiny);
    assert.ok(
      error <= tolerance,
      `${what}[${i}]: ${a}, expected ${e}: relative error ${error.toExponential(2)}, more than ${tolerance}`,
    );
  }
}

/** The op must fail with this message; the queue runs on afterwards. */
export async function fails(record: () => void, message: RegExp): Promise<void> {
  record();
  try {
    await assert.rejects(settle(), (error: Error) => {
      assert.match(error.message, message);
      return true;
    });
  } finally {
    if (state() !== "running") recover();
  }
}

/** A small generator of reproducible numbers (mulberry32). */
export class Numbers {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  /** Uniform on [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  /** float32 numbers on [low, high). */
  array(length: number, low = -1, high = 1): Float32Array {
    return Float32Array.from({ length }, () => low + (high - low) * this.next());
  }
  int(below: number): number {
    return Math.floor(this.next() * below);
  }
}

/**
 * Central differences of sum(weights * f(x)) in float64 at every element of x (or `samples` of them), against `gradient`.
 * `f` is the float64 reference.
 */
export function checkGradient(
  f: (x: Float64Array) => ArrayLike<number>,
  x: ArrayLike<number>,
  weights: ArrayLike<number>,
  gradient: ArrayLike<number>,
  { tolerance = 1e-5, step = 1e-4, samples = 64, what = "gradient" } = {},
): void {
  const at = Float64Array.from(Array.from(x));
  const value = (): number => {
    const y = f(at);
    let sum = 0;
    for (let i = 0; i < y.length; i++) sum += y[i]! * weights[i]!;
    return sum;
  };
  const stride = Math.max(1, Math.floor(at.length / samples));
  const expected: number[] = [];
  const actual: number[] = [];
  for (let i = 0; i < at.length; i += stride) {
    const keep = at[i]!;
    at[i] = keep + step;
    const up = value();
    at[i] = keep - step;
    const down = value();
    at[i] = keep;
    expected.push((up - down) / (2 * step));
    actual.push(gradient[i]!);
  }
  close(actual, expected, tolerance, what, 0.1); // a gradient that is zero in theory is compared with 0.1
}
