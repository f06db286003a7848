import { ShapeError } from "../../errors.js";
import type { Compute } from "../dtype.js";
import { record } from "../record.js";
import { shapeMismatch, shapeText } from "../shape.js";
import { empty, Tensor } from "../tensor.js";
import { gemm } from "./matmul.js";

/** What a product takes beside its operands. */
export interface ProductOptions {
  alpha?: number;
  beta?: number;
  bias?: Tensor | undefined;
  compute?: Compute | undefined;
}

/** A frozen weight (out, in) in a form of its own that knows how to be multiplied with. */
export interface FrozenWeight extends Disposable {
  readonly shape: readonly number[];
  /** Elements of the matrix. */
  readonly size: number;
  /** Bytes it takes. */
  readonly bytes: number;
  /** y = alpha · a op(W) + beta y + bias; `transposed`: a (m, in) by Wᵀ, else a (m, out) by W. */
  product(a: Tensor, y: Tensor, m: number, transposed: boolean, options?: ProductOptions): void;
  /** The matrix as a new float32 tensor. */
  restore(): Tensor;
  dispose(): void;
}

/** y = alpha · a op(W) + beta y + bias for a dense or a quantised weight (out, in); `transposed`: a (m, in) by Wᵀ, else a (m, out) by W. */
export function weightProduct(
  a: Tensor,
  w: Tensor | FrozenWeight,
  y: Tensor,
  m: number,
  transposed: boolean,
  options: ProductOptions = {},
): void {
  if (!(w instanceof Tensor)) {
    w.product(a, y, m, transposed, options);
    return;
  }
  const [rows, cols] = w.shape as [number, number];
  if (transposed) gemm(a, w, y, m, rows, cols, { transB: true, ...options });
  else gemm(a, w, y, m, cols, rows, options);
}

/** x Wᵀ + bias over a quantised weight; the weight is frozen, x has a gradient. */
export function linearFrozen(x: Tensor, w: FrozenWeight, bias?: Tensor, compute?: Compute): Tensor {
  const [outputs, inputs] = w.shape as [number, number];
  if (x.dim(-1) !== inputs) shapeMismatch("linear over a quantised weight", `x (…, ${inputs})`, x.shape);
  if (bias && bias.size !== outputs) {
    throw new ShapeError(
      `linear over a quantised weight: expected a bias of ${outputs}, received ${shapeText(bias.shape)}.`,
    );
  }
  const rows = x.size / inputs;
  const y = empty([...x.shape.slice(0, -1), outputs]);
  weightProduct(x, w, y, rows, true, { bias, compute });
  const back = (dy: Tensor): [Tensor] => {
    const dx = empty(x.shape);
    weightProduct(dy, w, dx, rows, false, { compute });
    return [dx];
  };
  record("linearFrozen", [x], [y], back, [], []);
  return y;
}
