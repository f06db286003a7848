import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { fp8Products, toE4m3 } from "./fp8.js";
import { onEveryInstructionSet, random, read, send } from "./helpers.js";

const sized = (count: number, f: (i: number) => number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => f(i));

test("rounding to E4M3 in the tests is that of the codes", async () => {
  const every = Uint8Array.from({ length: 127 }, (_, i) => i);
  const [q, scale, y] = [send(every), send(Float32Array.of(1)), native.alloc(127 * 4, 0)];
  op.dequantizeFp8(q, scale, y, 1, 127);
  const values = await read(y, 127);
  for (const h of [q, scale, y]) native.free(h);
  for (let i = 0; i < 127; i++) {
    assert.equal(toE4m3(values[i]!), values[i]);
    if (i === 126) continue;
    const [low, high] = [values[i]!, values[i + 1]!];
    assert.equal(toE4m3((low + high) / 2), i % 2 === 0 ? low : high, "ties to even");
    assert.equal(toE4m3(low * 0.51 + high * 0.49), low);
    assert.equal(toE4m3(low * 0.49 + high * 0.51), high);
  }
  assert.equal(toE4m3(-1e9), -448);
});

test("products over E4M3 weights agree with float64, with inputs as they are and rounded", async () => {
  for (const { name, error, bound } of await fp8Products())
    assert.ok(error < bound, `${name}: relative error ${error}`);
});

test("E4M3 products agree on every instruction set and do not depend on the number of threads", (t) =>
  onEveryInstructionSet(t, "fp8.js", [1, 2]));

test("a product cut into pieces of rows is the product of each piece", async () => {
  const [m, rows, cols] = [2500, 24, 40]; // more rows than are rounded at once
  const [a, w] = [random(m * cols, 3), random(rows * cols, 5)];
  const [ah, wh, y, part] = [send(a), send(w), native.alloc(m * rows * 4, 0), native.alloc(10 * rows * 4, 0)];
  const [q, scale] = [native.alloc(rows * cols, 4), native.alloc(rows * 4, 0)];
  op.quantizeFp8(wh, q, scale, rows, cols);
  op.gemmFp8(ah, q, scale, 0, 0, y, m, rows, cols, 1, cols, rows, 1, 0, 1, 0);
  const all = await read(y, m * rows);
  for (const from of [0, 2036, 2490]) {
    const some = send(a.slice(from * cols, (from + 10) * cols));
    op.gemmFp8(some, q, scale, 0, 0, part, 10, rows, cols, 1, cols, rows, 1, 0, 1, 0);
    const got = await read(part, 10 * rows);
    for (const [i, v] of got.entries())
      assert.ok(Math.abs(v - all[from * rows + i]!) < 1e-5 * Math.max(1, Math.abs(v)));
    native.free(some);
  }
  for (const h of [ah, wh, y, part, q, scale]) native.free(h);
});

test("a product takes rows that were rounded before: bit for bit what it makes of the rows themselves", async () => {
  for (const [m, rows, cols] of [
    [3, 20, 48],
    [70, 24, 40],
    [2500, 24, 40],
  ] as const) {
    const a = random(m * cols, 13);
    a.fill(0, cols, 2 * cols);
    a[2 * cols + 1] = Number.NaN;
    const [ah, wh, bias] = [send(a), send(random(rows * cols, 15)), send(random(rows, 17))];
    const [y, same] = [send(new Float32Array(m * rows).fill(0.25)), send(new Float32Array(m * rows).fill(0.25))];
    const [q, scale] = [native.alloc(rows * cols, 4), native.alloc(rows * 4, 0)];
    const [codes, scales] = [native.alloc(m * cols, 4), native.alloc(m * 4, 0)];
    op.quantizeFp8(wh, q, scale, rows, cols);
    op.quantizeFp8(ah, codes, scales, m, cols);
    op.gemmFp8(ah, q, scale, bias, 0, y, m, rows, cols, 1, cols, rows, 1, 0, 0.5, 1);
    op.gemmFp8(codes, q, scale, bias, scales, same, m, rows, cols, 1, cols, rows, 1, 0, 0.5, 1);
    // As numbers: arrays of floats would be compared by their bytes, and one NaN has many.
    assert.deepEqual([...(await read(same, m * rows))], [...(await read(y, m * rows))], `${m} rows`);
    for (const h of [ah, wh, bias, y, same, q, scale, codes, scales]) native.free(h);
  }
});

