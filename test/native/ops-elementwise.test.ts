import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { close, closeEach, f32, fails, Numbers, out, read } from "./ops-harness.js";

/** erfc by series and continued fraction, to about 1e-15. */
export function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 100; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum;
  }
  let f = 0;
  for (let n = 120; n > 0; n--) f = n / 2 / (x + f);
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + f);
}
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const cdf = (x: number): number => 0.5 * erfc(-x / Math.SQRT2);
const cube = (x: number): number => 2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);

interface Case {
  readonly kind: number;
  readonly name: string;
  readonly f: (x: number) => number;
  readonly low: number;
  readonly high: number;
  readonly alpha?: number;
  readonly beta?: number;
  /** Largest relative error of one element. */
  readonly tolerance?: number;
  readonly tiny?: number;
}

const KINDS: Case[] = [
  { kind: 0, name: "affine", f: (x) => 2.5 * x - 0.75, low: -3, high: 3, alpha: 2.5, beta: -0.75, tiny: 0.1 },
  { kind: 1, name: "abs", f: Math.abs, low: -3, high: 3 },
  { kind: 2, name: "exp", f: Math.exp, low: -87, high: 88 },
  { kind: 3, name: "log", f: Math.log, low: 1e-6, high: 50, tiny: 1e-6 },
  { kind: 4, name: "sqrt", f: Math.sqrt, low: 0, high: 100 },
  { kind: 5, name: "rsqrt", f: (x) => 1 / Math.sqrt(x), low: 1e-6, high: 100 },
  { kind: 6, name: "reciprocal", f: (x) => 1 / x, low: 0.01, high: 10 },
  { kind: 7, name: "tanh", f: Math.tanh, low: -10, high: 10 },
  { kind: 8, name: "sigmoid", f: sigmoid, low: -80, high: 20 },
  { kind: 9, name: "silu", f: (x) => x * sigmoid(x), low: -80, high: 20 },
  { kind: 10, name: "gelu (erf)", f: (x) => x * cdf(x), low: -9, high: 9, tolerance: 5e-7 },
  { kind: 11, name: "gelu (tanh)", f: (x) => x * sigmoid(cube(x)), low: -4, high: 9, tolerance: 4e-6 }, // the gate's argument reaches 17
  { kind: 12, name: "relu", f: (x) => Math.max(0, x), low: -3, high: 3 },
  { kind: 13, name: "pow 2.5", f: (x) => x ** 2.5, low: 0.01, high: 9, alpha: 2.5 },
  { kind: 13, name: "pow 2", f: (x) => x ** 2, low: -3, high: 3, alpha: 2 },
  { kind: 13, name: "pow 3", f: (x) => x ** 3, low: -3, high: 3, alpha: 3 },
  { kind: 14, name: "clamp", f: (x) => Math.min(0.5, Math.max(-1.25, x)), low: -3, high: 3, alpha: -1.25, beta: 0.5 },
  { kind: 15, name: "sin", f: Math.sin, low: -3, high: 3 },
  { kind: 16, name: "cos", f: Math.cos, low: -1.5, high: 1.5 },
  { kind: 17, name: "log_sigmoid", f: (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x))), low: -20, high: 80 },
  { kind: 18, name: "quick_gelu", f: (x) => x * sigmoid(1.702 * x), low: -40, high: 9, tolerance: 6e-6 }, // e^68: its argument's rounding shows
];

for (const k of KINDS) {
  test(`unary ${k.name}: value and derivative`, async () => {
    const r = new Numbers(k.kind + 1);
    const n = 20011;
    const x = r.array(n, k.low, k.high);
    const y = out(n);
    op.unary(f32(x), y, k.kind, n, k.alpha ?? 0, k.beta ?? 0);
    closeEach(await read(y, n), Array.from(x, k.f), k.tolerance ?? 3e-7, k.tiny ?? 1e-37, k.name);

    const m = 515;
    const dy = r.array(m);
    const at = r.array(m, Math.max(k.low, -6), Math.min(k.high, 6));
    const handle = f32(at);
    const dx = f32(dy); // dx may be dy
    op.unaryBackward(handle, dx, dx, 0, k.kind, m, k.alpha ?? 0, k.beta ?? 0);
    const expected = Array.from(at, (v, i) => {
      const h = 1e-5 * Math.max(1e-3, Math.abs(v));
      return (dy[i]! * (k.f(v + h) - k.f(v - h))) / (2 * h);
    });
    const actual = await read(dx, m);
    // A kink (abs, relu, clamp) between the two points would make the difference meaningless; none of the numbers falls there.
    close(actual, expected, 3e-6, `${k.name}'`);
  });
}

