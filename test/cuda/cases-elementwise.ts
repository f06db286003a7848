import type { OpCase } from "./case.js";
import { act, f32, f32InOut, inOut, out, positive } from "./specs.js";

const KINDS = [
  "affine",
  "abs",
  "exp",
  "log",
  "sqrt",
  "rsqrt",
  "reciprocal",
  "tanh",
  "sigmoid",
  "silu",
  "gelu_erf",
  "gelu_tanh",
].concat(["relu", "pow", "clamp", "sin", "cos", "log_sigmoid", "quick_gelu"]);
const ABOVE_ZERO = new Set(["log", "sqrt", "rsqrt", "reciprocal", "pow"]);

const unary: OpCase[] = KINDS.flatMap((name, kind) => {
  const x = ABOVE_ZERO.has(name) ? positive : act;
  const floats = name === "clamp" ? [-0.5, 0.75] : name === "pow" ? [1.7, 0] : [1.25, -0.5];
  return [1003, 4096].flatMap((n): OpCase[] => [
    { name: `unary ${name} ${n}`, op: "unary", tensors: [x(n), out(n)], ints: [kind, n], floats },
    {
      name: `unary_backward ${name} ${n}`,
      op: "unaryBackward",
      tensors: [x(n), act(n), out(n), null],
      ints: [kind, n],
      floats,
    },
    ...(name.includes("gelu")
      ? [
          {
            name: `unary_backward ${name} ${n}, y again`,
            op: "unaryBackward",
            tensors: [x(n), act(n), out(n), out(n)],
            ints: [kind, n],
            floats,
          },
        ]
      : []),
  ]);
});
for (const e of [-1, 0, 1, 2, 3])
  unary.push({ name: `unary pow ${e}`, op: "unary", tensors: [positive(70), out(70)], ints: [13, 70], floats: [e, 0] });
unary.push(
  { name: "unary to float32", op: "unary", tensors: [act(777), f32InOut(777)], ints: [9, 777], floats: [0, 0] },
  {
    name: "unary_backward of mixed dtypes",
    op: "unaryBackward",
    tensors: [act(777), f32(777), out(777), null],
    ints: [9, 777],
    floats: [0, 0],
  },
  {
    name: "unary_backward of mixed dtypes, y again",
    op: "unaryBackward",
    tensors: [act(777), f32(777), out(777), f32InOut(777)],
    ints: [10, 777],
    floats: [0, 0],
  },
);

const BINARY = ["add", "sub", "mul", "div", "max", "min", "pow", "equal", "less"];
const binary: OpCase[] = BINARY.map((name, kind) => ({
  name: `binary ${name}`,
  op: "binary",
  tensors: [positive(1003), positive(1003), out(1003)],
  ints: [kind, 1, 1, 1, 1003, 0, 0, 0, 1, 0, 0, 0, 1],
  floats: [],
}));
/** dims, strides of a, strides of b */
const BROADCASTS: [string, number[], number[], number[]][] = [
  ["a row", [1, 1, 37, 64], [0, 0, 64, 1], [0, 0, 0, 1]],
  ["a column", [1, 1, 37, 64], [0, 0, 64, 1], [0, 0, 1, 0]],
  ["a scalar", [1, 1, 37, 65], [0, 0, 65, 1], [0, 0, 0, 0]],
  ["an odd row", [1, 5, 7, 33], [0, 231, 33, 1], [0, 33, 0, 1]],
  ["both", [2, 3, 5, 16], [0, 80, 16, 1], [48, 16, 0, 1]],
  ["a transpose", [1, 1, 24, 40], [0, 0, 1, 24], [0, 0, 40, 1]],
  ["a part of rows", [1, 1, 9, 8], [0, 0, 24, 1], [0, 0, 8, 1]],
];
const reach = (d: number[], s: number[]) => 1 + d.reduce((sum, size, j) => sum + (size - 1) * s[j]!, 0);
for (const [name, d, a, b] of BROADCASTS)
  for (const kind of [0, 3])
    binary.push({
      name: `binary ${BINARY[kind]} with ${name}`,
      op: "binary",
      tensors: [positive(reach(d, a)), positive(reach(d, b)), out(...d)],
      ints: [kind, ...d, ...a, ...b],
      floats: [],
    });
binary.push({
  name: "binary of mixed dtypes",
  op: "binary",
  tensors: [act(6, 50), f32(50), out(6, 50)],
  ints: [2, 1, 1, 6, 50, 0, 0, 50, 1, 0, 0, 0, 1],
  floats: [],
});

const rest: OpCase[] = [1, 8, 1003, 4096].flatMap((n): OpCase[] => [
  {
    name: `where ${n}`,
    op: "where",
    tensors: [{ ...act(n), fill: "uniform" }, act(n), act(n), out(n)],
    ints: [n],
    floats: [],
  },
  { name: `axpy ${n}`, op: "axpy", tensors: [act(n), inOut(n)], ints: [n], floats: [-0.3] },
  { name: `axpy into float32 ${n}`, op: "axpy", tensors: [act(n), f32InOut(n)], ints: [n], floats: [0.7] },
]);
const zeros = Array.from({ length: 100 }, (_, i) => (i % 3 === 0 ? 0 : i % 3 === 1 ? 1 : -1));
rest.push({
  name: "where, half of it",
  op: "where",
  tensors: [{ ...act(100), values: zeros }, act(100), act(100), out(100)],
  ints: [100],
  floats: [],
});

export const cases: OpCase[] = [...unary, ...binary, ...rest];
