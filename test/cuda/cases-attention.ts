import { type AttentionShape, attend, attendBackward, sight, span } from "./attention-reference.js";
import type { CaseValues, OpCase, TensorSpec } from "./case.js";

type Ranges = readonly (readonly [begin: number, length: number])[];

interface Options {
  q: Ranges;
  /** q's by default. */
  k?: Ranges;
  causal?: boolean;
  window?: number;
  /** Strides of q, k, v and o; rows without gaps by default. */
  strides?: readonly [number, number, number, number];
  /** Rows behind the last sequence, of queries and of keys. */
  spare?: number;
  scale?: number;
  dropout?: number;
}

function shapeOf(heads: number, kvHeads: number, dim: number, options: Options): AttentionShape {
  const { q, k = q, causal = true, window = 0, spare = 0, scale = 1 / Math.sqrt(dim), dropout = 0 } = options;
  const [qStride, kStride, vStride, oStride] = options.strides ?? [
    heads * dim,
    kvHeads * dim,
    kvHeads * dim,
    heads * dim,
  ];
  const rows = (ranges: Ranges): number => Math.max(0, ...ranges.map(([begin, length]) => begin + length)) + spare;
  const sizes = { qRows: rows(q), kRows: rows(k), qStride, kStride, vStride, oStride };
  const random = { dropout: Math.fround(dropout), seed: -77 };
  return { heads, kvHeads, dim, q, k, causal, window, scale: Math.fround(scale), ...random, ...sizes };
}

/** log of the number of keys that a row sees, and a half, about what normal scores give; -infinity for a row that sees none. */
function lseOf(s: AttentionShape): number[] {
  const lse = new Array<number>(s.qRows * s.heads).fill(Number.NEGATIVE_INFINITY);
  for (const [n, [begin, length]] of s.q.entries())
    for (let i = 0; i < length; i++) {
      const { first, last } = sight(s, n, i);
      if (last >= first) lse.fill(Math.log(last - first + 1) + 0.5, (begin + i) * s.heads, (begin + i + 1) * s.heads);
    }
  return lse;
}

const int32 = (values: number[]): TensorSpec => ({ shape: [values.length], dtype: "int32", values });

/** The forward and the backward case of one shape; float64 beside them unless the shape is large. */
function both(name: string, heads: number, kvHeads: number, dim: number, options: Options): OpCase[] {
  const s = shapeOf(heads, kvHeads, dim, options);
  const rows = (n: number, width: number, stride: number): TensorSpec => ({
    shape: [span(n, width, stride)],
    act: true,
  });
  const q = rows(s.qRows, heads * dim, s.qStride);
  const k = rows(s.kRows, kvHeads * dim, s.kStride);
  const v = rows(s.kRows, kvHeads * dim, s.vStride);
  const o = rows(s.qRows, heads * dim, s.oStride);
  const output = (t: TensorSpec): TensorSpec => ({ ...t, output: true });
  const lse: TensorSpec = { shape: [s.qRows * heads], dtype: "float32" };
  const column = (ranges: Ranges, i: 0 | 1): TensorSpec => int32(ranges.map((r) => r[i]));
  const ranges = [column(s.q, 0), column(s.q, 1), column(s.k, 0), column(s.k, 1)];
  const ints = [
    s.q.length, s.qRows, s.kRows, heads, kvHeads, dim, s.qStride, s.kStride, s.vStride, s.oStride, s.causal ? 1 : 0, s.window,
    s.seed,
  ]; // biome-ignore format: one line
  const full = `${name}: ${heads}/${kvHeads} heads of ${dim}, ${s.causal ? "causal" : "full"}${s.window ? `, window ${s.window}` : ""}${s.dropout ? ", dropout" : ""}`;
  const small = s.q.reduce((sum, [, length], i) => sum + length * s.k[i]![1], 0) * heads * dim < 3e6;
  const given = (tensors: CaseValues[]): Float64Array[] => tensors as Float64Array[];
  const forward = (tensors: CaseValues[]): Float64Array[] => {
    const [a, b, c] = given(tensors);
    return attend(s, a!, b!, c!);
  };
  return [
    {
      name: `attention, ${full}`,
      op: "attention",
      tensors: [q, k, v, ...ranges, output(o), output(lse)],
      ints,
      floats: [s.scale, s.dropout],
      ...(small ? { reference: forward } : {}),
    },
    {
      name: `attention_backward, ${full}`,
      op: "attentionBackward",
      tensors: [q, k, v, o, { ...lse, values: lseOf(s) }, o, ...ranges, output(q), output(k), output(v)],
      ints,
      floats: [s.scale, s.dropout],
      ...(small ? { reference: (tensors: CaseValues[]) => attendBackward(s, given(tensors)) } : {}),
    },
  ];
}

