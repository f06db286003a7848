// 4-bit and 8-bit weights: the same bytes as on the CPU, their restoring, their products, and the head fused with cross entropy.
import type { OpCase, TensorSpec } from "./case.js";
import { act, f32, f32InOut, out } from "./specs.js";

const bytes = (n: number): TensorSpec => ({ shape: [n], dtype: "uint8" });
const bytesOut = (n: number): TensorSpec => ({ shape: [n], dtype: "uint8", output: true, exact: true });
const exactOut = (...shape: number[]): TensorSpec => ({ shape, dtype: "float32", output: true, exact: true });
const marked = (...shape: number[]): TensorSpec => ({ shape, act: true, output: true });
const scales = (n: number): TensorSpec => ({ shape: [n], dtype: "float32", fill: "positive" });
const BFLOAT16 = { float32: 1e-2, bfloat16: 1e-2, float16: 1e-2 };
const KINDS = ["nf4", "fp4"] as const;

/** absmax, absmax2, offset of a weight of n elements: plain, or doubly quantised. */
function absmax(n: number, block: number, double: boolean): (TensorSpec | null)[] {
  const blocks = Math.ceil(n / block);
  return double
    ? [bytes(blocks), scales(Math.ceil(blocks / 256)), { ...f32(1), values: [2.5] }]
    : [scales(blocks), null, null];
}

// ---- quantising and restoring -------------------------------------------------------------

const BLOCKS: [number, number][] = [
  [64, 1],
  [64, 63],
  [64, 64 * 257],
  [64, 100_003],
  [2, 1001],
  [6, 1000],
  [8, 4096],
  [32, 999],
  [96, 5000],
  [128, 40_000],
  [256, 70_001],
  [512, 3000],
  [4096, 10_000],
];

const fourBits = BLOCKS.flatMap(([block, n]) =>
  KINDS.flatMap((name, kind): OpCase[] => {
    const blocks = Math.ceil(n / block);
    return [
      {
        name: `quantize_nf4 ${name} block ${block} of ${n}`,
        op: "quantizeNf4",
        tensors: [act(n), bytesOut(Math.ceil(n / 2)), exactOut(blocks)],
        ints: [n, block, kind],
        floats: [],
      },
      ...[false, true].map(
        (double): OpCase => ({
          name: `dequantize_nf4 ${name} block ${block} of ${n}${double ? ", doubly" : ""}`,
          op: "dequantizeNf4",
          tensors: [bytes(Math.ceil(n / 2)), ...absmax(n, block, double), marked(n)],
          ints: [n, block, kind],
          floats: [],
          tolerance: { float32: 0 },
        }),
      ),
    ];
  }),
);

/** Values on the borders between codes, zeros, infinities and NaN. */
const special: number[] = [
  ...Array.from({ length: 64 }, (_, i) => (i - 32) / 32),
  ...Array.from({ length: 64 }, () => 0),
  ...[0.0398, 0.1202, 0.2035, 0.292, 0.3893, 0.5016, 0.6427, 0.8614, 1, -1, -0, 1e-30, 1e30].flatMap((v) => [v, -v]),
  ...Array.from({ length: 38 }, (_, i) => i * 1e-41),
  ...Array.from({ length: 64 }, (_, i) => (i === 7 ? Number.NaN : i)),
  ...Array.from({ length: 64 }, (_, i) => (i === 9 ? Number.POSITIVE_INFINITY : -i)),
];

const edges: OpCase[] = KINDS.map((name, kind) => ({
  name: `quantize_nf4 ${name} of borders, zeros, infinity and NaN`,
  op: "quantizeNf4",
  tensors: [
    { shape: [special.length], values: special },
    bytesOut(special.length / 2),
    { ...exactOut(Math.ceil(special.length / 64)) },
  ],
  ints: [special.length, 64, kind],
  floats: [],
}));

