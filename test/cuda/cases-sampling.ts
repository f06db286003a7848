import type { OpCase } from "./case.js";
import { act, idsOut, inOut, ints } from "./specs.js";

const penalty: OpCase[] = [
  {
    name: "repetition_penalty",
    op: "repetitionPenalty",
    tensors: [ints(0, 3, 3, -1, 32, 5, 5, -100, 2, 0), inOut(2, 33)],
    ints: [2, 33, 5],
    floats: [1.3],
  },
  {
    name: "repetition_penalty of a large vocabulary",
    op: "repetitionPenalty",
    tensors: [ints(...Array.from({ length: 600 }, (_, i) => (i * 7919) % 500000)), inOut(2, 500000)],
    ints: [2, 500000, 300],
    floats: [0.7],
  },
];

/** top_k, temperature, top_p, min_p */
const SETTINGS: [number, number, number, number][] = [
  [0, 0, 1, 0],
  [0, 1, 1, 0],
  [0, 0.7, 1, 0.05],
  [50, 1, 1, 0],
  [1, 1, 1, 0],
  [40, 0.8, 0.95, 0],
  [0, 1, 0.9, 0],
  [0, 2, 0.999, 0],
  [0, 1, 0, 0],
  [0, 0.9, 0.8, 0.1],
  [20, 1.3, 0.7, 0.2],
  [5000, 3, 0.99, 0],
];
const sample: OpCase[] = (
  [
    [40, 33],
    [25, 1000],
    [6, 49152],
    [3, 151936],
  ] as const
).flatMap(([rows, vocab]) =>
  SETTINGS.map(([k, temperature, p, min], i) => ({
    name: `sample ${rows}x${vocab} k ${k}, t ${temperature}, p ${p}, min ${min}`,
    op: "sample",
    tensors: [act(rows, vocab), null, idsOut(rows)],
    ints: [rows, vocab, k, 1234 + i, i * 100],
    floats: [temperature, p, min],
  })),
);
// Many equal logits, and tokens that are forbidden: ties are settled by the id.
const tied = Array.from({ length: 8 * 200 }, (_, i) =>
  i % 5 === 0 ? Number.NEGATIVE_INFINITY : Math.floor(i / 7) % 3,
);
for (const [k, p, min] of [
  [0, 1, 0],
  [3, 1, 0],
  [0, 0.4, 0],
  [100, 0.8, 0.3],
  [190, 1, 0],
] as const)
  sample.push({
    name: `sample among equals, k ${k}, p ${p}, min ${min}`,
    op: "sample",
    tensors: [{ ...act(8, 200), values: tied }, null, idsOut(8)],
    ints: [8, 200, k, 77, 3],
    floats: [1, p, min],
  });

export const cases: OpCase[] = [...penalty, ...sample];
