import type { OpCase } from "./case.js";
import { act, exact, out } from "./specs.js";

// The same counters on both backends: in float32 the very same numbers.
const sizes = [1, 4, 6, 1003, 65536];
export const cases: OpCase[] = sizes.flatMap((n): OpCase[] => [
  {
    name: `dropout ${n}`,
    op: "dropout",
    tensors: [act(n), exact(out(n))],
    ints: [n, 42, 7],
    floats: [0.1],
    dtypes: ["float32"],
  },
  {
    name: `dropout ${n}`,
    op: "dropout",
    tensors: [act(n), out(n)],
    ints: [n, -5, -1],
    floats: [0.5],
    dtypes: ["bfloat16", "float16"],
  },
  {
    name: `random_uniform ${n}`,
    op: "randomUniform",
    tensors: [exact(out(n))],
    ints: [n, 3, 11],
    floats: [0, 1],
    dtypes: ["float32"],
  },
  {
    name: `random_uniform ${n} between`,
    op: "randomUniform",
    tensors: [out(n)],
    ints: [n, 123456789, 0],
    floats: [-2, 3],
  },
  { name: `random_normal ${n}`, op: "randomNormal", tensors: [out(n)], ints: [n, 99, 5], floats: [0, 1] },
  { name: `random_normal ${n} moved`, op: "randomNormal", tensors: [out(n)], ints: [n, 1, -3], floats: [0.5, 0.02] },
]);
for (const p of [0, 1])
  cases.push({
    name: `dropout p = ${p}`,
    op: "dropout",
    tensors: [act(513), exact(out(513))],
    ints: [513, 0, 0],
    floats: [p],
  });
