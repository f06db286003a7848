// E4M3: codes and scales, restoring, products with inputs as they are and rounded. Bytes are the CPU's.
import type { OpCase, TensorSpec } from "./case.js";

const act = (...shape: number[]): TensorSpec => ({ shape, act: true });
const scales = (n: number): TensorSpec => ({ shape: [n], dtype: "float32", fill: "positive" });
const codes = (n: number): TensorSpec => ({ shape: [n], dtype: "uint8", fill: "e4m3" });

// ---- quantising and restoring -------------------------------------------------------------

const quantised = (name: string, x: TensorSpec, rows: number, cols: number): OpCase => ({
  name: `quantize_fp8 ${name}`,
  op: "quantizeFp8",
  tensors: [
    x,
    { shape: [rows * cols], dtype: "uint8", output: true, exact: true },
    { shape: [rows], dtype: "float32", output: true, exact: true },
  ],
  ints: [rows, cols],
  floats: [],
});

/** [rows, cols]: a warp a row of one, two and four packs, blocks, rows longer than registers hold, rows that no pack fits. */
const SIZES: [number, number][] = [
  [1, 1],
  [9, 8],
  [5, 64],
  [7, 600],
  [33, 1000],
  [64, 1024],
  [3, 2049],
  [40, 33],
  [300, 4096],
  [17, 8200],
  [5, 14_336],
  [3, 24_576],
  [2, 40_000],
];

/** Rows of what is special: ties between codes, subnormal codes, both zeros, rows of nearly nothing, NaN, infinities. */
const WIDTH = 48;
const row = (f: (i: number) => number): number[] => Array.from({ length: WIDTH }, (_, i) => f(i));
const special: number[] = [
  ...row((i) => (i === 0 ? 448 : i + 0.5)),
  ...row((i) => (i === 0 ? 448 : (i - 24) * 2 ** -10)), // below 2^-6 steps are 2^-9: every second is half way
  ...row((i) => (i === 0 ? -448 : 16 + 0.5 * i)),
  ...row((i) => (i % 2 ? -0 : 0)),
  ...row((i) => i * 1e-41),
  ...row((i) => (i - 24) * 1e-29),
  ...row((i) => (i === 7 ? Number.NaN : i)),
  ...row((i) => (i === 9 ? Number.NEGATIVE_INFINITY : i)),
  ...row((i) => (i === 11 ? 60_000 : i * 1e-3)),
];

const quantising: OpCase[] = [
  ...SIZES.map(([rows, cols]) => quantised(`${rows}x${cols}`, act(rows, cols), rows, cols)),
  {
    ...quantised(
      "of ties, zeros and NaN",
      { ...act(special.length / WIDTH, WIDTH), values: special },
      special.length / WIDTH,
      WIDTH,
    ),
  },
];

const restoring: OpCase[] = [
  ...SIZES.map(
    ([rows, cols]): OpCase => ({
      name: `dequantize_fp8 ${rows}x${cols}`,
      op: "dequantizeFp8",
      tensors: [{ shape: [rows * cols], dtype: "uint8" }, scales(rows), { ...act(rows, cols), output: true }],
      ints: [rows, cols],
      floats: [],
      tolerance: { float32: 0 },
    }),
  ),
];

// ---- products -----------------------------------------------------------------------------

interface Product {
  m: number;
  transposed: number;
  roundA: number;
  beta?: number;
  bias?: TensorSpec;
  compute?: number;
  y?: "float32";
  gaps?: [number, number];
  /** a is given as codes with scales. */
  given?: true;
}

/** The GPU's own sums of codes are those of its tensor cores; operands restored in 16 bits are rounded to them. */
const ROUNDED = { float32: 4e-3, bfloat16: 1e-2, float16: 4e-3 };
const BFLOAT16 = { float32: 1e-2, bfloat16: 1e-2, float16: 1e-2 };

function gemm(rows: number, cols: number, p: Product): OpCase {
  const [k, n] = p.transposed ? [cols, rows] : [rows, cols];
  const [gapA, gapY] = p.gaps ?? [0, 0];
  const y: TensorSpec = p.y
    ? { shape: [p.m, n + gapY], dtype: p.y, output: true }
    : { ...act(p.m, n + gapY), output: true };
  const words = [
    `m ${p.m}`,
    p.transposed ? "transposed" : "",
    p.given ? "codes" : p.roundA ? "rounded" : "kept",
    p.beta ? "beta 1" : "",
    p.bias ? (p.bias.act ? "bias" : "float32 bias") : "",
    p.gaps ? `gaps ${p.gaps}` : "",
    p.compute ? "compute bfloat16" : "",
    p.y ? "y float32" : "",
  ];
  return {
    name: `gemm_fp8 ${rows}x${cols} ${words.filter((w) => w !== "").join(" ")}`,
    op: "gemmFp8",
    tensors: [
      p.given ? codes(p.m * k) : act(p.m, k + gapA),
      codes(rows * cols),
      scales(rows),
      p.bias ?? null,
      p.given ? scales(p.m) : null,
      p.beta ? { ...y, fill: "normal" } : y,
    ],
    ints: [p.m, rows, cols, p.transposed, k + gapA, n + gapY, p.roundA, p.compute ?? 0],
    // Codes reach 448: sums of y's own size, which float16 holds.
    floats: [1 / 64 / Math.sqrt(k), p.beta ?? 0],
    ...(p.roundA ? { tolerance: ROUNDED } : p.compute ? { tolerance: BFLOAT16 } : {}),
  };
}

/** [rows, cols]: multiples of 16 go to the tensor cores as they are, others are restored; edges of the tiles that are transposed. */
const WEIGHTS: [number, number][] = [
  [48, 512],
  [144, 272],
  [128, 128],
  [576, 1536],
  [1024, 4096],
  [37, 256],
  [64, 100],
  [20, 24],
  [33, 63],
];

const products = WEIGHTS.flatMap(([rows, cols]) => {
  const bias: TensorSpec = { shape: [rows], dtype: "float32" };
  return [
    ...[1, 2, 3, 4, 5, 40].flatMap((m) => [
      gemm(rows, cols, { m, transposed: 1, roundA: 0, gaps: [8, 0] }),
      gemm(rows, cols, { m, transposed: 1, roundA: 0, bias, beta: 1, y: "float32" }),
    ]),
    gemm(rows, cols, { m: 40, transposed: 0, roundA: 0, compute: 1, gaps: [1, 1] }),
    gemm(rows, cols, { m: 2, transposed: 1, roundA: 1 }),
    ...[64, 100, 129].flatMap((m) => [
      gemm(rows, cols, { m, transposed: 1, roundA: 1 }),
      gemm(rows, cols, { m, transposed: 1, roundA: 1, beta: 1 }),
      gemm(rows, cols, { m, transposed: 1, roundA: 1, given: true, bias, beta: 1 }),
      gemm(rows, cols, { m, transposed: 1, roundA: 1, bias, gaps: [8, 8] }),
      gemm(rows, cols, { m, transposed: 1, roundA: 1, bias: act(rows), beta: 1, gaps: [3, 3] }),
      gemm(rows, cols, { m, transposed: 1, roundA: 1, beta: 1, y: "float32", compute: 1 }),
      gemm(rows, cols, { m, transposed: 0, roundA: 1 }),
      gemm(rows, cols, { m, transposed: 0, roundA: 1, beta: 1 }),
      gemm(rows, cols, { m, transposed: 0, roundA: 1, y: "float32", gaps: [1, 0] }),
    ]),
  ];
});

export const cases: OpCase[] = [...quantising, ...restoring, ...products];
