import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { close, f32, fails, i32, Numbers, out, read, readInts } from "./ops-harness.js";

test("reduce: sum, mean, max, min over rows, columns and the middle", async () => {
  const r = new Numbers(1);
  for (const [outer, n, inner] of [
    [1, 100003, 1],
    [7, 1, 1],
    [13, 1000, 1],
    [3, 40000, 1],
    [1, 1000, 70],
    [1, 1500, 3],
    [4, 17, 300],
    [5, 3, 16],
  ] as const) {
    const x = r.array(outer * n * inner, -1, 2);
    const h = f32(x);
    for (const kind of [0, 1, 2, 3]) {
      const y = out(outer * inner);
      op.reduce(h, y, kind, outer, n, inner);
      const expected = new Float64Array(outer * inner);
      for (let o = 0; o < outer; o++)
        for (let i = 0; i < inner; i++) {
          let acc = [0, 0, -Infinity, Infinity][kind]!;
          for (let j = 0; j < n; j++) {
            const v = x[(o * n + j) * inner + i]!;
            acc = kind < 2 ? acc + v : kind === 2 ? Math.max(acc, v) : Math.min(acc, v);
          }
          expected[o * inner + i] = kind === 1 ? acc / n : acc;
        }
      close(await read(y, outer * inner), expected, 5e-7, `kind ${kind} of ${outer} x ${n} x ${inner}`);
    }
  }
});

test("a sum of ten million ones is exact, and max keeps NaN", async () => {
  const n = 10_000_000;
  const y = out(1);
  op.reduce(f32(new Float32Array(n).fill(1)), y, 0, 1, n, 1);
  assert.equal((await read(y, 1))[0], n);
  const x = new Float32Array(100);
  x[37] = Number.NaN;
  op.reduce(f32(x), y, 2, 1, 100, 1);
  assert.ok(Number.isNaN((await read(y, 1))[0]!));
});

test("sum_to: the gradient of every kind of broadcast", async () => {
  const r = new Numbers(2);
  const d = [3, 4, 5, 37];
  const n = 3 * 4 * 5 * 37;
  const x = r.array(n);
  const h = f32(x);
  for (let mask = 0; mask < 16; mask++) {
    const ys = [0, 0, 0, 0];
    let count = 1;
    for (let j = 3; j >= 0; j--) {
      if (mask & (1 << j)) {
        ys[j] = count;
        count *= d[j]!;
      }
    }
    const y = out(count);
    op.sumTo(h, y, d[0]!, d[1]!, d[2]!, d[3]!, ys[0]!, ys[1]!, ys[2]!, ys[3]!, count);
    const expected = new Float64Array(count);
    for (let i = 0; i < n; i++) {
      let rest = i;
      let to = 0;
      for (let j = 3; j >= 0; j--) {
        to += (rest % d[j]!) * ys[j]!;
        rest = Math.floor(rest / d[j]!);
      }
      expected[to]! += x[i]!;
    }
    close(await read(y, count), expected, 1e-6, `axes ${mask.toString(2)}`);
  }
  const transposed = out(20); // y's axes in another order than x's
  op.sumTo(h, transposed, 3, 4, 5, 37, 0, 1, 4, 0, 20);
  const expected = new Float64Array(20);
  for (let i = 0; i < n; i++) expected[(Math.floor(i / 185) % 4) + (Math.floor(i / 37) % 5) * 4]! += x[i]!;
  close(await read(transposed, 20), expected, 1e-6);
  await fails(() => op.sumTo(h, transposed, 3, 4, 5, 37, 0, 0, 1, 5, 20), /reach element 184, y_count is 20/);
});

test("argmax: the first of the largest", async () => {
  const r = new Numbers(3);
  for (const cols of [1, 5, 16, 33, 1000]) {
    const x = Float32Array.from({ length: 9 * cols }, () => r.int(7));
    const y = i32(new Int32Array(9));
    op.argmax(f32(x), y, 9, cols);
    const expected = Array.from({ length: 9 }, (_, i) => {
      const row = [...x.subarray(i * cols, (i + 1) * cols)];
      return row.indexOf(Math.max(...row));
    });
    assert.deepEqual([...(await readInts(y, 9))], expected);
  }
});

test("sum_squares over a list, in double", async () => {
  const r = new Numbers(4);
  const arrays = [1, 17, 70000, 200001].map((n) => r.array(n, -100, 100));
  const y = out(1);
  op.sumSquares(
    arrays.map((a) => f32(a)),
    y,
  );
  let expected = 0;
  for (const a of arrays) for (const v of a) expected += v * v;
  close(await read(y, 1), [expected], 6e-8);
  op.sumSquares([], y);
  assert.equal((await read(y, 1))[0], 0);
});

test("pick and its gradient; -100 picks nothing; other indices out of range are named", async () => {
  const r = new Numbers(6);
  const x = r.array(6 * 11);
  const index = [3, 0, -100, 10, 5, 5];
  const y = out(6);
  op.pick(f32(x), i32(index), y, 6, 11);
  assert.deepEqual(
    await read(y, 6),
    Float32Array.from(index, (c, row) => (c === -100 ? 0 : x[row * 11 + c]!)),
  );
  const dy = r.array(6);
  const dx = out(66);
  op.pickBackward(f32(dy), i32(index), dx, 6, 11);
  const expected = new Float32Array(66);
  for (const [row, c] of index.entries()) if (c !== -100) expected[row * 11 + c] = dy[row]!;
  assert.deepEqual(await read(dx, 66), expected);
  await fails(() => op.pick(f32(x), i32([0, 1, 11, 0, 0, 0]), y, 6, 11), /index 11 at row 2 is outside 0\.\.10/);
  await fails(() => op.reduce(f32(x), y, 2, 6, 0, 1), /n is 0/);
});