test("rows of zeros and rows that are not finite go through a product that rounds its inputs", async () => {
  const [m, rows, cols] = [70, 20, 48];
  for (const transposed of [1, 0]) {
    const [n, k] = transposed ? [rows, cols] : [cols, rows];
    const a = random(m * k, 7);
    a.fill(0, 3 * k, 4 * k);
    a.fill(1e-35, 5 * k, 6 * k);
    a[9 * k + 2] = Number.NaN;
    a[11 * k] = Number.NEGATIVE_INFINITY;
    const w = random(rows * cols, 9);
    w.fill(0, 2 * cols, 3 * cols);
    const [ah, wh, y] = [send(a), send(w), native.alloc(m * n * 4, 0)];
    const [q, scale] = [native.alloc(rows * cols, 4), native.alloc(rows * 4, 0)];
    op.quantizeFp8(wh, q, scale, rows, cols);
    op.gemmFp8(ah, q, scale, 0, 0, y, m, rows, cols, transposed, k, n, 1, 0, 1, 0);
    const got = await read(y, m * n);
    for (let i = 0; i < m; i++) {
      const row = got.subarray(i * n, (i + 1) * n);
      if (i === 3 || i === 5)
        assert.ok(
          row.every((v) => v === 0),
          `row ${i}`,
        );
      else if (i === 9 || i === 11) assert.ok(row.every(Number.isNaN), `row ${i}`);
      else assert.ok(row.every(Number.isFinite), `row ${i}`);
    }
    if (transposed) assert.ok(sized(m, (i) => got[i * n + 2]!).every((v) => v === 0 || Number.isNaN(v)));
    for (const h of [ah, wh, y, q, scale]) native.free(h);
  }
});

test("wrong tensors and values are refused by name", async () => {
  const [q, scale, a, y] = [native.alloc(12, 4), native.alloc(12, 0), native.alloc(64, 0), native.alloc(64, 0)];
  const refused = async (call: () => void, words: RegExp): Promise<void> => {
    call();
    await assert.rejects(native.settle(), words);
    native.recover();
  };
  await refused(
    () => op.gemmFp8(a, q, scale, 0, 0, y, 2, 3, 4, 1, 4, 3, 2, 0, 1, 0),
    /gemm_fp8: round_a must be 0 .* or 1/,
  );
  await refused(() => op.gemmFp8(a, q, scale, 0, 0, y, 2, 4, 4, 1, 4, 3, 0, 0, 1, 0), /gemm_fp8: q holds 12 elements/);
  await refused(() => op.gemmFp8(a, q, scale, 0, scale, y, 2, 3, 4, 1, 4, 3, 1, 0, 1, 0), /a must be codes/);
  await refused(
    () => op.gemmFp8(q, q, scale, 0, scale, y, 2, 3, 4, 1, 4, 3, 0, 0, 1, 0),
    /round_a and trans_w must be 1/,
  );
  await refused(
    () => op.gemmFp8(q, q, scale, 0, scale, y, 2, 3, 4, 0, 3, 4, 1, 0, 1, 0),
    /round_a and trans_w must be 1/,
  );
  await refused(() => op.gemmFp8(q, q, scale, 0, scale, y, 4, 3, 4, 1, 4, 3, 1, 0, 1, 0), /4 rows of 4 codes/);
  await refused(() => op.dequantizeFp8(q, a, y, 3, 5), /dequantize_fp8: q holds 12/);
  await refused(() => op.quantizeFp8(a, q, q, 3, 4), /quantize_fp8: scale is uint8, expected float32/);
  for (const h of [q, scale, a, y]) native.free(h);
});
