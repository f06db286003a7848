// Frozen layers with their low-rank update: shapes of the one kernel for all of it (tiles that are filled and that are not, ranks of any number of sixteens, several
// weights), and smaller ones.
import type { CaseValues, OpCase, TensorSpec } from "./case.js";
import { act, f32 } from "./specs.js";

interface Options {
  bias?: TensorSpec;
  scale?: number;
  /** v in the dtype under test instead of float32. */
  halves?: boolean;
  /** Elements between the end of a row and the next one, of u and y. */
  gaps?: [number, number];
  /** Codes in blocks of 64, doubly quantised, instead of numbers. */
  codes?: boolean;
  compute?: number;
}

const bytes = (n: number): TensorSpec => ({ shape: [n], dtype: "uint8" });
const together = (rows: readonly number[]): number => rows.reduce((a, b) => a + b, 0);

/** y in float64, the gaps between rows as the call found them. */
function expected(m: number, rows: readonly number[], cols: number, rank: number, transposed: boolean, o: Options) {
  const n = transposed ? together(rows) : cols;
  const [gapU, gapY] = o.gaps ?? [0, 0];
  return (tensors: CaseValues[]): (Float64Array | null)[] => {
    const [as, bs] = tensors as Float64Array[][];
    const [bias, u, v, y] = tensors.slice(6) as Float64Array[];
    const out = Float64Array.from(y!);
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) {
        let sum = bias ? bias[j]! : 0;
        rows.forEach((height, w) => {
          const k = transposed ? cols : height;
          for (let p = 0; p < k; p++) sum += as![w]![i * k + p]! * bs![w]![transposed ? j * cols + p : p * cols + j]!;
        });
        for (let p = 0; p < rank; p++)
          sum += (o.scale ?? 1) * u![i * (rank + gapU) + p]! * v![transposed ? j * rank + p : p * n + j]!;
        out[i * (n + gapY) + j] = sum;
      }
    return [out];
  };
}

/** Weights of these rows: one, transposed, or one and more as they stand. */
function layers(
  m: number,
  rows: readonly number[],
  cols: number,
  rank: number,
  transposed: boolean,
  o: Options = {},
): OpCase {
  const { bias, scale = 1, halves = false, gaps: [gapU, gapY] = [0, 0], codes = false, compute = 0 } = o;
  const all = together(rows);
  const n = transposed ? all : cols;
  const blocks = rows.map((height) => Math.ceil((height * cols) / 64));
  const v = transposed ? [all, rank] : [rank, cols];
  const words = [
    transposed ? "transposed" : "",
    codes ? "codes" : "",
    bias ? (bias.act ? "bias" : "float32 bias") : "",
    scale === 1 ? "" : "scaled",
    halves ? "v as given" : "",
    compute ? "compute bfloat16" : "",
    gapU + gapY ? `gaps ${gapU} ${gapY}` : "",
  ];
  return {
    name: `linear_update ${m}x${rows.join("+")}x${cols} rank ${rank} ${words.filter((w) => w !== "").join(", ")}`,
    op: "linearUpdate",
    tensors: [
      rows.map((height) => act(m, transposed ? cols : height)),
      codes ? [] : rows.map((height) => act(height, cols)),
      codes ? rows.map((height) => bytes(Math.ceil((height * cols) / 2))) : [],
      codes ? blocks.map(bytes) : [],
      codes ? blocks.map((b) => ({ shape: [Math.ceil(b / 256)], dtype: "float32", fill: "positive" })) : [],
      codes ? rows.map(() => ({ ...f32(1), values: [2.5] })) : [],
      bias ?? null,
      act(m, rank + gapU),
      halves ? act(...v) : f32(...v),
      { shape: [m, n + gapY], act: true, output: true },
    ],
    ints: [m, all, cols, rank, transposed ? 1 : 0, 64, rank + gapU, n + gapY, 0, compute],
    floats: [scale],
    ...(compute && { tolerance: { float32: 1e-2, bfloat16: 1e-2, float16: 1e-2 } }),
    ...(m * all * cols <= 2e6 &&
      !codes &&
      !compute && { reference: expected(m, rows, cols, rank, transposed, { scale, gaps: [gapU, gapY] }) }),
  };
}

const small = [true, false].flatMap((transposed) => [
  layers(5, [64], 128, 8, transposed),
  layers(37, [48], 96, 16, transposed, { scale: 2, bias: f32(transposed ? 48 : 96) }),
  layers(70, [40], 24, 3, transposed, { gaps: [2, 3] }),
  layers(128, [64], 64, 48, transposed, { codes: true, halves: true }),
  layers(1, [256], 128, 16, transposed, { codes: true, compute: 1 }),
  layers(66, [64], 256, 80, transposed, { bias: act(transposed ? 64 : 256), scale: 0.3 }),
]);

/** One weight, and the product of m rows of k terms with it, n sums each. */
const shapedBy =
  (transposed: boolean) =>
  (m: number, n: number, k: number, rank: number, o: Options = {}): OpCase =>
    layers(m, [transposed ? n : k], transposed ? k : n, rank, transposed, o);

// At least 50 tiles of 256 x 256, so that most of the device is at work.
const tiles = [true, false].flatMap((transposed) => {
  const shaped = shapedBy(transposed);
  return [
    shaped(2048, 2048, 64, 16),
    shaped(2048, 2048, 512, 8, { codes: true }),
    shaped(2048, 1960, 200, 16, { scale: 2, bias: f32(1960) }),
    shaped(1930, 2056, 328, 48, { halves: true, bias: act(2056), gaps: [16, 24] }),
    shaped(1793, 2048, 256, 64, { scale: 0.5 }),
    shaped(2048, 1800, 264, 72, { gaps: [8, 0] }),
    shaped(4096, 1024, 192, 128, { codes: true, halves: true }),
    shaped(300, 8448, 256, 24),
    shaped(2048, 2048, 96, 10, { gaps: [6, 0] }),
  ];
});

// Fewer tiles: they are of 256 x 128, or the sums are short.
const narrow = [true, false].flatMap((transposed) => {
  const shaped = shapedBy(transposed);
  return [
    shaped(512, 576, 576, 16, { scale: 2 }),
    shaped(130, 192, 1536, 16, { codes: true, scale: 0.5 }),
    shaped(65, 1000, 264, 24, { halves: true, bias: act(1000) }),
    shaped(700, 136, 64, 80, { gaps: [8, 8], bias: f32(136) }),
    shaped(1100, 1664, 128, 16),
  ];
});

const several = [
  layers(512, [576, 192, 192], 576, 48, false),
  layers(300, [576, 192, 192], 576, 48, false, { codes: true }),
  layers(19, [48, 16, 16], 64, 24, false),
  layers(40, [64, 32], 128, 16, false, { codes: true, scale: 2 }),
  layers(2048, [512, 128, 128], 2048, 48, false, { codes: true }),
  layers(2048, [200, 64, 72], 1960, 30, false, { bias: f32(1960), gaps: [2, 8] }),
  layers(1930, [320, 264], 2048, 64, false, { halves: true }),
  layers(2048, [256, 32], 2048, 16, false),
  layers(2048, [64, 64, 64, 64], 2048, 16, false),
];

export const cases: OpCase[] = [...small, ...narrow, ...tiles, ...several];
