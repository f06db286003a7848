import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { halfProducts, quantisedProducts, toBf16 } from "./halves.js";
import { onEveryInstructionSet, random, read, send } from "./helpers.js";

test("products with 16-bit operands and in bfloat16 agree with float64 of the rounded operands", async () => {
  for (const { name, error, bound } of await halfProducts())
    assert.ok(error < bound, `${name}: relative error ${error}`);
});

test("products over NF4, FP4, int8 and block weights agree with the restored weight, exact and in bfloat16", async () => {
  for (const { name, error, bound } of await quantisedProducts())
    assert.ok(error < bound, `${name}: relative error ${error}`);
});

test("16-bit products agree on every instruction set and do not depend on the number of threads", (t) =>
  onEveryInstructionSet(t, "halves.js", [1, 2]));

test("rows of 16-bit tables are widened exactly", async () => {
  const [vocab, dim] = [11, 37];
  const table = toBf16(random(vocab * dim, 3));
  const full = send(table);
  const ids = send(Int32Array.of(10, 0, 3, 3));
  for (const dtype of [1, 2]) {
    const half = native.alloc(table.length * 2, dtype);
    op.copy(full, half, table.length);
    const y = native.alloc(4 * dim * 4, 0);
    op.embedding(half, ids, y, 4, dim, vocab);
    const got = await read(y, 4 * dim);
    const wanted = [10, 0, 3, 3].flatMap((id) => [...table.subarray(id * dim, (id + 1) * dim)]);
    // bfloat16 values of this size have at most 8 digits, which float16 holds as well unless they are tiny.
    for (const [i, v] of wanted.entries()) assert.ok(Math.abs(got[i]! - v) <= (dtype === 1 ? 0 : 2 ** -25), `${i}`);
    for (const h of [half, y]) native.free(h);
  }
  for (const h of [full, ids]) native.free(h);
});

test("a NaN or an infinity comes through a bfloat16 product", async () => {
  const [m, n, k] = [30, 40, 50];
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 3.4e38]) {
    const a = random(m * k, 3);
    a[7 * k + 9] = bad;
    const b = new Float32Array(n * k).fill(1);
    const handles = [send(a), send(b), native.alloc(m * n * 4, 0)] as const;
    op.gemm(handles[0], handles[1], 0, handles[2], m, n, k, 0, 1, k, k, n, 1, 1, 0);
    const y = await read(handles[2], m * n);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        const v = y[i * n + j]!;
        if (i !== 7) assert.ok(Number.isFinite(v));
        else assert.ok(Number.isNaN(bad) ? Number.isNaN(v) : v > 3e38, `${bad}: ${v}`);
      }
    }
    for (const h of handles) native.free(h);
  }
});

test("linear + cross entropy over a 16-bit head follows the float32 one", async () => {
  const [rows, dim, vocab] = [30, 48, 130];
  const x = send(random(rows * dim, 3));
  const head = send(random(vocab * dim, 5));
  const half = native.alloc(vocab * dim * 2, 1);
  op.copy(head, half, vocab * dim);
  op.copy(half, head, vocab * dim); // both hold the rounded values
  const labels = send(Int32Array.from({ length: rows }, (_, i) => (i % 5 === 0 ? -100 : (i * 37) % vocab)));
  const results: Float32Array[][] = [];
  for (const [weight, compute] of [
    [head, 0],
    [half, 0],
    [half, 1],
  ] as const) {
    const [loss, dx] = [native.alloc(rows * 4, 0), native.alloc(rows * dim * 4, 0)];
    op.linearCrossEntropy(x, weight, labels, loss, dx, 0, rows, dim, vocab, 0, compute, 0.5, 0.1);
    results.push([await read(loss, rows), await read(dx, rows * dim)]);
    for (const h of [loss, dx]) native.free(h);
  }
  assert.deepEqual(results[1], results[0], "widening is exact");
  for (const part of [0, 1]) {
    const [exact, rounded] = [results[0]![part]!, results[2]![part]!];
    const scale = Math.max(...exact.map(Math.abs));
    for (const [i, v] of exact.entries()) assert.ok(Math.abs(rounded[i]! - v) < 1e-2 * scale);
  }
  for (const h of [x, head, half, labels]) native.free(h);
});
