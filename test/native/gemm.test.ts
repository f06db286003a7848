import assert from "node:assert/strict";
import { test } from "node:test";
import { gemm, lowRankGradients } from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { BOUND, nf4Products, products } from "./cases.js";
import { child, onEveryInstructionSet, read, send } from "./helpers.js";

test("products agree with float64 for all shapes, transpositions, strides, scalings and biases", async () => {
  for (const { name, error } of await products()) assert.ok(error < BOUND, `${name}: relative error ${error}`);
});

test("products with an NF4 weight agree with the restored weight", async () => {
  for (const { name, error } of await nf4Products()) assert.ok(error < BOUND, `${name}: relative error ${error}`);
});

test("every instruction set agrees, and the result does not depend on the number of threads", (t) =>
  onEveryInstructionSet(t, "cases.js", [1, 2, 5]));

test("an unknown instruction set is refused by name", () => {
  const run = child("cases.js", { TUNEBOOK_ISA: "mmx" });
  assert.notEqual(run.status, 0);
  assert.match(run.stderr, /TUNEBOOK_ISA must be avx512bf16, avx512, avx2 or portable, but is "mmx"/);
});

test("operands that are too short stop the product with its sizes", async () => {
  const a = send(new Float32Array(6));
  const y = send(new Float32Array(4));
  gemm(a, a, 0, y, 2, 2, 4, 0, 0, 4, 2, 2, 0, 1, 0);
  await assert.rejects(native.settle(), /gemm: a has 6 elements, but 8 are needed \(m 2, n 2, k 4/);
  native.recover();
  await native.settle();
  native.free(a);
  native.free(y);
});

test("gradients of a low-rank update agree with float64 and leave the gaps between rows alone", async () => {
  const [rows, cols, rank, ldH, ldDh] = [37, 53, 5, 7, 6];
  const values = (n: number, seed: number): Float32Array =>
    Float32Array.from({ length: n }, (_, i) => Math.sin(i * 0.7 + seed) * (1 + (i % 5)));
  const [dy, h, b] = [values(rows * cols, 1), values(rows * ldH, 2), values(cols * rank, 3)];
  const [dh, db] = [values(rows * ldDh, 4), values(cols * rank, 5)];
  const handles = [dy, h, b, dh, db].map((v) => send(v));
  lowRankGradients(...(handles as [number, number, number, number, number]), rows, cols, rank, ldH, ldDh, 0.5, 2);
  const [gotDh, gotDb] = [await read(handles[3]!, dh.length), await read(handles[4]!, db.length)];
  for (let r = 0; r < rows; r++)
    for (let j = 0; j < ldDh; j++) {
      let sum = 0;
      for (let c = 0; c < cols; c++) sum += 0.5 * dy[r * cols + c]! * b[c * rank + j]!;
      const want = j < rank ? sum : dh[r * ldDh + j]!;
      assert.ok(Math.abs(gotDh![r * ldDh + j]! - want) < 1e-4, `dh ${r}, ${j}`);
    }
  for (let c = 0; c < cols; c++)
    for (let j = 0; j < rank; j++) {
      let want = 2 * db[c * rank + j]!;
      for (let r = 0; r < rows; r++) want += 0.5 * dy[r * cols + c]! * h[r * ldH + j]!;
      assert.ok(Math.abs(gotDb![c * rank + j]! - want) < 1e-4, `db ${c}, ${j}`);
    }
  for (const t of handles) native.free(t);
});