const one = (length: number): Options => ({ q: [[0, length]] });

const dims = [8, 16, 24, 32, 40, 64, 72, 80, 96, 104, 128, 160, 192, 200, 256].flatMap((dim) => [
  ...both("75 rows", 4, 2, dim, one(75)),
  ...both("130 rows", 2, 2, dim, { ...one(130), causal: false }),
]);

// Widths and strides that are no multiple of 16 bytes.
const odd = [1, 3, 20, 36, 100, 129].flatMap((dim) => [
  ...both("70 rows, odd strides", 2, 1, dim, { ...one(70), strides: [2 * dim + 5, dim + 3, dim + 1, 2 * dim + 7] }),
  ...both("33 rows", 2, 1, dim, { ...one(33), causal: false }),
]);

// q, k and v as columns of one tensor.
const fused = [64, 128].flatMap((dim) => {
  const stride = (8 + 2 * 2) * dim;
  return both("fused strides, 100 rows", 8, 2, dim, { ...one(100), strides: [stride, stride, stride, 8 * dim] });
});

const groups = [
  ...both("one kv head", 12, 1, 64, one(150)),
  ...both("one kv head", 6, 1, 192, one(90)),
  ...both("as many kv heads", 3, 3, 128, one(140)),
  ...both("group of 3", 9, 3, 64, one(200)),
  ...both("group of 7", 14, 2, 64, one(130)),
  ...both("group of 48", 48, 1, 128, one(70)),
  ...both("group of 16", 32, 2, 128, one(70)),
  ...both("group of 48, one query", 48, 1, 128, { q: [[0, 1]], k: [[0, 200]] }),
  ...both("group of 8, one query", 8, 1, 256, { q: [[0, 1]], k: [[0, 200]] }),
];

const windows = [1, 7, 64, 100, 1000].flatMap((window) => [
  ...both("200 rows", 2, 1, 64, { ...one(200), window }),
  ...both("150 rows", 2, 1, 128, { ...one(150), window, causal: false }),
]);

// Mistral's: rows of several lengths about the window, and decoding past it.
const sliding = [
  ...both("documents", 8, 2, 128, { q: [[0, 100], [100, 300], [400, 63], [463, 129]], window: 128 }),
  ...both("4,100 rows", 2, 1, 128, { ...one(4100), window: 4096 }),
  ...both("one query, 5,000 keys", 8, 2, 128, { q: [[0, 1]], k: [[0, 5000]], window: 4096 }),
  ...both("3 of 4 in the window", 8, 2, 128, { q: [[0, 1], [1, 1], [2, 1], [3, 1]], k: [[0, 20], [64, 64], [128, 60], [192, 600]], window: 64 }),
]; // biome-ignore format: pairs

const dropped = [20, 64, 72, 128, 256].flatMap((dim) => [
  ...both("75 rows", 4, 2, dim, { ...one(75), dropout: 0.1 }),
  ...both("130 rows", 2, 2, dim, { ...one(130), causal: false, dropout: 0.5 }),
  ...both("few rows, many keys", 4, 1, dim, { q: [[0, 3], [3, 1]], k: [[0, 40], [40, 90]], dropout: 0.3 }),
]); // biome-ignore format: pairs
const droppedMore = [
  ...both("group of 48", 48, 1, 128, { ...one(100), dropout: 0.1 }),
  ...both("8 documents", 4, 1, 128, { q: [[0, 300], [300, 5], [305, 129], [434, 64]], dropout: 0.1 }),
  ...both("2,048 rows", 2, 1, 128, { ...one(2048), dropout: 0.1 }),
]; // biome-ignore format: pairs

