import type { OpCase, TensorSpec } from "./case.js";

// adamw_8bit: moments with any codes, blocks that end short, addresses that do not allow wide accesses, lists longer than one launch.
const param = (n: number): TensorSpec => ({ shape: [n], fill: "normal", output: true });
const grad = (n: number): TensorSpec => ({ shape: [n] });
// A code on a border may fall to the other side where the last bit differs: parameters and scales are compared, codes through them in the next step.
const codes = (n: number): TensorSpec => ({ shape: [n], dtype: "uint8", output: true, skip: true });
const scale = (n: number): TensorSpec => ({ shape: [Math.ceil(n / 256)], fill: "positive", output: true });
const norm = (squared: number): TensorSpec => ({ shape: [1], values: [squared] });

function step(name: string, sizes: number[], squared: number | undefined, ints: [number], floats?: number[]): OpCase {
  const list = (f: (n: number) => TensorSpec): TensorSpec[] => sizes.map(f);
  return {
    name: `adamw_8bit ${name}`,
    op: "adamw8bit",
    tensors: [
      list(param),
      list(grad),
      list(codes),
      list(codes),
      list(scale),
      list(scale),
      squared === undefined ? null : norm(squared),
    ],
    ints,
    floats: floats ?? [1e-3, 0.9, 0.999, 1e-8, 0.01, 1],
    dtypes: ["float32"],
  };
}

/** Codes of a step whose numbers stand far from the borders: the values of the maps themselves, which the step leaves as they are. */
const still: OpCase = {
  name: "adamw_8bit codes stay when nothing moves",
  op: "adamw8bit",
  tensors: [
    [{ shape: [1000], fill: "normal", output: true }],
    [{ shape: [1000], fill: "zero" }],
    [
      {
        shape: [1000],
        dtype: "uint8",
        values: Array.from({ length: 1000 }, (_, i) => i % 256),
        output: true,
        exact: true,
      },
    ],
    [
      {
        shape: [1000],
        dtype: "uint8",
        values: Array.from({ length: 1000 }, (_, i) => 255 - (i % 256)),
        output: true,
        exact: true,
      },
    ],
    [{ shape: [4], fill: "positive", output: true }],
    [{ shape: [4], fill: "positive", output: true }],
    null,
  ],
  ints: [5],
  floats: [1e-3, 0.5, 0.5, 1e-8, 0, 0],
  dtypes: ["float32"],
};

export const cases: OpCase[] = [
  step("one block", [256], undefined, [1]),
  step("short blocks", [1, 7, 255, 257, 4095, 5000], 400, [3]),
  step("wide", [1 << 20], 0.01, [100], [2e-4, 0.8, 0.95, 1e-6, 0.1, 1]),
  step(
    "many tensors",
    Array.from({ length: 130 }, (_, i) => 300 + 64 * i),
    400,
    [2],
  ),
  step("skipped", [3000], Number.NaN, [2]),
  still,
];