test("gelu made again beside its gradient has the same bits, in the gradient's memory too", async () => {
  const r = new Numbers(31);
  const n = 40_003;
  const [x, dy] = [r.array(n, -9, 9), r.array(n)];
  for (const kind of [10, 11, 18]) {
    const [value, dx] = [out(n), out(n)];
    op.unary(f32(x), value, kind, n, 0, 0);
    op.unaryBackward(f32(x), f32(dy), dx, 0, kind, n, 0, 0);
    const expected = [await read(value, n), await read(dx, n)];
    const [at, from, y, over] = [f32(x), f32(dy), out(n), f32(dy)];
    op.unaryBackward(at, from, from, y, kind, n, 0, 0); // dx over dy
    assert.deepEqual([await read(y, n), await read(from, n)], expected, `kind ${kind}`);
    op.unaryBackward(at, over, at, over, kind, n, 0, 0); // dx over x, y over dy
    assert.deepEqual([await read(over, n), await read(at, n)], expected, `kind ${kind}`);
  }
  const [h, y] = [f32(x), out(n)];
  await fails(() => op.unaryBackward(h, h, y, y, 9, n, 0, 0), /y of unary_backward is made for gelu/);
});

test("unary handles infinities, NaN, zeros and subnormal numbers", async () => {
  const x = [0, -0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 1e-40, -1, 200, -200];
  const all = async (kind: number): Promise<number[]> => {
    const y = out(x.length);
    op.unary(f32(x), y, kind, x.length, 0, 0);
    return [...(await read(y, x.length))];
  };
  const inf = Number.POSITIVE_INFINITY;
  assert.deepEqual(await all(2), [1, 1, inf, 0, Number.NaN, 1, Math.fround(Math.exp(-1)), inf, 0]);
  const log = await all(3);
  assert.deepEqual(log.slice(0, 5), [-inf, -inf, inf, Number.NaN, Number.NaN]);
  closeEach(log.slice(5, 6), [Math.log(Math.fround(1e-40))], 3e-7);
  assert.ok(Number.isNaN(log[6]!));
  close((await all(7)).slice(0, 5), [0, 0, 1, -1, Number.NaN], 0);
  assert.deepEqual((await all(8)).slice(0, 5), [0.5, 0.5, 1, 0, Number.NaN]);
  const lsig = await all(17);
  assert.equal(lsig[3], -inf);
  assert.equal(lsig[8], -200);
  assert.ok(Number.isNaN((await all(12))[4]!)); // relu keeps NaN
});

const BINARY: [string, (a: number, b: number) => number][] = [
  ["add", (a, b) => a + b],
  ["sub", (a, b) => a - b],
  ["mul", (a, b) => a * b],
  ["div", (a, b) => a / b],
  ["max", Math.max],
  ["min", Math.min],
  ["pow", (a, b) => a ** b],
  ["equal", (a, b) => (a === b ? 1 : 0)],
  ["less", (a, b) => (a < b ? 1 : 0)],
];

