// 16-bit operands, bfloat16 computing and the quantised weights against float64. Run as cases.ts: in process, and as a program for each instruction set.
import { pathToFileURL } from "node:url";
import * as op from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { type Bounded, printProducts, random, read, relativeError, send } from "./helpers.js";

/** Values rounded to bfloat16 as float32, computed here on its own. */
export function toBf16(x: Float32Array): Float32Array {
  const words = new Uint32Array(Float32Array.from(x).buffer);
  for (let i = 0; i < words.length; i++) {
    const u = words[i] as number;
    words[i] = ((u + 0x7fff + ((u >>> 16) & 1)) & 0xffff0000) >>> 0;
  }
  return new Float32Array(words.buffer);
}

/** A tensor converted on the device, and the values it then has. */
async function sendAs(x: Float32Array, dtype: number): Promise<[native.Handle, Float32Array]> {
  const full = send(x);
  if (dtype === 0) return [full, x];
  const half = native.alloc(x.length * 2, dtype);
  op.copy(full, half, x.length);
  op.copy(half, full, x.length);
  const values = await read(full, x.length);
  native.free(full);
  return [half, values];
}

/** y = alpha op(a) op(b) + beta y + bias in float64. */
function reference(
  [m, n, k]: readonly [number, number, number],
  [ta, tb]: readonly [number, number],
  a: Float32Array,
  b: Float32Array,
  bias: Float32Array,
  y: Float32Array,
): Float64Array {
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let s = 0;
      for (let q = 0; q < k; q++)
        s += (a[ta ? q * m + i : i * k + q] as number) * (b[tb ? j * k + q : q * n + j] as number);
      out[i * n + j] = 0.5 * s - 2 * (y[i * n + j] as number) + (bias[j] as number);
    }
  }
  return out;
}

const LEAST_EXACT = 2e-6;
/** The sum of a product of rounded operands: nothing but its float32 additions. */
const LEAST_ROUNDED = 1e-5;
/** Against the operands before rounding: 8 bits each. */
const COARSE = 1e-2;

const SHAPES: readonly (readonly [number, number, number])[] = [
  [1, 1, 1],
  [1, 300, 37],
  [2, 70, 129],
  [4, 33, 700],
  [7, 40, 65],
  [19, 65, 130],
  [25, 31, 33],
  [24, 64, 64],
  [50, 129, 201],
  [97, 16, 130],
  [61, 100, 1301],
  [64, 4, 2605],
];

/** Every path with each dtype of either operand, exact and rounded to bfloat16. */
export async function halfProducts(): Promise<Bounded[]> {
  const outcomes: Bounded[] = [];
  for (const shape of SHAPES) {
    for (const ta of [0, 1]) {
      for (const tb of [0, 1]) {
        for (const dtype of [0, 1, 2]) {
          for (const compute of [0, 1]) outcomes.push(...(await halfProduct(shape, [ta, tb], dtype, compute)));
        }
      }
    }
  }
  return outcomes;
}

async function halfProduct(
  shape: readonly [number, number, number],
  trans: readonly [number, number],
  dtype: number,
  compute: number,
): Promise<Bounded[]> {
  const [m, n, k] = shape;
  const [ta, tb] = trans;
  // The left operand is 16-bit once, to see that it may be.
  const [a, av] = await sendAs(random(m * k, 3), m === 25 ? dtype : 0);
  const [b, bv] = await sendAs(random(n * k, 5), dtype);
  const y = random(m * n, 7);
  const bias = random(n, 9);
  const [yh, biasH] = [send(y), send(bias)];
  op.gemm(a, b, biasH, yh, m, n, k, ta, tb, ta ? m : k, tb ? k : n, n, compute, 0.5, -2);
  const values = await read(yh, m * n);
  for (const h of [a, b, yh, biasH]) native.free(h);
  const name = `${m}x${n}x${k} ${ta ? "T" : "N"}${tb ? "T" : "N"} b ${["fp32", "bf16", "fp16"][dtype]} compute ${compute}`;
  const exact = relativeError(values, reference(shape, trans, av, bv, bias, y));
  if (compute === 0) return [{ name, values, error: exact, bound: LEAST_EXACT }];
  const rounded = relativeError(values, reference(shape, trans, toBf16(av), toBf16(bv), bias, y));
  // Few rows are not rounded: which ones depends on the instruction set, so the smaller error is the one that counts.
  return [
    { name, values, error: m < 21 ? Math.min(rounded, exact) : rounded, bound: LEAST_ROUNDED },
    { name: `${name} before rounding`, values, error: exact, bound: COARSE },
  ];
}

type Form = "nf4" | "fp4" | "int8" | "blocks of 8 bits" | "blocks of 4 bits";

