import type { OpCase } from "./case.js";
import { act, f32, f32Out, ids, ints, out } from "./specs.js";

/** A warp a row, a block a row, odd rows, rows that shared memory holds and does not hold. */
const SHAPES: [number, number][] = [
  [9, 33],
  [17, 64],
  [5, 576],
  [3, 1001],
  [4, 4096],
  [2, 32000],
  [1, 151936],
  [1, 1],
];
const softmax: OpCase[] = SHAPES.flatMap(([rows, cols]) =>
  (["softmax", "logSoftmax"] as const).flatMap((op): OpCase[] => [
    { name: `${op} ${rows}x${cols}`, op, tensors: [act(rows, cols), out(rows, cols)], ints: [rows, cols], floats: [] },
    {
      name: `${op}Backward ${rows}x${cols}`,
      op: `${op}Backward` as const,
      tensors: [
        { ...act(rows, cols), fill: op === "softmax" ? "uniform" : "normal" },
        act(rows, cols),
        out(rows, cols),
      ],
      ints: [rows, cols],
      floats: [],
    },
  ]),
);

const crossEntropy: OpCase[] = (
  [
    [6, 33],
    [5, 1000],
    [3, 49152],
    [3, 151936],
    [2, 300001],
  ] as const
).flatMap(([rows, vocab]) =>
  [0, 0.1].flatMap((smoothing): OpCase[] => [
    {
      name: `cross_entropy ${rows}x${vocab} smoothing ${smoothing}`,
      op: "crossEntropy",
      tensors: [act(rows, vocab), ids(vocab, rows), f32Out(rows), f32Out(rows)],
      ints: [rows, vocab],
      floats: [smoothing],
      tolerance: { bfloat16: 1e-5, float16: 1e-5 },
    },
    {
      name: `cross_entropy_backward ${rows}x${vocab} smoothing ${smoothing}`,
      op: "crossEntropyBackward",
      tensors: [
        act(rows, vocab),
        ids(vocab, rows),
        { ...f32(rows), values: Array.from({ length: rows }, () => Math.log(vocab) + 0.5) },
        f32(rows),
        out(rows, vocab),
      ],
      ints: [rows, vocab],
      floats: [smoothing],
    },
  ]),
);
const far = Array.from({ length: 4 * 40 }, (_, i) => (Math.floor(i / 40) - 1) * 200 + Math.sin(i));
crossEntropy.push(
  {
    name: "cross_entropy far from zero, a row without a label",
    op: "crossEntropy",
    tensors: [{ ...act(4, 40), values: far }, ints(3, 39, -100, 0), f32Out(4), f32Out(4)],
    ints: [4, 40],
    floats: [0.2],
  },
  {
    name: "cross_entropy_backward, a row without a label",
    op: "crossEntropyBackward",
    tensors: [
      act(3, 40),
      ints(3, -100, 39),
      { ...f32(3), values: [4.2, 0, 4.1] },
      f32(3),
      { ...out(3, 40), fill: "normal" },
    ],
    ints: [3, 40],
    floats: [0],
  },
);

export const cases: OpCase[] = [...softmax, ...crossEntropy];
