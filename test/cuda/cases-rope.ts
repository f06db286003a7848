import type { OpCase } from "./case.js";
import { act, f32, ids, out } from "./specs.js";

/** rows, heads, head_dim, rotary_dim, x_stride, y_stride */
const ROPES: [number, number, number, number, number, number][] = [
  [7, 4, 64, 64, 256, 256],
  [5, 9, 64, 64, 960, 576],
  [3, 2, 128, 64, 256, 256],
  [4, 3, 80, 32, 240, 240],
  [6, 2, 10, 6, 23, 21],
  [1, 32, 128, 128, 4096, 4096],
  [2, 1, 16, 0, 16, 16],
];
const rope: OpCase[] = ROPES.flatMap(([rows, heads, dim, rotary, xs, ys]) =>
  [0, 1].flatMap((interleaved) =>
    [0, 1].map((inverse) => ({
      name: `rope ${rows} rows, ${heads}x${dim}, ${rotary} rotary${interleaved ? ", interleaved" : ""}${inverse ? ", back" : ""}`,
      op: "rope",
      tensors: [
        act(rows * xs),
        ids(50, rows),
        f32(50 * (rotary / 2) || 1),
        f32(50 * (rotary / 2) || 1),
        out(rows * ys),
      ],
      ints: [rows, heads, dim, rotary, interleaved, inverse, xs, ys, 50],
      floats: [],
    })),
  ),
);

/** rows, cols, strides */
const PARTS: [number, number, number, number, number][] = [
  [37, 1536, 3072, 3072, 1536],
  [5, 33, 33, 33, 33],
  [3, 100, 204, 101, 100],
  [1, 8, 0, 0, 0],
  [9, 64, 64, 64, 64],
];
const swiglu: OpCase[] = PARTS.flatMap(([rows, cols, a, b, c]): OpCase[] => {
  const size = (stride: number) => (rows - 1) * stride + cols;
  return [
    {
      name: `swiglu ${rows}x${cols} strides ${a} ${b} ${c}`,
      op: "swiglu",
      tensors: [act(size(a)), act(size(b)), out(size(c))],
      ints: [rows, cols, a, b, c],
      floats: [],
    },
    ...[null, out(size(c))].map(
      (y): OpCase => ({
        name: `swiglu_backward ${rows}x${cols} strides ${a} ${b} ${c}${y ? ", y again" : ""}`,
        op: "swigluBackward",
        tensors: [act(size(a)), act(size(b)), act(size(c)), out(size(a)), out(size(b)), y],
        ints: [rows, cols, a, b, c, a, b],
        floats: [],
      }),
    ),
  ];
});

export const cases: OpCase[] = [...rope, ...swiglu];