/** Products over NF4, FP4, int8 and block weights, exact and rounded, against the restored weight. */
export async function quantisedProducts(): Promise<Bounded[]> {
  const outcomes: Bounded[] = [];
  for (const [m, rows, cols] of [
    [1, 70, 128],
    [3, 66, 64],
    [4, 37, 640],
    [5, 40, 130],
    [5, 71, 192],
    [8, 66, 64],
    [9, 33, 640],
    [16, 41, 96],
    [17, 130, 2048],
    [32, 37, 128],
    [33, 35, 160],
    [50, 100, 704],
    [30, 77, 33],
    [26, 35, 1500],
  ] as const) {
    for (const form of ["nf4", "fp4", "int8", "blocks of 8 bits", "blocks of 4 bits"] as const) {
      if (form.startsWith("blocks") && cols % 32 !== 0) continue;
      for (const transposed of [0, 1]) {
        for (const compute of [0, 1])
          outcomes.push(...(await quantisedProduct(m, rows, cols, form, transposed, compute)));
      }
    }
  }
  return outcomes;
}

async function quantisedProduct(
  m: number,
  rows: number,
  cols: number,
  form: Form,
  transposed: number,
  compute: number,
): Promise<Bounded[]> {
  const size = rows * cols;
  const [n, k] = transposed ? [rows, cols] : [cols, rows];
  const w = send(random(size, 17));
  const q = native.alloc(size, 4);
  const absmax = native.alloc(Math.max(rows, Math.ceil(size / 64)) * 4, 0);
  const restored = native.alloc(size * 4, 0);
  const kind = form === "fp4" ? 1 : 0;
  const bits = form === "blocks of 4 bits" ? 4 : 8;
  // Codes are what the bytes of random numbers happen to be.
  let [scale, minimum] = [0, 0];
  if (form.startsWith("blocks")) {
    [scale] = await sendAs(random(size / 32, 31), 2);
    if (bits === 4) [minimum] = await sendAs(random(size / 32, 37), 2);
    native.upload(q, new Uint8Array(random(size / 4, 41).buffer));
    op.dequantizeBlocks(q, scale, minimum, restored, rows, cols, bits);
  } else if (form === "int8") {
    op.quantizeInt8(w, q, absmax, rows, cols);
    op.dequantizeInt8(q, absmax, restored, rows, cols);
  } else {
    op.quantizeNf4(w, q, absmax, size, 64, kind);
    op.dequantizeNf4(q, absmax, 0, 0, restored, size, 64, kind);
  }
  const dense = await read(restored, size);
  let [codes, scales]: (Float32Array | undefined)[] = [];
  if (form === "nf4" || form === "fp4") {
    scales = await read(absmax, Math.ceil(size / 64));
    const ones = send(scales.map(() => 1));
    op.dequantizeNf4(q, ones, 0, 0, restored, size, 64, kind);
    codes = await read(restored, size);
    native.free(ones);
  }
  const a = random(m * k, 19);
  const bias = random(n, 23);
  const y = random(m * n, 29);
  const [ah, biasH, yh] = [send(a), send(bias), send(y)];
  if (form.startsWith("blocks"))
    op.gemmBlocks(ah, q, scale, minimum, biasH, yh, m, rows, cols, transposed, k, n, bits, compute, 0.5, -2);
  else if (form === "int8") op.gemmInt8(ah, q, absmax, biasH, yh, m, rows, cols, transposed, k, n, compute, 0.5, -2);
  else op.gemmNf4(ah, q, absmax, 0, 0, biasH, yh, m, rows, cols, transposed, 64, k, n, kind, compute, 0.5, -2);
  const values = await read(yh, m * n);
  for (const h of [w, q, absmax, restored, scale, minimum, ah, biasH, yh]) if (h !== 0) native.free(h);
  const name = `${form} ${m} x (${rows}x${cols})${transposed ? "T" : ""} compute ${compute}`;
  const shape = [m, n, k] as const;
  const exact = relativeError(values, reference(shape, [0, transposed], a, dense, bias, y));
  if (compute === 0) return [{ name, values, error: exact, bound: LEAST_EXACT }];
  // Pairs of bfloat16 with few rows: a and the codes are rounded, what the codes are scaled by is not. Codes of 8 bits, and of 4 in blocks, are whole numbers,
  // which bfloat16 holds. See few-rows.test.ts.
  const inPairs =
    native.stats("cpu").isa === "avx512bf16" &&
    transposed === 1 &&
    m <= 32 &&
    (codes === undefined || cols % 64 === 0) &&
    (!form.startsWith("blocks") || (m > 4 && (m <= 8 || cols >= 1024)));
  if (inPairs) {
    const weight = codes === undefined ? dense : toBf16(codes).map((c, i) => c * scales![Math.floor(i / 64)]!);
    const error = relativeError(values, reference(shape, [0, 1], toBf16(a), weight, bias, y));
    return [
      { name, values, error, bound: LEAST_ROUNDED },
      { name: `${name} before rounding`, values, error: exact, bound: COARSE },
    ];
  }
  const rounded = relativeError(values, reference(shape, [0, transposed], toBf16(a), toBf16(dense), bias, y));
  return [
    { name, values, error: m < 5 ? Math.min(rounded, exact) : rounded, bound: LEAST_ROUNDED },
    { name: `${name} before rounding`, values, error: exact, bound: COARSE },
  ];
}

// As a program.
if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href)
  printProducts([...(await halfProducts()), ...(await quantisedProducts())]);
