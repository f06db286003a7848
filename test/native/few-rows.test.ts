// Products of a weight, quantised or in bfloat16, with a few rows, as decoding brings them: bounds that follow from the formats, and one row's bits whatever stands beside it.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { toBf16 } from "./halves.js";
import { random, read, send } from "./helpers.js";

type Kind = "nf4" | "fp4" | "int8" | "q8" | "q4" | "bfloat16";

interface Weight {
  readonly rows: number;
  readonly cols: number;
  /** Codes times `scale` of their element plus `minimum`, all as float32. */
  readonly codes: Float32Array;
  readonly scale: Float32Array;
  readonly minimum: Float32Array;
  product(a: number, y: number, m: number, lda: number, ldy: number, bias: number): void;
  free(): void;
}

const float16 = async (x: Float32Array): Promise<[native.Handle, Float32Array]> => {
  const full = send(x);
  const half = native.alloc(x.length * 2, 2);
  op.copy(full, half, x.length);
  op.copy(half, full, x.length);
  const values = await read(full, x.length);
  native.free(full);
  return [half, values];
};

/** A random weight. `block` and `double` are of the 4-bit kinds. */
async function weightOf(kind: Kind, rows: number, cols: number, block = 64, double = false): Promise<Weight> {
  const size = rows * cols;
  const restored = native.alloc(size * 4, 0);
  const handles: native.Handle[] = [restored];
  const free = (): void => {
    for (const h of handles) native.free(h);
  };
  const take = (h: native.Handle): native.Handle => {
    handles.push(h);
    return h;
  };
  const zeros = new Float32Array(size);
  if (kind === "nf4" || kind === "fp4") {
    const type = kind === "nf4" ? 0 : 1;
    const blocks = size / block;
    const [w, q, absmax] = [send(random(size, 17)), take(native.alloc(size / 2, 4)), take(native.alloc(blocks * 4, 0))];
    op.quantizeNf4(w, q, absmax, size, block, type);
    native.free(w);
    let scales: [number, number, number] = [absmax, 0, 0];
    if (double) {
      scales = [
        take(native.alloc(blocks, 4)),
        take(native.alloc(Math.ceil(blocks / 256) * 4, 0)),
        take(native.alloc(4, 0)),
      ];
      op.quantizeAbsmax(absmax, ...scales, blocks);
    }
    // Code 0 of NF4 is -1, code 3 of FP4 is 1: a weight of nothing else shows the scales.
    const shown = take(send(new Uint8Array(size / 2).fill(type === 0 ? 0x00 : 0x33)));
    op.dequantizeNf4(shown, ...scales, restored, size, block, type);
    const scale = (await read(restored, size)).map(Math.abs);
    const ones = take(send(new Float32Array(blocks).fill(1)));
    op.dequantizeNf4(q, ones, 0, 0, restored, size, block, type);
    const codes = await read(restored, size);
    const product: Weight["product"] = (a, y, m, lda, ldy, bias) =>
      op.gemmNf4(a, q, ...scales, bias, y, m, rows, cols, 1, block, lda, ldy, type, 1, 0.5, -2);
    return { rows, cols, codes, scale, minimum: zeros, product, free };
  }
  if (kind === "int8") {
    const [w, q, absmax] = [send(random(size, 17)), take(native.alloc(size, 4)), take(native.alloc(rows * 4, 0))];
    op.quantizeInt8(w, q, absmax, rows, cols);
    native.free(w);
    const bytes = new Uint8Array(size);
    await native.download(q, bytes);
    const most = await read(absmax, rows);
    const product: Weight["product"] = (a, y, m, lda, ldy, bias) =>
      op.gemmInt8(a, q, absmax, bias, y, m, rows, cols, 1, lda, ldy, 1, 0.5, -2);
    const scale = zeros.map((_, i) => most[Math.floor(i / cols)]! / 127);
    return { rows, cols, codes: Float32Array.from(new Int8Array(bytes.buffer)), scale, minimum: zeros, product, free };
  }
  if (kind === "bfloat16") {
    const w = send(random(size, 17));
    const halves = take(native.alloc(size * 2, 1));
    op.copy(w, halves, size);
    op.copy(halves, w, size);
    const codes = await read(w, size);
    native.free(w);
    const product: Weight["product"] = (a, y, m, lda, ldy, bias) =>
      op.gemm(a, halves, bias, y, m, rows, cols, 0, 1, lda, cols, ldy, 1, 0.5, -2);
    return { rows, cols, codes, scale: zeros.map(() => 1), minimum: zeros, product, free };
  }
  const bits = kind === "q4" ? 4 : 8;
  const bytes = Uint8Array.from({ length: (size * bits) / 8 }, (_, i) => Math.imul(i, 2654435761) >>> 13);
  const q = take(send(bytes));
  const [scale, scales] = await float16(random(size / 32, 31));
  take(scale);
  const [minimum, minima] = bits === 4 ? await float16(random(size / 32, 37)) : [0, undefined];
  if (minimum) take(minimum);
  const codes = zeros.map((_, i) => {
    if (bits === 8) return (bytes[i]! << 24) >> 24;
    const byte = bytes[Math.floor(i / 32) * 16 + (i % 16)]!;
    return i % 32 < 16 ? byte & 15 : byte >> 4;
  });
  const product: Weight["product"] = (a, y, m, lda, ldy, bias) =>
    op.gemmBlocks(a, q, scale, minimum, bias, y, m, rows, cols, 1, lda, ldy, bits, 1, 0.5, -2);
  const each = (values: Float32Array | undefined): Float32Array =>
    zeros.map((_, i) => values?.[Math.floor(i / 32)] ?? 0);
  return { rows, cols, codes, scale: each(scales), minimum: each(minima), product, free };
}