test("binary: every kind, with every pattern of broadcasting", async () => {
  const r = new Numbers(5);
  const shapes: { d: number[]; as: number[]; bs: number[] }[] = [
    { d: [2, 3, 5, 37], as: [555, 185, 37, 1], bs: [555, 185, 37, 1] },
    { d: [2, 3, 5, 37], as: [555, 185, 37, 1], bs: [0, 0, 0, 1] }, // a bias
    { d: [2, 3, 5, 37], as: [555, 185, 37, 1], bs: [15, 5, 1, 0] }, // one factor a row
    { d: [2, 3, 5, 37], as: [0, 0, 0, 0], bs: [555, 185, 37, 1] }, // a scalar
    { d: [2, 3, 5, 37], as: [0, 37, 0, 1], bs: [5, 0, 1, 0] },
    { d: [1, 4, 6, 8], as: [0, 48, 1, 6], bs: [0, 48, 8, 1] }, // a transposed read
    { d: [1, 1, 1, 70001], as: [0, 0, 0, 1], bs: [0, 0, 0, 0] },
  ];
  for (const { d, as, bs } of shapes) {
    const n = d.reduce((p, q) => p * q, 1);
    const size = (s: number[]): number => 1 + s.reduce((sum, stride, j) => sum + stride * (d[j]! - 1), 0);
    // Few distinct values, so that equal pairs occur.
    const a = Float32Array.from({ length: size(as) }, () => (1 + r.int(40)) / 8);
    const b = Float32Array.from({ length: size(bs) }, () => (1 + r.int(40)) / 8);
    const [ha, hb] = [f32(a), f32(b)];
    for (const [kind, [name, f]] of BINARY.entries()) {
      const y = out(n);
      op.binary(
        ha,
        hb,
        y,
        kind,
        d[0]!,
        d[1]!,
        d[2]!,
        d[3]!,
        as[0]!,
        as[1]!,
        as[2]!,
        as[3]!,
        bs[0]!,
        bs[1]!,
        bs[2]!,
        bs[3]!,
      );
      const expected = new Float64Array(n);
      for (let i = 0; i < n; i++) {
        let rest = i;
        let [ia, ib] = [0, 0];
        for (let j = 3; j >= 0; j--) {
          ia += (rest % d[j]!) * as[j]!;
          ib += (rest % d[j]!) * bs[j]!;
          rest = Math.floor(rest / d[j]!);
        }
        expected[i] = f(a[ia]!, b[ib]!);
      }
      closeEach(await read(y, n), expected, 2e-7, 1e-37, `${name} over ${d}`);
    }
  }
});

test("binary max and min keep NaN", async () => {
  const y = out(3);
  const a = f32([Number.NaN, 1, 2]);
  const b = f32([1, Number.NaN, 3]);
  op.binary(a, b, y, 4, 1, 1, 1, 3, 0, 0, 0, 1, 0, 0, 0, 1);
  assert.deepEqual([...(await read(y, 3))], [Number.NaN, Number.NaN, 3]);
});

test("where and axpy", async () => {
  const r = new Numbers(9);
  const n = 33333;
  const [a, b, x] = [r.array(n), r.array(n), r.array(n)];
  const c = Float32Array.from({ length: n }, () => r.int(2));
  const y = out(n);
  op.where(f32(c), f32(a), f32(b), y, n);
  assert.deepEqual(
    await read(y, n),
    Float32Array.from(c, (v, i) => (v ? a[i]! : b[i]!)),
  );
  op.axpy(f32(x), y, n, -0.3);
  close(
    await read(y, n),
    Float64Array.from(c, (v, i) => (v ? a[i]! : b[i]!) - Math.fround(0.3) * x[i]!),
    1e-7,
  );
});

test("elementwise ops refuse wrong sizes and kinds", async () => {
  const x = f32(new Float32Array(10));
  const y = out(10);
  await fails(() => op.unary(x, y, 99, 10, 0, 0), /kind 99 of unary is unknown/);
  await fails(() => op.unary(x, y, 1, 12, 0, 0), /unary.*x holds 10 elements, expected at least 12/s);
  await fails(
    () => op.binary(x, x, y, 0, 1, 1, 2, 5, 0, 0, 6, 1, 0, 0, 5, 1),
    /a holds 10 elements, expected at least 11/,
  );
  await fails(() => op.binary(x, x, y, 0, 1, 1, 2, 5, 0, 0, -5, 1, 0, 0, 5, 1), /negative stride/);
  await fails(() => op.axpy(x, out(4), 5, 1), /y holds 4 elements/);
});
