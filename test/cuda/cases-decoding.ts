import type { OpCase, TensorSpec } from "./case.js";
import { act, exact, f32, f32InOut, inOut, ints, out } from "./specs.js";

const state = (...values: number[]): TensorSpec => ({ ...ints(...values), output: true, exact: true });

const append: OpCase[] = [
  [3, 64, 10],
  [1, 1024, 40],
  [5, 7, 9],
  [65, 192, 400],
].map(([rows, width, places]) => ({
  name: `cache_append ${rows}x${width} into ${places}`,
  op: "cacheAppend",
  tensors: [
    act(rows!, width!),
    act(rows!, width!),
    ints(...Array.from({ length: rows! }, (_, r) => (r % 3 === 1 ? -1 : (r * 7 + 2) % places!))),
    inOut(places!, width!),
    inOut(places!, width!),
  ],
  ints: [rows!, width!, places!],
  floats: [],
}));

const bytes = (places: number, width: number): TensorSpec => ({
  shape: [places, width],
  dtype: "uint8",
  output: true,
  exact: true,
  values: Array.from({ length: places * width }, (_, i) => i % 251),
});

const append8: OpCase[] = [
  [3, 2, 64, 10],
  [1, 9, 128, 40],
  [5, 1, 7, 9],
  [65, 3, 80, 400],
].map(([rows, heads, dim, places]) => ({
  name: `cache_append_8 ${rows}x${heads}x${dim} into ${places}`,
  op: "cacheAppend8",
  tensors: [
    act(rows!, heads! * dim!),
    act(rows!, heads! * dim!),
    ints(...Array.from({ length: rows! }, (_, r) => (r % 3 === 1 ? -1 : (r * 7 + 2) % places!))),
    bytes(places!, heads! * dim!),
    bytes(places!, heads! * dim!),
    exact(f32InOut(places!, heads!)),
    exact(f32InOut(places!, heads!)),
  ],
  ints: [rows!, heads!, dim!, places!],
  floats: [],
}));

/** Sequences of one query (some of more, one of none) in regions of a cache. */
const cached: OpCase[] = [
  { heads: 4, kvHeads: 2, dim: 64, room: 40, lengths: [1, 33, 40], queries: [1, 1, 1], window: 0 },
  { heads: 9, kvHeads: 3, dim: 64, room: 2000, lengths: [1999, 700], queries: [1, 1], window: 0 },
  { heads: 32, kvHeads: 2, dim: 128, room: 300, lengths: [300], queries: [1], window: 0 },
  { heads: 12, kvHeads: 1, dim: 80, room: 130, lengths: [100, 0, 129, 7], queries: [2, 0, 3, 1], window: 50 },
  { heads: 3, kvHeads: 3, dim: 33, room: 70, lengths: [70, 1, 64, 12, 5], queries: [1, 1, 1, 1, 1], window: 0 },
].flatMap(({ heads, kvHeads, dim, room, lengths, queries, window }) =>
  (["uint8", "float32", "bfloat16", "float16"] as const).map((dtype): OpCase => {
    const qRows = queries.reduce((n, q) => n + q, 1); // one row is nobody's
    const kRows = room * lengths.length;
    const lines: TensorSpec = { shape: [kRows, kvHeads * dim], dtype };
    const absmax = dtype === "uint8" ? { ...f32(kRows, kvHeads), fill: "positive" as const } : null;
    return {
      name: `attention_cached ${dtype} ${lengths.length} sequences ${heads}/${kvHeads} heads of ${dim}${window ? ` window ${window}` : ""}`,
      op: "attentionCached",
      tensors: [
        act(qRows, heads * dim),
        lines,
        lines,
        absmax,
        absmax,
        ints(...queries.map((_, i) => queries.slice(0, i).reduce((n, q) => n + q, 0))),
        ints(...queries),
        ints(...lengths.map((_, i) => i * room)),
        ints(...lengths),
        out(qRows, heads * dim),
      ],
      ints: [lengths.length, qRows, kRows, heads, kvHeads, dim, window],
      floats: [1 / Math.sqrt(dim)],
    };
  }),
);

const rows = 70;
const each = (fn: (r: number) => number): number[] => Array.from({ length: rows }, (_, r) => fn(r));
const advance: OpCase[] = [true, false].map((all) => ({
  name: `decode_advance ${all ? "with counters and seen tokens" : "alone"}`,
  op: "decodeAdvance",
  tensors: [
    ints(...each((r) => r * 3)),
    state(...each((r) => -r)),
    state(...each((r) => r % 12)),
    state(...each((r) => (r % 12) + 1)),
    state(...each((r) => (r % 5 === 0 ? -1 : r * 12 + (r % 12)))),
    all ? state(...Array.from({ length: 2 * rows }, (_, i) => i)) : null,
    all ? state(...Array.from({ length: 11 * rows }, () => -1)) : null,
  ],
  ints: [rows, 11, all ? 11 : 0],
  floats: [],
}));

const sample: OpCase[] = [1, 4, 33].map((n) => ({
  name: `sample ${n} rows, each with its own draw`,
  op: "sample",
  tensors: [
    act(n, 1000),
    ints(...Array.from({ length: 2 * n }, (_, i) => i * 7919 - 3)),
    { shape: [n], dtype: "int32", output: true, fill: "zero", exact: true },
  ],
  ints: [n, 1000, 40, 99, 99],
  floats: [0.9, 0.95, 0],
}));

export const cases: OpCase[] = [...append, ...append8, ...cached, ...advance, ...sample];
