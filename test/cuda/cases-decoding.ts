import type { OpCase, TensorSpec } from "./case.js";
import { act, inOut, ints } from "./specs.js";

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
    ints(...Array.from({ length: rows! }, (_, r) => (r % 3 === 1 ? -1 : (r * 6 + 2) % places!))),
    inOut(places!, width!),
    inOut(places!, width!),
  ],
  ints: [rows!, width!, places!],
  floats: [],
}));

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

export const cases: OpCase[] = [...append, ...advance, ...sample];
