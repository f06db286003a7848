// Runs ops on sizes that are cut into several pieces of work and prints a digest of each result: see ops-isa.test.ts.
import { createHash } from "node:crypto";
import * as op from "../../src/tensor/calls.js";
import { alloc, download, type Handle, upload } from "../../src/tensor/native.js";

let state = 1;
function values(n: number): Float32Array {
  const x = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    x[i] = state / 2147483648 - 1;
  }
  return x;
}
function put(x: Float32Array | Int32Array | Uint8Array, dtype = 0): Handle {
  const h = alloc(x.byteLength, dtype);
  upload(h, x);
  return h;
}
const f32 = (n: number): Handle => put(values(n));
const zeros = (n: number): Handle => put(new Float32Array(n));
const ints = (n: number, f: (i: number) => number): Handle =>
  put(
    Int32Array.from({ length: n }, (_, i) => f(i)),
    3,
  );

async function print(name: string, ...results: [Handle, number][]): Promise<void> {
  const hash = createHash("sha256");
  for (const [h, n] of results) {
    const x = new Float32Array(n);
    await download(h, x);
    hash.update(x);
  }
  console.log(`${name} ${hash.digest("hex").slice(0, 24)}`);
}

const N = 300_007;
const [x, dy, y] = [f32(N), f32(N), zeros(N)];
for (const kind of [2, 7, 9, 10, 11, 17]) {
  op.unary(x, y, kind, N, 1, 0);
  await print(`unary ${kind}`, [y, N]);
  op.unaryBackward(x, dy, y, 0, kind, N, 1, 0);
  await print(`unary_backward ${kind}`, [y, N]);
}
op.binary(x, dy, y, 2, 1, 1, 1, N, 0, 0, 0, 1, 0, 0, 0, 1);
op.axpy(x, y, N, 0.7);
await print("binary, axpy", [y, N]);
op.dropout(x, y, N, 3, 4, 0.3);
await print("dropout", [y, N]);
op.randomNormal(y, N, 3, 4, 0, 1);
await print("random_normal", [y, N]);
for (const kind of [0, 1, 2]) {
  op.reduce(x, y, kind, 3, 100_001, 1);
  await print(`reduce rows ${kind}`, [y, 3]);
  op.reduce(x, y, kind, 1, 3001, 99);
  await print(`reduce columns ${kind}`, [y, 99]);
}
op.sumTo(x, y, 10, 20, 30, 49, 0, 49, 0, 1, 980);
await print("sum_to", [y, 980]);
op.sumSquares([x, dy, x], y);
await print("sum_squares", [y, 1]);

const [rows, cols] = [517, 579];
const n = rows * cols;
const [w, rstd, mean, dw, db] = [f32(cols), zeros(rows), zeros(rows), f32(cols), f32(cols)];
op.softmax(x, y, rows, cols);
await print("softmax", [y, n]);
op.rmsNorm(x, 0, w, y, 0, rstd, rows, cols, 1e-5);
await print("rms_norm", [y, n], [rstd, rows]);
op.rmsNormBackward(dy, x, w, rstd, 0, y, dw, rows, cols);
await print("rms_norm_backward", [y, n], [dw, cols]);
op.layerNorm(x, dy, w, 0, y, y, mean, rstd, rows, cols, 3, 4, 1e-5, 0.3);
await print("layer_norm", [y, n]);
op.layerNorm(x, 0, w, 0, y, 0, mean, rstd, rows, cols, 0, 0, 1e-5, 0);
op.layerNormBackward(dy, x, w, mean, rstd, x, y, 0, dw, db, rows, cols, 0, 0, 0);
await print("layer_norm_backward", [y, n], [dw, cols], [db, cols]);
op.swiglu(x, dy, y, rows, cols, cols, cols, cols);
await print("swiglu", [y, n]);
const table = f32(100 * cols);
op.embeddingBackward(
  x,
  ints(rows, (i) => (i * 7) % 100),
  table,
  rows,
  cols,
  100,
);
await print("embedding_backward", [table, 100 * cols]);

const labels = ints(rows, (i) => (i % 5 === 0 ? -100 : i));
const [loss, lse] = [zeros(rows), zeros(rows)];
op.crossEntropy(x, labels, loss, lse, rows, cols, 0.1);
op.crossEntropyBackward(x, labels, lse, rstd, y, rows, cols, 0.1);
await print("cross_entropy", [loss, rows], [y, n]);
const head = f32(700 * 65);
const [lx, dx] = [f32(rows * 65), zeros(rows * 65)];
op.linearCrossEntropy(lx, head, labels, loss, dx, head, rows, 65, 700, 100, 0, 0.5, 0);
await print("linear_cross_entropy", [loss, rows], [dx, rows * 65], [head, 700 * 65]);

const [p, m, v] = [f32(N), zeros(N), zeros(N)];
const norm = zeros(1);
op.sumSquares([dy], norm);
op.adamw([p], [dy], [m], [v], norm, 1, 1e-2, 0.9, 0.999, 1e-8, 0.01, 1);
await print("adamw", [p, N], [m, N], [v, N]);
const [m8, v8] = [put(new Uint8Array(N), 4), put(new Uint8Array(N), 4)];
const [am, av] = [zeros(Math.ceil(N / 256)), zeros(Math.ceil(N / 256))];
for (const step of [1, 2]) op.adamw8bit([p], [dy], [m8], [v8], [am], [av], norm, step, 1e-2, 0.9, 0.999, 1e-8, 0.01, 1);
await print("adamw_8bit", [p, N], [am, Math.ceil(N / 256)], [av, Math.ceil(N / 256)]);

for (const [length, kLength, heads, kv, dim] of [
  [300, 300, 6, 2, 40],
  [150, 150, 18, 18, 16],
  [2, 1500, 6, 2, 64],
] as const) {
  const [q, k, vv] = [f32(length * heads * dim), f32(kLength * kv * dim), f32(kLength * kv * dim)];
  const [o, l] = [zeros(length * heads * dim), zeros(length * heads)];
  const ranges = [0, length, 0, kLength].map((value) => ints(1, () => value)) as [Handle, Handle, Handle, Handle];
  const widths = [heads * dim, kv * dim, kv * dim, heads * dim] as const;
  const shape = [1, length, kLength, heads, kv, dim, ...widths, 1, 0, 0, 0.2, 0] as const;
  op.attention(q, k, vv, ...ranges, o, l, ...shape);
  await print(`attention ${length}`, [o, length * heads * dim], [l, length * heads]);
  const [dq, dk, dv] = [zeros(length * heads * dim), zeros(kLength * kv * dim), zeros(kLength * kv * dim)];
  op.attentionBackward(q, k, vv, o, l, f32(length * heads * dim), ...ranges, dq, dk, dv, ...shape);
  await print(
    `attention_backward ${length}`,
    [dq, length * heads * dim],
    [dk, kLength * kv * dim],
    [dv, kLength * kv * dim],
  );
}
