import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { checkGradient, close, f32, fails, i32, Numbers, out, read } from "./ops-harness.js";

type Rows = ArrayLike<number>;

function logSoftmax(x: Rows, rows: number, cols: number): Float64Array {
  const y = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    let max = -Infinity;
    for (let c = 0; c < cols; c++) max = Math.max(max, x[r * cols + c]!);
    let sum = 0;
    for (let c = 0; c < cols; c++) sum += Math.exp(x[r * cols + c]! - max);
    for (let c = 0; c < cols; c++) y[r * cols + c] = x[r * cols + c]! - max - Math.log(sum);
  }
  return y;
}
const softmax = (x: Rows, rows: number, cols: number): Float64Array => logSoftmax(x, rows, cols).map(Math.exp);

/** Per-row loss in float64, with smoothing; -100 has no loss. */
function lossOf(logits: Rows, labels: number[], vocab: number, smoothing: number): Float64Array {
  const logp = logSoftmax(logits, labels.length, vocab);
  return Float64Array.from(labels, (label, r) => {
    if (label === -100) return 0;
    let mean = 0;
    for (let c = 0; c < vocab; c++) mean -= logp[r * vocab + c]! / vocab;
    return -(1 - smoothing) * logp[r * vocab + label]! + smoothing * mean;
  });
}

test("softmax and log_softmax with their gradients", async () => {
  const r = new Numbers(1);
  for (const [rows, cols] of [
    [1, 1],
    [3, 2],
    [5, 16],
    [7, 33],
    [4, 1000],
    [2, 50257],
  ] as const) {
    const x = r.array(rows * cols, -30, 30);
    const dy = r.array(rows * cols);
    const y = out(rows * cols);
    const h = f32(x);
    op.softmax(h, y, rows, cols);
    close(await read(y, rows * cols), softmax(x, rows, cols), 4e-7);
    const dx = out(rows * cols);
    op.softmaxBackward(y, f32(dy), dx, rows, cols);
    const ly = out(rows * cols);
    op.logSoftmax(h, ly, rows, cols);
    close(await read(ly, rows * cols), logSoftmax(x, rows, cols), 3e-7);
    const ldx = out(rows * cols);
    op.logSoftmaxBackward(ly, f32(dy), ldx, rows, cols);
    if (cols > 1 && cols <= 1000) {
      checkGradient((at) => softmax(at, rows, cols), x, dy, await read(dx, rows * cols), { tolerance: 1e-5 });
      checkGradient((at) => logSoftmax(at, rows, cols), x, dy, await read(ldx, rows * cols), { tolerance: 1e-5 });
    }
  }
});

test("softmax of huge, equal and masked values", async () => {
  const inf = Number.NEGATIVE_INFINITY;
  const y = out(8);
  op.softmax(f32([1e30, 1e30, inf, -1e30, 5, inf, inf, inf]), y, 2, 4);
  close(await read(y, 8), [0.5, 0.5, 0, 0, 1, 0, 0, 0], 1e-7);
});

test("cross_entropy with smoothing, ignored labels and its gradient in place", async () => {
  const r = new Numbers(2);
  for (const [rows, vocab] of [
    [5, 2],
    [9, 19],
    [6, 513],
    [3, 50257],
  ] as const) {
    for (const smoothing of [0, 0.1]) {
      const x = r.array(rows * vocab, -8, 8);
      const labels = Array.from({ length: rows }, (_, i) => (i === 1 ? -100 : r.int(vocab)));
      const dloss = r.array(rows);
      const [loss, lse] = [out(rows), out(rows)];
      const h = f32(x);
      const hl = i32(labels);
      op.crossEntropy(h, hl, loss, lse, rows, vocab, smoothing);
      close(await read(loss, rows), lossOf(x, labels, vocab, Math.fround(smoothing)), 5e-7);
      op.crossEntropyBackward(h, hl, lse, f32(dloss), h, rows, vocab, smoothing);
      if (vocab < 1000) {
        const f = (at: Float64Array) => lossOf(at, labels, vocab, Math.fround(smoothing));
        checkGradient(f, x, dloss, await read(h, rows * vocab), { tolerance: 1e-5, samples: 200 });
      }
    }
  }
});

test("cross_entropy names a label out of range", async () => {
  const [loss, lse] = [out(3), out(3)];
  const x = f32(new Float32Array(12));
  await fails(
    () => op.crossEntropy(x, i32([0, 4, 1]), loss, lse, 3, 4, 0),
    /label 4 at row 1 is outside the vocabulary of 4/,
  );
  await fails(() => op.crossEntropy(x, i32([0, -1, 1]), loss, lse, 3, 4, 0), /label -1 at row 1/);
  await fails(
    () => op.crossEntropy(x, i32([0, 0, 1]), loss, lse, 3, 5, 0),
    /logits holds 12 elements, expected at least 15/,
  );
  await fails(() => op.crossEntropy(x, i32([0, 0, 1]), loss, lse, 3, 4, 1.5), /smoothing is 1.5/);
});

test("linear_cross_entropy: losses and gradients in chunks of rows, with and without ignored rows", async () => {
  const r = new Numbers(3);
  const [rows, dim, vocab] = [23, 37, 101];
  const x = r.array(rows * dim);
  const w = r.array(vocab * dim);
  const before = r.array(vocab * dim);
  const logitsOf = (a: Rows, b: Rows): Float64Array => {
    const y = new Float64Array(rows * vocab);
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < vocab; j++) {
        let s = 0;
        for (let k = 0; k < dim; k++) s += a[i * dim + k]! * b[j * dim + k]!;
        y[i * vocab + j] = s;
      }
    return y;
  };
  const scale = 0.25;
  const weights = new Float64Array(rows).fill(scale);
  for (const ignored of [0, 3]) {
    const labels = Array.from({ length: rows }, (_, i) => (ignored && i % ignored === 0 ? -100 : r.int(vocab)));
    for (const [chunk, smoothing] of [
      [0, 0],
      [1, 0.1],
      [7, 0],
      [100, 0.1],
    ] as const) {
      const [loss, dx, dw] = [out(rows), out(rows * dim), f32(before)];
      op.linearCrossEntropy(f32(x), f32(w), i32(labels), loss, dx, dw, rows, dim, vocab, chunk, 0, scale, smoothing);
      const e = Math.fround(smoothing);
      close(await read(loss, rows), lossOf(logitsOf(x, w), labels, vocab, e), 1e-6, "loss");
      const gx = await read(dx, rows * dim);
      checkGradient((at) => lossOf(logitsOf(at, w), labels, vocab, e), x, weights, gx, {
        tolerance: 1e-5,
        samples: 40,
      });
      const gw = (await read(dw, vocab * dim)).map((v, i) => v - before[i]!);
      checkGradient((at) => lossOf(logitsOf(x, at), labels, vocab, e), w, weights, gw, {
        tolerance: 2e-5,
        samples: 40,
      });
    }
  }
  // Without gradients, and with no trained row at all.
  const loss = out(rows);
  const none = new Array<number>(rows).fill(-100);
  op.linearCrossEntropy(f32(x), f32(w), i32(none), loss, 0, 0, rows, dim, vocab, 0, 0, 1, 0);
  close(await read(loss, rows), new Float64Array(rows), 0);
  await fails(
    () => op.linearCrossEntropy(f32(x), f32(w), i32(none.map(() => vocab)), loss, 0, 0, rows, dim, vocab, 0, 0, 1, 0),
    /label 101 at row 0 is outside the vocabulary of 101/,
  );
});
