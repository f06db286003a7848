// Matrix products: shapes that fill tiles and that do not, strides, transposes, mixed types, biases, groups.
import type { CaseDType, CaseValues, OpCase, TensorSpec } from "./case.js";
import { act, f32 } from "./specs.js";

/** An output that is written whole: what stands between its rows stays as it was. */
const marked = (...shape: number[]): TensorSpec => ({ shape, act: true, output: true });
const read = (spec: TensorSpec): TensorSpec => ({ ...spec, fill: "normal" });
/** Products done in bfloat16 whatever the dtype under test. */
const BFLOAT16 = { float32: 1e-2, bfloat16: 1e-2, float16: 1e-2 };
/** Operands that float16 rounds. */
const FLOAT16 = { float32: 2e-3, bfloat16: 1e-2, float16: 2e-3 };

type Reference = NonNullable<OpCase["reference"]>;

interface Options {
  transposed?: [number, number];
  /** Elements between the end of a row and the next one, of a, b and y. */
  gaps?: [number, number, number];
  alpha?: number;
  beta?: number;
  compute?: number;
  bias?: TensorSpec;
  /** Other types than the activations' for a, b and y. */
  types?: [CaseDType | undefined, CaseDType | undefined, CaseDType | undefined];
  tolerance?: OpCase["tolerance"];
  dtypes?: CaseDType[];
}

/** y in float64, the gaps between rows as the call found them. */
// The sum and the sum with its bias are each rounded, and nothing averages the two out.
const ROUNDED_TWICE = { float16: 4e-3 };

function expected(m: number, n: number, k: number, o: Options, lds: [number, number, number]): Reference {
  const [ta, tb] = o.transposed ?? [0, 0];
  const [lda, ldb, ldy] = lds;
  const { alpha = 1, beta = 0 } = o;
  return ([a, b, bias, y]: CaseValues[]) => {
    const [A, B, Y] = [a, b, y] as Float64Array[];
    const out = Float64Array.from(Y!);
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let p = 0; p < k; p++) sum += A![ta ? p * lda + i : i * lda + p]! * B![tb ? j * ldb + p : p * ldb + j]!;
        const before = beta === 0 ? 0 : beta * Y![i * ldy + j]!;
        out[i * ldy + j] = alpha * sum + before + (bias ? (bias as Float64Array)[j]! : 0);
      }
    return [out];
  };
}

function gemm(name: string, m: number, n: number, k: number, o: Options = {}): OpCase {
  const { transposed: [ta, tb] = [0, 0], gaps = [0, 0, 0], alpha = 1, beta = 0, compute = 0, types = [] } = o;
  const [rowsA, colsA] = ta ? [k, m] : [m, k];
  const [rowsB, colsB] = tb ? [n, k] : [k, n];
  const lds: [number, number, number] = [colsA + gaps[0], colsB + gaps[1], n + gaps[2]];
  const typed = (spec: TensorSpec, t: CaseDType | undefined): TensorSpec =>
    t ? { ...spec, act: false, dtype: t } : spec;
  const y = beta === 0 ? marked(m, lds[2]) : read(marked(m, lds[2]));
  const exact = m * n * k <= 2e6 && compute === 0 && types.every((t) => t === undefined);
  return {
    name: `gemm ${name} ${m}x${n}x${k}${ta ? " a^T" : ""}${tb ? " b^T" : ""}`,
    op: "gemm",
    tensors: [
      typed(act(Math.max(rowsA, 1), lds[0]), types[0]),
      typed(act(Math.max(rowsB, 1), lds[1]), types[1]),
      o.bias ?? null,
      typed(y, types[2]),
    ],
    ints: [m, n, k, ta, tb, ...lds, compute],
    floats: [alpha, beta],
    ...(o.tolerance && { tolerance: o.tolerance }),
    ...(o.dtypes && { dtypes: o.dtypes }),
    ...(exact && { reference: expected(m, n, k, o, lds) }),
  };
}

const TRANSPOSES: [number, number][] = [
  [0, 0],
  [0, 1],
  [1, 0],
  [1, 1],
];
const SIZES: [number, number, number][] = [
  [1, 1, 1],
  [5, 7, 9],
  [37, 65, 33],
  [64, 128, 96],
  [1, 576, 512],
  [300, 17, 8],
  [16, 320, 1536],
  [129, 257, 511],
];

const plain = SIZES.flatMap(([m, n, k]) =>
  TRANSPOSES.flatMap((transposed) => [
    gemm("", m, n, k, { transposed }),
    gemm("strided, scaled, added", m, n, k, { transposed, gaps: [3, 1, 2], alpha: 0.7, beta: 1 }),
    gemm("aligned strides", m, n, k, { transposed, gaps: [8, 16, 8], beta: -0.5 }),
    gemm("float32 bias", m, n, k, { transposed, bias: f32(n), ...(m * n * k === 1 && { tolerance: ROUNDED_TWICE }) }),
    gemm("bias", m, n, k, { transposed, bias: act(n), beta: 1, gaps: [0, 0, 8] }),
  ]),
);

