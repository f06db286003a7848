// Products over E4M3 weights, with inputs as they are and rounded too, against float64. Run as cases.ts: in process, and as a program for each instruction
// set.
import { pathToFileURL } from "node:url";
import * as op from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { toBf16 } from "./halves.js";
import { type Bounded, printProducts, random, read, relativeError, send } from "./helpers.js";

/** The nearest value of E4M3, ties to even, at most 448: steps of 2^-9 below 2^-6, else of an eighth of the power of two below it. */
export function toE4m3(x: number): number {
  const a = Math.min(Math.abs(x), 448);
  const step = a < 2 ** -6 ? 2 ** -9 : 2 ** (Math.floor(Math.log2(a)) - 3);
  const n = a / step; // exact: a power of two
  const below = Math.floor(n);
  const up = n - below > 0.5 || (n - below === 0.5 && below % 2 === 1);
  return Math.sign(x) * (below + (up ? 1 : 0)) * step;
}

/** Rows rounded as gemm_fp8 says, in float64 after the float32 steps that it names: values of codes, and each row's scale. */
function roundedRows(a: Float32Array, m: number, k: number, columns?: Float32Array): [Float64Array, Float64Array] {
  const values = new Float64Array(m * k);
  const scales = new Float64Array(m);
  for (let i = 0; i < m; i++) {
    const row = a.slice(i * k, (i + 1) * k).map((v, c) => (columns ? v * columns[c]! : v)); // float32 again
    const most = row.reduce((p, v) => Math.max(p, Math.abs(v)), 0);
    const to = Math.fround(448 / most);
    scales[i] = Math.fround(most / 448);
    row.forEach((v, c) => {
      values[i * k + c] = toE4m3(Math.fround(v * to));
    });
  }
  return [values, scales];
}

interface Shape {
  m: number;
  rows: number;
  cols: number;
  transposed: number;
  roundA: number;
  compute: number;
  pad: number;
}

const ALPHA = 0.5;
const BETA = -2;

async function product(s: Shape): Promise<Bounded> {
  const { m, rows, cols, transposed, roundA, compute, pad } = s;
  const [n, k] = transposed ? [rows, cols] : [cols, rows];
  const [lda, ldy] = [k + pad, n + pad];
  const w = random(rows * cols, 17).map((v, i) => v * (0.01 + (Math.floor(i / cols) % 7)));
  const wide = random(m * lda, 19).map((v, i) => v * 10 ** ((i % 5) - 2)); // elements of several sizes: some become subnormal
  const [bias, y] = [random(n, 23), random(m * ldy, 29)];
  const [wh, ah, biasH, yh] = [send(w), send(wide), send(bias), send(y)];
  const [q, scale, restored] = [native.alloc(w.length, 4), native.alloc(rows * 4, 0), native.alloc(w.length * 4, 0)];
  op.quantizeFp8(wh, q, scale, rows, cols);
  op.dequantizeFp8(q, scale, restored, rows, cols);
  const [dense, scales] = [await read(restored, w.length), await read(scale, rows)];
  op.gemmFp8(ah, q, scale, biasH, 0, yh, m, rows, cols, transposed, lda, ldy, roundA, compute, ALPHA, BETA);
  const all = await read(yh, m * ldy);
  for (const h of [wh, ah, biasH, yh, q, scale, restored]) native.free(h);

  const a = new Float32Array(m * k);
  for (let i = 0; i < m; i++) a.set(wide.subarray(i * lda, i * lda + k), i * k);
  const weight = (j: number, p: number): number => dense[transposed ? j * cols + p : p * cols + j]!;
  const plain = (j: number, p: number): number => weight(j, p) / (scales[transposed ? j : p] || 1);
  const [codes, rowScales] = roundA ? roundedRows(a, m, k, transposed ? undefined : scales) : [a, undefined];
  const rounds = compute === 1 && roundA === 0; // to bfloat16: codes are exact in it
  const left = rounds ? toBf16(a) : codes;
  const right = rounds ? toBf16(dense) : undefined;
  const values = new Float32Array(m * n);
  const wanted = new Float64Array(m * n);
  const unrounded = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let [sum, exact] = [0, 0];
      for (let p = 0; p < k; p++) {
        const b = right
          ? right[transposed ? j * cols + p : p * cols + j]!
          : roundA && !transposed
            ? plain(j, p)
            : weight(j, p);
        sum += left[i * k + p]! * b;
        exact += a[i * k + p]! * weight(j, p);
      }
      const rest = BETA * y[i * ldy + j]! + bias[j]!;
      values[i * n + j] = all[i * ldy + j]!;
      wanted[i * n + j] = ALPHA * sum * (rowScales ? rowScales[i]! : 1) + rest;
      unrounded[i * n + j] = ALPHA * exact + rest;
    }
    for (let j = n; j < ldy; j++)
      if (all[i * ldy + j] !== y[i * ldy + j]) throw new Error(`the gap behind row ${i} was written`);
  }
  const name = `fp8 ${m} x (${rows}x${cols})${transposed ? "T" : ""} round_a ${roundA} compute ${compute}`;
  const error = relativeError(values, wanted);
  // A few rows are not rounded to bfloat16.
  const other = rounds && m < 5 ? relativeError(values, unrounded) : error;
  return { name, values, error: Math.min(error, other), bound: compute === 1 && !roundA ? 1e-5 : 2e-6 };
}

/** Every path: dot products of a few rows, packed ones of many, rows cut into pieces, both directions. */
export async function fp8Products(): Promise<Bounded[]> {
  const outcomes: Bounded[] = [];
  for (const [m, rows, cols] of [
    [1, 70, 128],
    [2, 9, 3],
    [3, 66, 64],
    [4, 37, 640],
    [5, 40, 130],
    [50, 100, 704],
    [30, 77, 33],
    [70, 35, 1500],
  ] as const) {
    for (const transposed of [0, 1]) {
      for (const roundA of [0, 1]) {
        for (const compute of [0, 1])
          outcomes.push(await product({ m, rows, cols, transposed, roundA, compute, pad: m % 3 }));
      }
    }
  }
  return outcomes;
}

// As a program.
if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) printProducts(await fp8Products());
