import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { checkGradient, close, f32, fails, i32, Numbers, out, read } from "./ops-harness.js";

test("rope: halves and neighbours, part of the head, strides, and back", async () => {
  const r = new Numbers(1);
  const tableRows = 50;
  for (const [rows, heads, dim, rotary] of [
    [9, 3, 64, 64],
    [5, 2, 20, 12],
    [4, 1, 128, 64],
    [3, 5, 6, 0],
  ] as const) {
    const half = rotary / 2;
    const angle = r.array(tableRows * half, -3, 3);
    const [cos, sin] = [f32(angle.map(Math.cos)), f32(angle.map(Math.sin))];
    const positions = Array.from({ length: rows }, () => r.int(tableRows));
    const [xs, ys] = [heads * dim + 5, heads * dim + 2];
    const x = r.array(rows * xs);
    for (const interleaved of [0, 1]) {
      const y = f32(new Float32Array(rows * ys).fill(7));
      const hp = i32(positions);
      op.rope(f32(x), hp, cos, sin, y, rows, heads, dim, rotary, interleaved, 0, xs, ys, tableRows);
      const expected = new Float64Array(rows * ys).fill(7);
      for (let i = 0; i < rows; i++)
        for (let h = 0; h < heads; h++)
          for (let d = 0; d < dim; d++) {
            let v = x[i * xs + h * dim + d]!;
            if (d < rotary) {
              const pair = interleaved ? d >> 1 : d % half;
              const second = interleaved ? d % 2 === 1 : d >= half;
              const other = x[i * xs + h * dim + (interleaved ? d ^ 1 : (d + half) % rotary)]!;
              const a = angle[positions[i]! * half + pair]!;
              v = v * Math.fround(Math.cos(a)) + (second ? other : -other) * Math.fround(Math.sin(a));
            }
            expected[i * ys + h * dim + d] = v;
          }
      close(await read(y, rows * ys), expected, 2e-7);
      op.rope(y, hp, cos, sin, y, rows, heads, dim, rotary, interleaved, 1, ys, ys, tableRows); // in place, backwards
      const restored = await read(y, rows * ys);
      for (let i = 0; i < rows; i++)
        close(restored.slice(i * ys, i * ys + heads * dim), x.slice(i * xs, i * xs + heads * dim), 5e-7);
    }
  }
});

test("rope names a position outside its table", async () => {
  const x = f32(new Float32Array(8));
  const table = f32(new Float32Array(20));
  await fails(
    () => op.rope(x, i32([3, 10]), table, table, x, 2, 1, 4, 4, 0, 0, 4, 4, 10),
    /position 10 at row 1 is outside the table of 10 positions/,
  );
  await fails(() => op.rope(x, i32([3, -1]), table, table, x, 2, 1, 4, 4, 0, 0, 4, 4, 10), /position -1 at row 1/);
  await fails(() => op.rope(x, i32([0, 0]), table, table, x, 2, 1, 4, 3, 0, 0, 4, 4, 10), /rotary_dim is 3/);
});

test("swiglu over halves of one tensor, with its gradient", async () => {
  const r = new Numbers(2);
  const { view, free } = await import("../../src/tensor/native.js");
  for (const [rows, cols] of [
    [1, 1],
    [5, 33],
    [17, 1536],
  ] as const) {
    const both = r.array(rows * cols * 2, -6, 6);
    const h = f32(both);
    const up = view(h, cols * 4, (rows * 2 - 1) * cols * 4, 0);
    const y = out(rows * cols);
    op.swiglu(h, up, y, rows, cols, 2 * cols, 2 * cols, cols);
    const f = (x: ArrayLike<number>): Float64Array =>
      Float64Array.from({ length: rows * cols }, (_, i) => {
        const [row, c] = [Math.floor(i / cols), i % cols];
        const g = x[row * 2 * cols + c]!;
        return (g / (1 + Math.exp(-g))) * x[row * 2 * cols + cols + c]!;
      });
    close(await read(y, rows * cols), f(both), 3e-7);
    const dy = r.array(rows * cols);
    const d = out(rows * cols * 2);
    const dup = view(d, cols * 4, (rows * 2 - 1) * cols * 4, 0);
    const over = f32(dy); // y again, in the place of its gradient
    op.swigluBackward(h, up, over, d, dup, over, rows, cols, 2 * cols, 2 * cols, cols, 2 * cols, 2 * cols);
    assert.deepEqual(await read(over, rows * cols), await read(y, rows * cols));
    checkGradient(f, both, dy, await read(d, rows * cols * 2), { tolerance: 1e-5, samples: 100 });
    await fails(() => op.swiglu(h, up, y, rows + 1, cols, 2 * cols, 2 * cols, cols), /gate holds/);
    free(up);
    free(dup);
  }
});

test("embedding and its gradient; an id out of range is named with its row and the vocabulary", async () => {
  const r = new Numbers(3);
  for (const [vocab, dim, rows] of [
    [11, 1, 5],
    [50, 67, 200],
    [300, 576, 65],
  ] as const) {
    const w = r.array(vocab * dim);
    const ids = Array.from({ length: rows }, () => r.int(vocab));
    const y = out(rows * dim);
    const hi = i32(ids);
    op.embedding(f32(w), hi, y, rows, dim, vocab);
    const expected = new Float32Array(rows * dim);
    for (const [i, id] of ids.entries()) expected.set(w.subarray(id * dim, (id + 1) * dim), i * dim);
    assert.deepEqual(await read(y, rows * dim), expected);
    const [dy, before] = [r.array(rows * dim), r.array(vocab * dim)];
    const dw = f32(before);
    op.embeddingBackward(f32(dy), hi, dw, rows, dim, vocab);
    const sum = Float64Array.from(before);
    for (const [i, id] of ids.entries()) for (let d = 0; d < dim; d++) sum[id * dim + d]! += dy[i * dim + d]!;
    close(await read(dw, vocab * dim), sum, 1e-6);
  }
  const w = f32(new Float32Array(40));
  await fails(
    () => op.embedding(w, i32([1, 2, 10]), out(12), 3, 4, 10),
    /id 10 at row 2 is outside the vocabulary of 10/,
  );
  await fails(() => op.embedding(w, i32([1, -5, 0]), out(12), 3, 4, 10), /id -5 at row 1/);
  await fails(() => op.embedding(w, i32([1, 2]), out(12), 3, 4, 10), /ids holds 2 elements, expected at least 3/);
  await fails(() => op.embedding(w, w, out(12), 3, 4, 10), /ids is float32, expected int32/);
});
