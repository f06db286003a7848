import type { OpCase } from "./case.js";
import { act, exact, f32, f32InOut, ids, ints, out } from "./specs.js";

/** rows, dim, vocab */
const SHAPES: [number, number, number][] = [
  [37, 576, 1000],
  [5, 33, 7],
  [3000, 64, 50],
  [3, 64, 128256],
  [1, 4096, 100],
  [200, 16, 2],
];
export const cases: OpCase[] = SHAPES.flatMap(([rows, dim, vocab]): OpCase[] => [
  {
    name: `embedding ${rows} of ${vocab}x${dim}`,
    op: "embedding",
    tensors: [act(vocab, dim), ids(vocab, rows), exact(out(rows, dim))],
    ints: [rows, dim, vocab],
    floats: [],
  },
  {
    name: `embedding ${rows} of ${vocab}x${dim}, float32 table`,
    op: "embedding",
    tensors: [f32(vocab, dim), ids(vocab, rows), out(rows, dim)],
    ints: [rows, dim, vocab],
    floats: [],
  },
  {
    name: `embedding_backward ${rows} of ${vocab}x${dim}`,
    op: "embeddingBackward",
    tensors: [act(rows, dim), ids(vocab, rows), f32InOut(vocab, dim)],
    ints: [rows, dim, vocab],
    floats: [],
    tolerance: { bfloat16: 1e-5, float16: 1e-5 },
  },
]);
// One id in most rows, as padding is: its rows reach over many windows.
const padded = Array.from({ length: 1500 }, (_, i) => (i % 7 === 0 ? i % 300 : 299));
cases.push({
  name: "embedding_backward, mostly one id",
  op: "embeddingBackward",
  tensors: [act(1500, 40), ints(...padded), f32InOut(300, 40)],
  ints: [1500, 40, 300],
  floats: [],
  tolerance: { bfloat16: 1e-5, float16: 1e-5 },
});
