import type { OpCase, TensorSpec } from "./case.js";
import { f32, f32InOut } from "./specs.js";

const many = Array.from({ length: 130 }, (_, i) => i * 7 + 1);
const LISTS: [string, number[]][] = [
  ["three", [1003, 4096 * 2 + 5, 1]],
  ["130 tensors", many],
];
const norm = (value: number): TensorSpec => ({ shape: [1], dtype: "float32", values: [value] });
const moment = (n: number): TensorSpec => ({ ...f32InOut(n), fill: "positive" });

export const cases: OpCase[] = LISTS.flatMap(([name, sizes]): OpCase[] => {
  const param = sizes.map((n) => f32InOut(n));
  const grad = sizes.map((n) => f32(n));
  const m = sizes.map((n) => f32InOut(n));
  const v = sizes.map(moment);
  const adamw = { op: "adamw" as const, floats: [1e-3, 0.9, 0.999, 1e-8, 0.01, 1], dtypes: ["float32"] as "float32"[] };
  const sgd = { op: "sgd" as const, ints: [1], floats: [0.1, 0.9, 0.01, 1], dtypes: ["float32"] as "float32"[] };
  return [
    { name: `adamw ${name}, clipped`, tensors: [param, grad, m, v, norm(400)], ints: [3], ...adamw },
    { name: `adamw ${name}, not clipped`, tensors: [param, grad, m, v, norm(0.01)], ints: [1000], ...adamw },
    { name: `adamw ${name}, no norm`, tensors: [param, grad, m, v, null], ints: [1], ...adamw },
    {
      name: `adamw ${name}, skipped`,
      tensors: [param, grad, m, v, norm(Number.POSITIVE_INFINITY)],
      ints: [2],
      ...adamw,
    },
    { name: `sgd ${name}`, tensors: [param, grad, [], norm(400)], ...sgd },
    { name: `sgd ${name}, momentum`, tensors: [param, grad, m, null], ...sgd },
    { name: `sgd ${name}, skipped`, tensors: [param, grad, m, norm(Number.NaN)], ...sgd },
  ];
});