const CASES: readonly (readonly [Kind, number, number, number?, boolean?])[] = [
  ["nf4", 70, 576, 64, true],
  ["nf4", 37, 1536, 64, false],
  ["nf4", 150, 2048, 64, true],
  ["nf4", 33, 96, 32, true],
  ["nf4", 33, 64, 64, true],
  ["nf4", 20, 384, 128, true],
  ["nf4", 19, 1024, 256, false],
  ["fp4", 35, 192, 64, true],
  ["int8", 41, 576],
  ["int8", 30, 77],
  ["int8", 21, 131],
  ["q8", 70, 576],
  ["q8", 33, 96],
  ["q4", 70, 576],
  ["q4", 150, 2048],
  ["q4", 33, 32],
  ["bfloat16", 70, 576],
  ["bfloat16", 33, 77],
  ["bfloat16", 21, 1100],
];
const ROWS = [1, 2, 3, 4, 5, 8, 9, 12, 16, 31, 32];

/**
 * How the backend should multiply m rows: pairs of bfloat16 whose scales are not rounded; float32, in which packed models promise the logits of restored ones
 * for up to four rows, and which costs nothing there where weights are in bfloat16; or weights that are restored and perhaps rounded.
 */
function way(kind: Kind, m: number, cols: number): "pairs" | "float32" | "restored" {
  const packed = kind === "q4" || kind === "q8";
  if ((packed || kind === "bfloat16") && m <= 4) return "float32";
  if (native.stats("cpu").isa !== "avx512bf16" || (packed && m > 8 && cols < 1024)) return "restored";
  return "pairs";
}

async function run(w: Weight, m: number, a: Float32Array, y: Float32Array, bias: Float32Array): Promise<Float32Array> {
  const handles = [send(a), send(y), send(bias)] as [number, number, number];
  w.product(handles[0], handles[1], m, a.length / m, y.length / m, handles[2]);
  const out = await read(handles[1], y.length);
  for (const h of handles) native.free(h);
  return out;
}

