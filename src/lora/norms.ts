import * as calls from "../tensor/calls.js";
import { type FrozenWeight, weightProduct } from "../tensor/ops/frozen.js";
import { permute } from "../tensor/ops/layout.js";
import { gemm } from "../tensor/ops/matmul.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope, scope } from "../tensor/scope.js";
import { empty, Tensor } from "../tensor/tensor.js";

/** ‖w‖² of each row of a weight (out, in), float32 (out). A quantised weight is restored for it. */
export function rowSquares(w: Tensor | FrozenWeight): Tensor {
  return scope(() =>
    noGrad(() => {
      const full = w instanceof Tensor ? w.to("float32") : w.restore();
      return full.square().sum(1);
    }),
  );
}

/** ‖w‖² of each column of a table (vocab, dim), float32 (dim). */
export function columnSquares(w: Tensor): Tensor {
  return scope(() => noGrad(() => w.to("float32").square().sum(0)));
}

/**
 * Lengths of the rows of W + s · B A (out) without making that matrix: ‖w‖² + 2 s (W Aᵀ) ∘ B + s² (B A Aᵀ) ∘ B, summed over r. No gradient.
 * @param squares ‖w‖² of the rows.
 * @param w weight (out, in).
 */
export function adaptedNorms(squares: Tensor, w: Tensor | FrozenWeight, a: Tensor, b: Tensor, scale: number): Tensor {
  return scope(() =>
    noGrad(() => {
      const [rank, inputs] = a.shape as [number, number];
      const outputs = b.shape[0]!;
      const projected = empty([rank, outputs], "float32", a.device); // A Wᵀ
      weightProduct(a, w, projected, rank, true, { compute: "float32", keepInputs: true });
      return lengths(squares, permute(projected, [1, 0]), gram(a, rank, inputs), b, scale);
    }),
  );
}

/** The same for the columns of a table (vocab, dim) plus s · (B A)ᵀ with A (r, vocab), B (dim, r): (dim). */
export function adaptedColumnNorms(squares: Tensor, table: Tensor, a: Tensor, b: Tensor, scale: number): Tensor {
  return scope(() =>
    noGrad(() => {
      const [rank, vocab] = a.shape as [number, number];
      const dim = b.shape[0]!;
      const projected = empty([rank, dim], "float32", a.device); // A W
      gemm(a, table, projected, rank, dim, vocab, { compute: "float32" });
      return lengths(squares, permute(projected, [1, 0]), gram(a, rank, vocab), b, scale);
    }),
  );
}

function gram(a: Tensor, rank: number, inputs: number): Tensor {
  const g = empty([rank, rank], "float32", a.device);
  gemm(a, a, g, rank, rank, inputs, { transB: true });
  return g;
}

function lengths(squares: Tensor, projected: Tensor, g: Tensor, b: Tensor, scale: number): Tensor {
  const [outputs, rank] = b.shape as [number, number];
  const sum = empty([outputs, rank], "float32", b.device); // 2 s W Aᵀ + s² B A Aᵀ
  calls.unary(projected.handle, sum.handle, 0, sum.size, 2 * scale, 0);
  gemm(b, g, sum, outputs, rank, rank, { alpha: scale * scale, beta: 1 });
  return squares.add(sum.mul(b).sum(1)).relu().sqrt();
}

/** Overwrites a tensor with what `make` gives. */
export function copyInto(into: Tensor, make: () => Tensor): void {
  const made = outsideScope(() => noGrad(make));
  calls.copy(made.handle, into.handle, into.size);
  made.dispose();
}
