import type { OpCase } from "./case.js";
import { act, exact, f32, f32InOut, f32Out, ids, idsOut, ints, out, positive } from "./specs.js";

const KINDS = ["sum", "mean", "max", "min"];
/** outer, n, inner: rows of a warp, of a block, cut into runs; columns by packs, odd, cut in depth */
const SHAPES: [number, number, number][] = [
  [5, 37, 1],
  [33, 64, 1],
  [3, 1000, 1],
  [2, 50000, 1],
  [1, 65536, 1],
  [1, 1, 1],
  [1, 5, 3],
  [4, 9, 40],
  [1, 700, 64],
  [3, 300, 33],
  [2, 129, 512],
  [1300, 3, 8],
];
const reduce: OpCase[] = SHAPES.flatMap(([outer, n, inner]) =>
  KINDS.map((name, kind) => ({
    name: `reduce ${name} ${outer}x${n}x${inner}`,
    op: "reduce",
    tensors: [{ ...act(outer, n, inner), fill: kind < 2 ? "uniform" : "normal" }, out(outer, inner)],
    ints: [kind, outer, n, inner],
    floats: [],
  })),
);
reduce.push({
  name: "reduce into float32",
  op: "reduce",
  tensors: [act(77, 96), f32Out(96)],
  ints: [0, 1, 77, 96],
  floats: [],
  tolerance: { bfloat16: 1e-5, float16: 1e-5 },
});

/** dims, strides of y, its elements: plain reductions and others */
const SUMS: [number[], number[], number][] = [
  [[1, 1, 37, 64], [0, 0, 0, 1], 64],
  [[1, 1, 37, 64], [0, 0, 1, 0], 37],
  [[2, 3, 5, 7], [21, 7, 0, 1], 42],
  [[2, 3, 5, 7], [0, 5, 1, 0], 15],
  [[2, 3, 5, 7], [7, 0, 0, 1], 14],
  [[2, 3, 5, 7], [0, 7, 0, 1], 21],
  [[2, 3, 5, 7], [5, 0, 1, 0], 10],
  [[2, 3, 5, 7], [0, 0, 0, 0], 1],
  [[4, 1, 6, 8], [0, 0, 16, 2], 96],
];
const sums: OpCase[] = SUMS.map(([d, s, count]) => ({
  name: `sum_to ${d.join("x")} strides ${s.join(" ")}`,
  op: "sumTo",
  tensors: [positive(...d), out(count)],
  ints: [...d, ...s, count],
  floats: [],
}));

const argmax: OpCase[] = (
  [
    [5, 33],
    [9, 64],
    [3, 1000],
    [2, 151936],
    [1, 1],
  ] as const
).map(([rows, cols]) => ({
  name: `argmax ${rows}x${cols}`,
  op: "argmax",
  tensors: [act(rows, cols), idsOut(rows)],
  ints: [rows, cols],
  floats: [],
}));
argmax.push({
  name: "argmax, the first of equals",
  op: "argmax",
  tensors: [
    {
      shape: [4, 6],
      act: true,
      values: [1, 3, 2, 3, 3, 0, -5, -5, -5, -5, -5, -5, 0, 0, 0, 0, 0, 1, 7, 1, 7, 1, 7, 1],
    },
    idsOut(4),
  ],
  ints: [4, 6],
  floats: [],
});

const squares: OpCase[] = [
  {
    name: "sum_squares of three",
    op: "sumSquares",
    tensors: [[f32(1003), f32(65536 + 7), f32(1)], f32Out(1)],
    ints: [],
    floats: [],
  },
  {
    name: "sum_squares of 200",
    op: "sumSquares",
    tensors: [Array.from({ length: 200 }, (_, i) => f32(i * 3 + 1)), f32Out(1)],
    ints: [],
    floats: [],
  },
];

const labels = ints(0, 4, -100, 2, 1);
const pick: OpCase[] = [
  { name: "pick", op: "pick", tensors: [act(5, 5), labels, exact(out(5))], ints: [5, 5], floats: [] },
  { name: "pick 300", op: "pick", tensors: [act(300, 17), ids(17, 300), exact(out(300))], ints: [300, 17], floats: [] },
  {
    name: "pick_backward",
    op: "pickBackward",
    tensors: [act(5), labels, { ...out(5, 5), fill: "normal", exact: true }],
    ints: [5, 5],
    floats: [],
  },
  {
    name: "pick_backward into float32",
    op: "pickBackward",
    tensors: [act(300), ids(17, 300), f32InOut(300, 17)],
    ints: [300, 17],
    floats: [],
  },
];

export const cases: OpCase[] = [...reduce, ...sums, ...argmax, ...squares, ...pick];