for (const [kind, rows, cols, block, double] of CASES) {
  const what = `${kind} ${rows}x${cols}${block ? `, blocks of ${block}` : ""}${double ? ", double" : ""}`;
  test(`few rows times ${what} stay within what the formats allow`, async () => {
    const w = await weightOf(kind, rows, cols, block, double);
    const [lda, ldy] = [cols + 3, rows + 5];
    const most = Math.max(...ROWS);
    const x = random(most * lda, 19);
    const start = random(most * ldy, 29);
    const bias = random(rows, 23);
    const [ax, codes] = [toBf16(x), toBf16(w.codes)];
    for (const m of ROWS) {
      const got = await run(w, m, x.slice(0, m * lda), start.slice(0, m * ldy), bias);
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < ldy; j++) {
          const at = i * ldy + j;
          if (j >= rows) {
            assert.equal(got[at], start[at], "what stands between rows is left alone");
            continue;
          }
          let [exact, rounded, size] = [0, 0, 0];
          for (let p = 0; p < cols; p++) {
            const e = j * cols + p;
            const weight = w.codes[e]! * w.scale[e]! + w.minimum[e]!;
            exact += x[i * lda + p]! * weight;
            rounded += ax[i * lda + p]! * (codes[e]! * w.scale[e]! + w.minimum[e]!);
            size += Math.abs(x[i * lda + p]!) * (Math.abs(w.codes[e]! * w.scale[e]!) + Math.abs(w.minimum[e]!));
          }
          const rest = bias[j]! - 2 * start[at]!;
          // float32: no element passes more than cols / 16 + 24 additions (and roundings of a scale), each off by 2^-24 of the sum of magnitudes at most.
          const adding = 0.5 * size * (cols / 16 + 24) * 2 ** -24 + Math.abs(rest) * 2 ** -22;
          // A factor in bfloat16 is off by 2^-8 of itself at most; two of them are rounded.
          const rounding = 0.5 * size * (2 ** -7 + 2 ** -16);
          assert.ok(Math.abs(got[at]! - (0.5 * exact + rest)) <= rounding + adding, `${m} rows, ${i}, ${j}`);
          const how = way(kind, m, cols);
          const wanted = 0.5 * (how === "pairs" ? rounded : exact) + rest;
          if (how !== "restored")
            assert.ok(Math.abs(got[at]! - wanted) <= adding, `${m} rows in ${how}, ${i}, ${j}: ${got[at]}, ${wanted}`);
        }
      }
    }
    w.free();
  });
}

test("a row has the same bits alone and among others where pairs of bfloat16 are multiplied", async (t) => {
  if (native.stats("cpu").isa !== "avx512bf16") return t.skip("no pairs of bfloat16 on this instruction set");
  for (const [kind, rows, cols, block, double] of CASES) {
    const w = await weightOf(kind, rows, cols, block, double);
    const heights = ROWS.filter((m) => way(kind, m, cols) === "pairs");
    const most = Math.max(...heights);
    const x = random(most * cols, 19);
    const [y, bias] = [new Float32Array(most * rows).fill(0.25), random(rows, 23)];
    const all = await run(w, most, x, y, bias);
    for (const m of heights) {
      const some = await run(w, m, x.slice(0, m * cols), y.slice(0, m * rows), bias);
      assert.deepEqual(some, all.slice(0, m * rows), `${kind} ${rows}x${cols}, ${m} rows`);
    }
    w.free();
  }
});

test("a NaN of one row stays in it", async () => {
  for (const kind of ["nf4", "int8", "q8", "q4", "bfloat16"] as const) {
    const [rows, cols] = [40, 192];
    const w = await weightOf(kind, rows, cols);
    for (const m of [2, 6, 11]) {
      const x = random(m * cols, 19);
      x[cols + 70] = Number.NaN;
      const got = await run(w, m, x, new Float32Array(m * rows), new Float32Array(rows));
      for (let i = 0; i < m * rows; i++)
        assert.equal(Number.isNaN(got[i]), Math.floor(i / rows) === 1, `${kind} ${m} ${i}`);
    }
    w.free();
  }
});
