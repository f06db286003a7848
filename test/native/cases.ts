// Products of many shapes against a float64 reference. Run by the tests in process, and as a program in child processes for each instruction set.
import { pathToFileURL } from "node:url";
import { dequantizeNf4, gemm, gemmBatched, gemmNf4, quantizeAbsmax, quantizeNf4 } from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { type Outcome, printProducts, random, read, relativeError, send } from "./helpers.js";

/** Bound of the relative error of each of these products. */
export const BOUND = 2e-6;

interface Product {
  m: number;
  n: number;
  k: number;
  ta: number;
  tb: number;
  /** Added to the shortest row strides. */
  pad?: number;
  alpha?: number;
  beta?: number;
  bias?: boolean;
}

function reference(p: Product, a: Float32Array, b: Float32Array, bias: Float32Array, y: Float32Array): Float64Array {
  const { m, n, k, ta, tb, pad = 0, alpha = 1, beta = 0 } = p;
  const lda = (ta ? m : k) + pad;
  const ldb = (tb ? k : n) + pad;
  const ldy = n + pad;
  const out = Float64Array.from(y);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let s = 0;
      for (let q = 0; q < k; q++)
        s += (a[ta ? q * lda + i : i * lda + q] as number) * (b[tb ? j * ldb + q : q * ldb + j] as number);
      out[i * ldy + j] =
        alpha * s + (beta === 0 ? 0 : beta * (y[i * ldy + j] as number)) + (p.bias ? (bias[j] as number) : 0);
    }
  }
  return out;
}

async function product(p: Product): Promise<Outcome> {
  const { m, n, k, ta, tb, pad = 0, alpha = 1, beta = 0 } = p;
  const lda = (ta ? m : k) + pad;
  const ldb = (tb ? k : n) + pad;
  const ldy = n + pad;
  const a = random((ta ? k : m) * lda, 3);
  const b = random((tb ? n : k) * ldb, 5);
  const y = random(m * ldy, 7);
  if (beta === 0) {
    // With beta 0 y is not read: garbage must not come through.
    for (let i = 0; i < m; i++) y.fill(Number.NaN, i * ldy, i * ldy + n);
  }
  const bias = random(n, 9);
  const handles = [send(a), send(b), send(y), send(bias)] as [number, number, number, number];
  gemm(handles[0], handles[1], p.bias ? handles[3] : 0, handles[2], m, n, k, ta, tb, lda, ldb, ldy, 0, alpha, beta);
  const values = await read(handles[2], y.length);
  for (const h of handles) native.free(h);
  const name = `${m}x${n}x${k} ${ta ? "T" : "N"}${tb ? "T" : "N"} pad ${pad} alpha ${alpha} beta ${beta}${p.bias ? " bias" : ""}`;
  return { name, error: relativeError(values, reference(p, a, b, bias, y)), values };
}

/** Every path of the product: vectors, narrow, wide, tiny and odd, several pieces of k, strides, scaling and bias. */
export async function products(): Promise<Outcome[]> {
  const sizes: [number, number, number][] = [
    [1, 1, 1],
    [1, 300, 37],
    [2, 70, 129],
    [3, 257, 64],
    [4, 33, 700],
    [5, 7, 11],
    [13, 65, 17],
    [25, 31, 33],
    [12, 64, 16],
    [50, 129, 200],
    [97, 16, 130],
    [64, 4, 1300],
    [61, 100, 1301],
    [129, 300, 66],
  ];
  const outcomes: Outcome[] = [];
  for (const [m, n, k] of sizes) {
    for (const ta of [0, 1]) {
      for (const tb of [0, 1]) {
        outcomes.push(await product({ m, n, k, ta, tb }));
        outcomes.push(await product({ m, n, k, ta, tb, pad: 5, alpha: 0.5, beta: -2, bias: true }));
      }
    }
  }
  outcomes.push(await product({ m: 2100, n: 70, k: 20, ta: 0, tb: 1 }));
  outcomes.push(await product({ m: 9, n: 40, k: 0, ta: 0, tb: 1, beta: 0.5, bias: true }));
  outcomes.push(await batched());
  return outcomes;
}