const double: OpCase[] = [1, 255, 256, 257, 5000, 917_504].map((n) => ({
  name: `quantize_absmax of ${n}`,
  op: "quantizeAbsmax",
  tensors: [scales(n), bytesOut(n), exactOut(Math.ceil(n / 256)), exactOut(1)],
  ints: [n],
  floats: [],
}));

const INT8_SIZES: [number, number][] = [
  [1, 1],
  [5, 64],
  [3, 2049],
  [7, 600],
  [40, 33],
  [300, 4096],
];
const eightBits = INT8_SIZES.flatMap(([rows, cols]): OpCase[] => [
  {
    name: `quantize_int8 ${rows}x${cols}`,
    op: "quantizeInt8",
    tensors: [act(rows, cols), bytesOut(rows * cols), exactOut(rows)],
    ints: [rows, cols],
    floats: [],
  },
  {
    name: `dequantize_int8 ${rows}x${cols}`,
    op: "dequantizeInt8",
    tensors: [bytes(rows * cols), scales(rows), marked(rows, cols)],
    ints: [rows, cols],
    floats: [],
    tolerance: { float32: 0 },
  },
]);

// ---- products -----------------------------------------------------------------------------

/** [rows, cols, block] of weights: whole units of 256 columns, halves of them, flattened blocks that cross rows, larger blocks. */
const WEIGHTS: [number, number, number][] = [
  [48, 512, 64],
  [37, 256, 64],
  [33, 192, 128],
  [100, 576, 64],
  [20, 4352, 64],
  [64, 100, 64],
  [1000, 2048, 64],
  [16, 1024, 32],
];

interface Product {
  m: number;
  transposed: number;
  beta?: number;
  bias?: TensorSpec;
  compute?: number;
  y?: "float32";
  gaps?: [number, number];
}

function operands(rows: number, cols: number, p: Product): { a: TensorSpec; y: TensorSpec; lds: [number, number] } {
  const [k, n] = p.transposed ? [cols, rows] : [rows, cols];
  const [gapA, gapY] = p.gaps ?? [0, 0];
  const y: TensorSpec = p.y ? { shape: [p.m, n + gapY], dtype: p.y, output: true } : marked(p.m, n + gapY);
  return { a: act(p.m, k + gapA), y: p.beta ? { ...y, fill: "normal" } : y, lds: [k + gapA, n + gapY] };
}

const called = (p: Product): string =>
  `m ${p.m}${p.transposed ? " transposed" : ""} beta ${p.beta ?? 0} gaps ${p.gaps ?? 0}${p.bias ? (p.bias.act ? " bias" : " float32 bias") : ""}${p.y ? " y float32" : ""}${p.compute ? " compute bfloat16" : ""}`;

function nf4(rows: number, cols: number, block: number, kind: 0 | 1, double: boolean, p: Product): OpCase {
  const { a, y, lds } = operands(rows, cols, p);
  const n = rows * cols;
  return {
    name: `gemm_nf4 ${rows}x${cols} block ${block} ${KINDS[kind]}${double ? " doubly" : ""} ${called(p)}`,
    op: "gemmNf4",
    tensors: [a, bytes(Math.ceil(n / 2)), ...absmax(n, block, double), p.bias ?? null, y],
    ints: [p.m, rows, cols, p.transposed, block, ...lds, kind, p.compute ?? 0],
    floats: [0.5, p.beta ?? 0],
    ...(p.compute && { tolerance: BFLOAT16 }),
  };
}

function int8(rows: number, cols: number, p: Product): OpCase {
  const { a, y, lds } = operands(rows, cols, p);
  return {
    name: `gemm_int8 ${rows}x${cols} ${called(p)}`,
    op: "gemmInt8",
    tensors: [a, bytes(rows * cols), scales(rows), p.bias ?? null, y],
    ints: [p.m, rows, cols, p.transposed, ...lds, p.compute ?? 0],
    floats: [0.5, p.beta ?? 0],
    ...(p.compute && { tolerance: BFLOAT16 }),
  };
}

