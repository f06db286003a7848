import type { OpCase } from "./case.js";
import { act, exact, f32InOut, inOut, out } from "./specs.js";

const fill: OpCase[] = [1, 7, 1000, 4099].map((n) => ({
  name: `fill ${n}`,
  op: "fill",
  tensors: [exact(out(n))],
  ints: [n],
  floats: [-1.5],
}));
fill.push(
  {
    name: "fill int32",
    op: "fill",
    tensors: [{ shape: [13], dtype: "int32", output: true, exact: true }],
    ints: [13],
    floats: [3],
  },
  {
    name: "fill uint8",
    op: "fill",
    tensors: [{ shape: [77], dtype: "uint8", output: true, exact: true }],
    ints: [77],
    floats: [300],
  },
);

const copy: OpCase[] = [
  {
    name: "copy to float32",
    op: "copy",
    tensors: [act(1003), { ...f32InOut(1003), exact: true }],
    ints: [1003],
    floats: [],
  },
  {
    name: "copy float32 to the dtype",
    op: "copy",
    tensors: [{ shape: [2048], dtype: "float32" }, out(2048)],
    ints: [2048],
    floats: [],
  },
  { name: "copy alike", op: "copy", tensors: [act(5), exact(out(5))], ints: [5], floats: [] },
  {
    name: "copy to int32",
    op: "copy",
    tensors: [act(333), { shape: [333], dtype: "int32", output: true, exact: true }],
    ints: [333],
    floats: [],
  },
  {
    name: "copy int32",
    op: "copy",
    tensors: [{ shape: [65], dtype: "int32", fill: "ids", limit: 250 }, exact(out(65))],
    ints: [65],
    floats: [],
  },
  {
    name: "copy to uint8",
    op: "copy",
    tensors: [
      { shape: [9], dtype: "float32", values: [-1, 0, 0.5, 1, 254.5, 255, 300, 17, 3] },
      { shape: [9], dtype: "uint8", output: true, exact: true },
    ],
    ints: [9],
    floats: [],
  },
];

/** Dims of x and y's axes: rows of packs, odd rows, transposes of every kind, merged axes. */
const PERMUTATIONS: [number[], number[]][] = [
  [
    [1, 1, 33, 65],
    [0, 1, 3, 2],
  ],
  [
    [1, 1, 128, 64],
    [0, 1, 3, 2],
  ],
  [
    [2, 7, 3, 64],
    [0, 2, 1, 3],
  ],
  [
    [2, 7, 3, 5],
    [0, 2, 1, 3],
  ],
  [
    [2, 3, 4, 37],
    [3, 1, 0, 2],
  ],
  [
    [3, 40, 2, 33],
    [2, 3, 0, 1],
  ],
  [
    [5, 4, 3, 2],
    [3, 2, 1, 0],
  ],
  [
    [2, 3, 4, 5],
    [0, 1, 2, 3],
  ],
  [
    [1, 6, 1, 50],
    [3, 0, 1, 2],
  ],
];
const permute: OpCase[] = PERMUTATIONS.flatMap(([d, p]) => [
  {
    name: `permute ${d.join("x")} by ${p.join("")}`,
    op: "permute",
    tensors: [act(...d), exact(out(...d))],
    ints: [...d, ...p],
    floats: [],
    dtypes: ["float32"],
  },
]);

const copy2d: OpCase[] = (
  [
    // rows cols x_offset x_stride y_offset y_stride
    [7, 64, 0, 64, 0, 128],
    [7, 33, 5, 70, 3, 41],
    [16, 96, 16, 128, 8, 96],
    [1, 5, 2, 0, 1, 0],
    [4, 24, 0, 0, 0, 24],
  ] as const
).flatMap(([rows, cols, xo, xs, yo, ys]): OpCase[] => {
  const x = act(xo + Math.max(1, rows - 1) * xs + cols);
  const y = yo + Math.max(1, rows - 1) * ys + cols;
  return [0, 1].map((add) => ({
    name: `copy_2d ${rows}x${cols} strides ${xs}, ${ys}${add ? ", adding" : ""}`,
    op: "copy2d",
    tensors: [x, inOut(y)],
    ints: [rows, cols, xo, xs, yo, ys, add],
    floats: [],
  }));
});
copy2d.push({
  name: "copy_2d of int32",
  op: "copy2d",
  tensors: [
    { shape: [60], dtype: "int32", fill: "ids", limit: 1000 },
    { shape: [60], dtype: "int32", fill: "zero", output: true, exact: true },
  ],
  ints: [5, 7, 1, 11, 2, 9, 0],
  floats: [],
});

export const cases: OpCase[] = [...fill, ...copy, ...permute, ...copy2d];