// Sequences in any order, empty ones, gaps between them and rows behind the last.
const gaps: Options = {
  q: [[3, 30], [40, 17], [0, 3], [60, 0], [0, 0]],
  k: [[60, 30], [0, 17], [25, 12], [0, 0], [40, 9]],
  spare: 4,
}; // biome-ignore format: pairs
const packed = [24, 64, 128, 256].flatMap((dim) =>
  [true, false].flatMap((causal) =>
    [0, 7].flatMap((window) => both("packed with gaps", 4, 2, dim, { ...gaps, causal, window })),
  ),
);

const lengths = Array.from({ length: 40 }, (_, i) => 1 + (i % 17));
const many = both("40 sequences", 4, 2, 16, {
  q: lengths.map((n, i) => [i * 17, n] as const),
  k: lengths.map((n, i) => [i * 20, n + (i % 3)] as const),
});
const documents = [300, 5, 129, 64, 400, 1, 63, 130].reduce<[number, number][]>((list, n) => {
  const [begin, length] = list.at(-1) ?? [0, 0];
  list.push([begin + length, n]);
  return list;
}, []);
const documentCases = [
  ...both("8 documents", 4, 1, 128, { q: documents }),
  ...both("8 documents", 4, 2, 64, { q: documents, window: 200 }),
];

const offsets = [
  ...both("more keys than queries", 4, 2, 128, { q: [[0, 70], [70, 5]], k: [[0, 260], [260, 300]] }),
  ...both("more keys than queries", 4, 2, 64, { q: [[0, 70], [70, 5]], k: [[0, 260], [260, 300]], window: 50 }),
  ...both("more queries than keys", 2, 1, 64, { q: [[0, 150], [150, 3], [153, 4]], k: [[0, 90], [90, 0], [90, 4]] }),
]; // biome-ignore format: pairs

const decoding = [8, 20, 33, 64, 72, 128, 256].flatMap(
  (dim) =>
  [0, 50].flatMap((window) => [
    ...both("one query, 300 keys", 6, 2, dim, { q: [[0, 1]], k: [[2, 300]], window }),
    ...both("few queries", 12, 1, dim, { q: [[0, 4], [4, 3], [9, 0]], k: [[2, 70], [80, 91], [0, 0]], window, spare: 2 }),
  ]), // biome-ignore format: pairs
);
const decodingLong = [
  ...both("one query, 8,192 keys", 8, 2, 128, { q: [[0, 1]], k: [[0, 8192]] }),
  ...both("one query, 5,001 keys", 16, 1, 64, { q: [[0, 1]], k: [[3, 5001]] }),
  ...both("8 queries, 1,500 keys", 2, 2, 96, { q: [[0, 8]], k: [[0, 1500]], causal: false }),
  ...both("48 rows", 8, 2, 64, {
    q: Array.from({ length: 48 }, (_, i) => [i, 1] as const),
    k: Array.from({ length: 48 }, (_, i) => [i * 200, (i * 37) % 200] as const),
  }),
];

const long = [
  ...both("2,048 rows", 2, 1, 128, one(2048)),
  ...both("2,048 rows", 2, 2, 64, { ...one(2048), window: 512 }),
  ...both("1,023 rows", 2, 1, 256, { ...one(1023), causal: false }),
];

const scales = [
  ...both("a negative scale", 2, 1, 64, { ...one(50), scale: -0.1 }),
  ...both("scale 0", 2, 1, 64, { ...one(50), scale: 0 }),
];

export const cases: OpCase[] = [
  ...dims, ...odd, ...fused, ...groups, ...windows, ...sliding, ...dropped, ...droppedMore, ...packed, ...many, ...documentCases, ...offsets, ...decoding, ...decodingLong,
  ...long, ...scales,
]; // biome-ignore format: one line