const mixed = TRANSPOSES.flatMap((transposed) =>
  (
    [
      [37, 65, 33],
      [48, 64, 160],
    ] as const
  ).flatMap(([m, n, k]) => [
    gemm("b float32", m, n, k, { transposed, types: [undefined, "float32", undefined] }),
    gemm("a float32", m, n, k, { transposed, types: ["float32", undefined, undefined] }),
    gemm("y float32", m, n, k, { transposed, types: [undefined, undefined, "float32"], bias: act(n) }),
    gemm("y float32, added", m, n, k, { transposed, types: [undefined, undefined, "float32"], beta: 1 }),
    gemm("a, b float32", m, n, k, { transposed, types: ["float32", "float32", undefined], beta: 1, bias: f32(n) }),
    gemm("b bfloat16", m, n, k, { transposed, types: [undefined, "bfloat16", undefined], tolerance: BFLOAT16 }),
    gemm("b float16", m, n, k, {
      transposed,
      types: [undefined, "float16", undefined],
      tolerance: { ...FLOAT16, float32: 2e-3 },
    }),
    gemm("a float16, y float32", m, n, k, { transposed, types: ["float16", undefined, "float32"], tolerance: FLOAT16 }),
    gemm("compute bfloat16", m, n, k, { transposed, compute: 1, tolerance: BFLOAT16, bias: f32(n) }),
    gemm("compute bfloat16, added", m, n, k, {
      transposed,
      compute: 1,
      beta: 1,
      gaps: [1, 1, 1],
      types: [undefined, undefined, "float32"],
      tolerance: BFLOAT16,
    }),
  ]),
);

const odd = [
  gemm("empty sum", 3, 5, 0, { gaps: [4, 0, 0], beta: 0.5, bias: f32(5) }),
  gemm("empty sum, not read", 3, 5, 0, { gaps: [4, 0, 1], bias: act(5) }),
  gemm("large", 1024, 768, 2048, { transposed: [0, 1] }),
  gemm("weight gradient", 768, 520, 1024, { transposed: [1, 0], types: [undefined, undefined, "float32"], beta: 1 }),
  gemm("adapter down", 1000, 16, 2048, { transposed: [0, 1], types: [undefined, "float32", undefined] }),
  gemm("adapter up", 1000, 2048, 16, {
    transposed: [0, 1],
    types: [undefined, "float32", undefined],
    beta: 1,
    alpha: 2,
  }),
  ...[8, 16, 24, 32, 64].flatMap((rank) =>
    (
      [
        [0, 1],
        [0, 0],
      ] as const
    ).flatMap((t) => [
      gemm("rank update", 100, 72, rank, { transposed: [...t], types: [undefined, "float32", undefined], alpha: 0.5 }),
      gemm("rank update, added", 300, 264, rank, { transposed: [...t], beta: 1, alpha: 2, gaps: [2, 3, 8] }),
    ]),
  ),
  gemm("decode", 1, 4096, 4096, { transposed: [0, 1] }),
  gemm("decode", 4, 1000, 4096, { transposed: [0, 1], bias: f32(1000) }),
  ...[1, 3, 4].flatMap((m) => [
    gemm("few rows", m, 16, 1024, { transposed: [0, 1] }),
    gemm("few rows, float32 weight", m, 16, 2048, { transposed: [0, 1], types: [undefined, "float32", undefined] }),
    gemm("few rows, float32 weight", m, 6000, 16, {
      transposed: [0, 1],
      types: [undefined, "float32", undefined],
      beta: 1,
      alpha: 2,
      gaps: [8, 8, 0],
    }),
    gemm("few rows, bias", m, 4101, 520, { transposed: [0, 1], bias: act(4101), gaps: [0, 8, 3] }),
    gemm("few rows, y float32", m, 4096, 1024, { transposed: [0, 1], types: [undefined, undefined, "float32"] }),
  ]),
];

// ---- batches ------------------------------------------------------------------------------