/** Grouped heads: three left operands share one right operand. */
async function batched(): Promise<Outcome> {
  const [batch, m, n, k, group] = [6, 10, 21, 19, 3];
  const a = random(batch * m * k, 11);
  const b = random((batch / group) * k * n, 13);
  const expected = new Float64Array(batch * m * n);
  for (let i = 0; i < batch; i++) {
    const one = reference(
      { m, n, k, ta: 0, tb: 0 },
      a.subarray(i * m * k, (i + 1) * m * k),
      b.subarray(Math.floor(i / group) * k * n),
      new Float32Array(n),
      new Float32Array(m * n),
    );
    expected.set(one, i * m * n);
  }
  const handles = [send(a), send(b), send(new Float32Array(batch * m * n))] as [number, number, number];
  gemmBatched(handles[0], handles[1], handles[2], batch, m, n, k, 0, 0, k, n, n, m * k, k * n, m * n, group, 0, 1, 0);
  const values = await read(handles[2], expected.length);
  for (const h of handles) native.free(h);
  return { name: "batched, b_group 3", error: relativeError(values, expected), values };
}

/** Products with an NF4 weight against products with the weight restored, and the restored weights themselves. */
export async function nf4Products(): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const double of [false, true]) {
    for (const [m, rows, cols] of [
      [1, 70, 128],
      [2, 9, 192],
      [3, 66, 64],
      [4, 37, 640],
      [1, 30, 48],
      [5, 40, 130],
      [6, 71, 192],
      [8, 300, 64],
      [13, 33, 640],
      [50, 100, 704],
      [30, 77, 33],
    ] as [number, number, number][]) {
      for (const transposed of [0, 1]) outcomes.push(await nf4Product(m, rows, cols, transposed, double));
    }
  }
  return outcomes;
}

async function nf4Product(
  m: number,
  rows: number,
  cols: number,
  transposed: number,
  double: boolean,
): Promise<Outcome> {
  const size = rows * cols;
  const [n, k] = transposed ? [rows, cols] : [cols, rows];
  const blocks = Math.ceil(size / 64);
  const w = send(random(size, 17));
  const q = native.alloc(Math.ceil(size / 2), 4);
  const absmax = native.alloc(blocks * 4, 0);
  const restored = native.alloc(size * 4, 0);
  quantizeNf4(w, q, absmax, size, 64, 0);
  const absmax8 = native.alloc(blocks, 4);
  const absmax2 = native.alloc(Math.ceil(blocks / 256) * 4, 0);
  const offset = native.alloc(4, 0);
  if (double) quantizeAbsmax(absmax, absmax8, absmax2, offset, blocks);
  const scales = (double ? [absmax8, absmax2, offset] : [absmax, 0, 0]) as [number, number, number];
  dequantizeNf4(q, ...scales, restored, size, 64, 0);
  const dense = await read(restored, size);
  const a = random(m * k, 19);
  const bias = random(n, 23);
  const y = random(m * n, 29);
  const handles = [send(a), send(bias), send(y)] as [number, number, number];
  gemmNf4(handles[0], q, ...scales, handles[1], handles[2], m, rows, cols, transposed, 64, k, n, 0, 0, 0.5, 2);
  const values = await read(handles[2], m * n);
  const expected = reference({ m, n, k, ta: 0, tb: transposed, alpha: 0.5, beta: 2, bias: true }, a, dense, bias, y);
  for (const h of [w, q, absmax, restored, absmax8, absmax2, offset, ...handles]) native.free(h);
  const name = `NF4 ${m} x (${rows}x${cols})${transposed ? "T" : ""}${double ? " double" : ""}`;
  return { name, error: relativeError(values, expected), values };
}

// As a program.
if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href)
  printProducts([...(await products()), ...(await nf4Products())].map((o) => ({ ...o, bound: BOUND })));