const products = WEIGHTS.flatMap(([rows, cols, block]) => [
  ...[1, 2, 3, 4, 5, 8, 9, 40].map((m) => nf4(rows, cols, block, 0, true, { m, transposed: 1, gaps: [0, m % 2] })),
  ...[1, 8, 40].flatMap((m) => [
    nf4(rows, cols, block, 1, false, { m, transposed: 1, beta: 1, gaps: [8, 0] }),
    nf4(rows, cols, block, 0, false, { m, transposed: 1, bias: f32(rows), gaps: [3, 3] }),
    nf4(rows, cols, block, 1, true, { m, transposed: 1, bias: act(rows), beta: 1, y: "float32" }),
    nf4(rows, cols, block, 0, true, { m, transposed: 1, compute: 1 }),
    nf4(rows, cols, block, 0, true, { m, transposed: 0, beta: 1 }),
    nf4(rows, cols, block, 1, false, { m, transposed: 0, y: "float32", compute: 1 }),
    int8(rows, cols, { m, transposed: 1, bias: f32(rows), gaps: [8, 0] }),
    int8(rows, cols, { m, transposed: 1, beta: 1, y: "float32" }),
    int8(rows, cols, { m, transposed: 0, compute: 1, gaps: [1, 1] }),
  ]),
]);

// Several sequences decoded at a time: few rows of a weight share its columns among blocks, many rows do not.
const several = (
  [
    [1000, 2048],
    [300, 768],
    [20_000, 256],
    [1024, 14_336],
    [200, 576],
    [140, 64],
    [129, 1600],
  ] as const
).flatMap(([rows, cols]) => [
  ...[9, 16, 17, 24, 32, 33, 48, 64].map((m) => nf4(rows, cols, 64, 0, true, { m, transposed: 1, gaps: [8, m % 2] })),
  nf4(rows, cols, 64, 1, false, { m: 21, transposed: 1, bias: act(rows), beta: 1 }),
  nf4(rows, cols, 64, 0, true, { m: 61, transposed: 1, bias: f32(rows), beta: 1, y: "float32" }),
]);

// ---- head and loss ------------------------------------------------------------------------

const labels = (rows: number, vocab: number): TensorSpec => ({
  shape: [rows],
  dtype: "int32",
  values: Array.from({ length: rows }, (_, i) => (i % 4 === 3 ? -100 : (i * 7919) % vocab)),
});

/** Logits are rounded to the activations' type, which moves probabilities by as much as a logit's last bit. */
const LOGITS = { float32: 1e-5, bfloat16: 3e-2, float16: 4e-3 };

const heads: OpCase[] = (
  [
    [10, 24, 1000, 0],
    [10, 24, 517, 3],
    [33, 64, 32_001, 8],
    [1, 16, 7, 0],
  ] as const
).flatMap(([rows, dim, vocab, chunk]) =>
  [act(vocab, dim), f32(vocab, dim), { shape: [vocab, dim], dtype: "bfloat16" } as TensorSpec].flatMap((weight, w) =>
    [0, 0.1].flatMap((smoothing) =>
      [true, false].map(
        (gradients): OpCase => ({
          name: `linear_cross_entropy ${rows}x${dim} vocab ${vocab} chunk ${chunk} weight ${["as activations", "float32", "bfloat16"][w]} smoothing ${smoothing}${gradients ? "" : ", loss alone"}`,
          op: "linearCrossEntropy",
          tensors: [
            act(rows, dim),
            weight,
            labels(rows, vocab),
            { shape: [rows], dtype: "float32", output: true },
            gradients ? out(rows, dim) : null,
            gradients ? f32InOut(vocab, dim) : null,
          ],
          ints: [rows, dim, vocab, chunk, 0],
          floats: [0.125, smoothing],
          tolerance: w === 2 ? { ...LOGITS, float32: 3e-2, float16: 3e-2 } : LOGITS,
        }),
      ),
    ),
  ),
);

export const cases: OpCase[] = [...fourBits, ...edges, ...double, ...eightBits, ...products, ...several, ...heads];