function batched(
  batch: number,
  m: number,
  n: number,
  k: number,
  group: number,
  transposed: [number, number],
  o: Options & { interleaved?: boolean } = {},
): OpCase {
  const [ta, tb] = transposed;
  const { alpha = 1, beta = 0, compute = 0, types = [], interleaved = false } = o;
  const [rowsA, colsA] = ta ? [k, m] : [m, k];
  const [rowsB, colsB] = tb ? [n, k] : [k, n];
  const countB = Math.ceil(batch / Math.max(group, 1));
  // Interleaved: the items of a row stand side by side, as the heads of attention do.
  const layout = (rows: number, cols: number, count: number): [number, number] =>
    interleaved ? [cols * count, cols] : [cols, rows * cols];
  const [lda, strideA] = layout(rowsA, colsA, batch);
  const [ldb, strideB] = layout(rowsB, colsB, countB);
  const [ldy, strideY] = layout(m, n, batch);
  const typed = (spec: TensorSpec, t: CaseDType | undefined): TensorSpec =>
    t ? { ...spec, act: false, dtype: t } : spec;
  const y = marked(batch, m, n);
  const kinds = `${types.map((t) => t ?? "-").join(",")}${compute ? " compute bfloat16" : ""}`;
  return {
    name: `gemm_batched ${batch} of ${m}x${n}x${k} group ${group} transposed ${ta}${tb} beta ${beta}${interleaved ? " interleaved" : ""} ${kinds}`,
    op: "gemmBatched",
    tensors: [
      typed(act(batch, rowsA, colsA), types[0]),
      typed(act(countB, rowsB, colsB), types[1]),
      typed(beta === 0 ? y : read(y), types[2]),
    ],
    ints: [batch, m, n, k, ta, tb, lda, ldb, ldy, strideA, strideB, strideY, group, compute],
    floats: [alpha, beta],
    ...(o.tolerance && { tolerance: o.tolerance }),
  };
}

const batches = TRANSPOSES.flatMap((t) => [
  ...[1, 2, 3].flatMap((group) =>
    [false, true].flatMap((interleaved) => [
      batched(6, 5, 7, 9, group, t, { interleaved }),
      batched(7, 33, 24, 64, group, t, { interleaved, beta: 1, alpha: 0.5 }),
    ]),
  ),
  batched(8, 32, 40, 16, 0, t, { types: [undefined, "float32", undefined] }),
  batched(8, 32, 40, 16, 4, t, { types: ["float32", undefined, "float32"], beta: 1 }),
  batched(5, 17, 19, 23, 2, t, { compute: 1, tolerance: BFLOAT16, interleaved: true }),
]);

// ---- gradients of a low-rank update -------------------------------------------------------

function lowRankGradients(
  rows: number,
  cols: number,
  rank: number,
  o: { gaps?: [number, number]; beta?: number; b?: TensorSpec } = {},
): OpCase {
  const [ldH, ldDh] = [rank + (o.gaps?.[0] ?? 0), rank + (o.gaps?.[1] ?? 0)];
  const beta = o.beta ?? 0;
  const reference: Reference = ([dy, h, b, dh, db]: CaseValues[]) => {
    const [DY, H, B] = [dy, h, b] as Float64Array[];
    const [DH, DB] = [
      Float64Array.from(dh as Float64Array),
      Float64Array.from(db as Float64Array, (v) => (beta ? beta * v : 0)),
    ];
    for (let r = 0; r < rows; r++)
      for (let j = 0; j < rank; j++) {
        let sum = 0;
        for (let c = 0; c < cols; c++) {
          sum += DY![r * cols + c]! * B![c * rank + j]!;
          DB[c * rank + j]! += 0.5 * DY![r * cols + c]! * H![r * ldH + j]!;
        }
        DH[r * ldDh + j] = 0.5 * sum;
      }
    return [DH, DB];
  };
  return {
    name: `low_rank_gradients ${rows}x${cols} rank ${rank}${o.gaps ? " strided" : ""}${beta ? " added" : ""}${o.b ? " b rounded" : ""}`,
    op: "lowRankGradients",
    tensors: [
      act(rows, cols),
      act(rows, ldH),
      o.b ?? f32(cols, rank),
      marked(rows, ldDh),
      { shape: [cols, rank], dtype: "float32", output: true, fill: beta ? "normal" : "zero" },
    ],
    ints: [rows, cols, rank, ldH, ldDh],
    floats: [0.5, beta],
    ...(rows * cols <= 2 ** 21 && { reference }),
  };
}

// From 1,024 rows and 512 columns on, ranks 8 and 16 have a kernel of their own.
const lowRank = [
  lowRankGradients(7, 9, 3),
  lowRankGradients(64, 72, 16, { beta: 1, gaps: [3, 5] }),
  lowRankGradients(1024, 512, 16),
  lowRankGradients(1025, 520, 8, { beta: 0.5, gaps: [8, 24] }),
  lowRankGradients(1500, 1160, 16, { b: act(1160, 16) }),
  lowRankGradients(1024, 640, 24, { gaps: [8, 8] }),
  lowRankGradients(1100, 513, 16),
  lowRankGradients(2100, 4096, 16, { beta: 1, gaps: [32, 32] }),
  lowRankGradients(8192, 1024, 16),
];

export const cases: OpCase[] = [...plain, ...mixed, ...odd, ...batches, ...lowRank];
