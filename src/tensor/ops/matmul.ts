import { ShapeError, StateError } from "../../errors.js";
import * as calls from "../calls.js";
import { COMPUTE_CODE, type Compute, computeOf } from "../dtype.js";
import { inputGradient, leafGradient } from "../gradient.js";
import { whenRead } from "../lifetime.js";
import { record } from "../record.js";
import { sameShape, shapeMismatch, shapeText, sizeOf } from "../shape.js";
import { activationLike, emptyLike, requireOneDevice, type Tensor, view } from "../tensor.js";
import { widened } from "./layout.js";
import { reduce } from "./reduce.js";

/**
 * y (m, n) = alpha op(a) op(b) + beta y + bias: the plain call under every product here. Matrices are contiguous, or rows of a and y stand `strideA` and
 * `strideY` elements apart. a and b may be 16-bit; by default the product is computed in bfloat16 where b is.
 */
export function gemm(
  a: Tensor,
  b: Tensor,
  y: Tensor,
  m: number,
  n: number,
  k: number,
  options: {
    transA?: boolean;
    transB?: boolean;
    alpha?: number;
    beta?: number;
    bias?: Tensor | undefined;
    compute?: Compute | undefined;
    strideA?: number | undefined;
    strideY?: number | undefined;
  } = {},
): void {
  const { transA = false, transB = false, alpha = 1, beta = 0, bias, compute = computeOf(b.dtype) } = options;
  const { strideA = transA ? m : k, strideY = n } = options;
  calls.gemm(
    a.handle,
    b.handle,
    bias?.handle ?? 0,
    y.handle,
    m,
    n,
    k,
    transA ? 1 : 0,
    transB ? 1 : 0,
    strideA,
    transB ? k : n,
    strideY,
    COMPUTE_CODE[compute],
    alpha,
    beta,
  );
}

/** x Wᵀ + bias: x (…, in), weight (out, in), bias (out) → (…, out). */
export function linear(given: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const x = widened(given);
  const inputs = x.dim(-1);
  const outputs = weight.shape[0] ?? 0;
  if (weight.rank !== 2 || weight.shape[1] !== inputs)
    shapeMismatch("linear", "x (…, in) and weight (out, in)", x.shape, weight.shape);
  if (bias && bias.size !== outputs) shapeMismatch("linear", `a bias of ${outputs}`, bias.shape);
  requireOneDevice("linear", x, weight, bias);
  const rows = x.size / inputs;
  const shape = [...x.shape.slice(0, -1), outputs];
  const y = whenRead(x, shape, () => {
    const out = activationLike(x, shape);
    gemm(x, weight, out, rows, outputs, inputs, { transB: true, bias });
    return out;
  });
  const back = (dy: Tensor): (Tensor | undefined)[] => {
    const dx = x.requiresGrad ? inputGradient(x) : undefined;
    if (dx) gemm(dy, weight, dx.grad, rows, inputs, outputs, { beta: dx.beta });
    return [
      dx?.returned,
      weight.requiresGrad ? weightGradient(weight, dy, x, rows, outputs, inputs) : undefined,
      biasGradient(bias, dy, rows, outputs),
    ];
  };
  record("linear", [x, weight, bias], [y], back, [], [weight, weight.requiresGrad ? x : undefined]);
  return y;
}

/** The gradient of a bias (out), float32, where it needs one: dy summed over the rows. */
export function biasGradient(bias: Tensor | undefined, dy: Tensor, rows: number, outputs: number): Tensor | undefined {
  return bias?.requiresGrad ? reduce("sum", view(dy, [rows, outputs]), 0, false, "float32") : undefined;
}

/** dW (out, in) = scale · dyᵀ x, added to a leaf's gradient in place, returned otherwise. */
export function weightGradient(
  weight: Tensor,
  dy: Tensor,
  x: Tensor,
  rows: number,
  outputs: number,
  inputs: number,
  scale = 1,
): Tensor | undefined {
  requireFloat32(weight);
  const leaf = leafGradient(weight);
  const dw = leaf?.grad ?? emptyLike(weight);
  gemm(dy, x, dw, outputs, inputs, rows, { transA: true, alpha: scale, beta: leaf?.beta ?? 0 });
  return leaf ? undefined : dw;
}

/** 16-bit weights have no room for an optimizer's small steps. @throws StateError naming the remedies. */
export function requireFloat32(weight: Tensor): void {
  if (weight.dtype === "float32") return;
  throw new StateError(
    `A ${weight.dtype} weight ${shapeText(weight.shape)} cannot be trained: freeze it and train an adapter (addLora), or load the model with dtype: "float32".`,
  );
}

/** Matrix product of (…, m, k) by (k, n) or by (…, k, n) with equal leading axes. */
export function matmul(first: Tensor, second: Tensor): Tensor {
  requireOneDevice("matmul", first, second);
  const a = widened(first);
  const b = second.dtype === "int32" || second.dtype === "uint8" ? widened(second) : second;
  if (a.rank < 2 || b.rank < 2)
    throw new ShapeError(`matmul: expected two tensors of rank 2 or more, received ranks ${a.rank} and ${b.rank}.`);
  const k = a.dim(-1);
  const n = b.dim(-1);
  if (b.dim(-2) !== k) shapeMismatch("matmul", "(…, m, k) and (…, k, n)", a.shape, b.shape);
  const shape = [...a.shape.slice(0, -1), n];
  const y = activationLike(a, shape);
  if (b.rank === 2) {
    const m = a.size / k;
    gemm(a, b, y, m, n, k);
    record("matmul", [a, b], [y], (dy) => {
      const da = a.requiresGrad ? activationLike(a) : undefined;
      if (da) gemm(dy, b, da, m, k, n, { transB: true });
      const db = b.requiresGrad ? gradientOf(b) : undefined;
      if (db) gemm(a, dy, db, k, n, m, { transA: true });
      return [da, db];
    });
    return y;
  }
  if (!sameShape(a.shape.slice(0, -2), b.shape.slice(0, -2)))
    shapeMismatch("matmul", "equal leading axes", a.shape, b.shape);
  const batch = sizeOf(a.shape.slice(0, -2));
  const m = a.dim(-2);
  batched(a, b, y, batch, m, n, k, false, false);
  record("matmul", [a, b], [y], (dy) => {
    const da = a.requiresGrad ? activationLike(a) : undefined;
    if (da) batched(dy, b, da, batch, m, k, n, false, true);
    const db = b.requiresGrad ? gradientOf(b) : undefined;
    if (db) batched(a, dy, db, batch, k, n, m, true, false);
    return [da, db];
  });
  return y;
}

/** Room for the gradient of a product's second operand: float32 for a leaf, whose gradient is added up. */
function gradientOf(b: Tensor): Tensor {
  return b.leaf ? emptyLike(b, b.shape, "float32") : activationLike(b);
}

function batched(
  a: Tensor,
  b: Tensor,
  y: Tensor,
  batch: number,
  m: number,
  n: number,
  k: number,
  transA: boolean,
  transB: boolean,
): void {
  calls.gemmBatched(
    a.handle,
    b.handle,
    y.handle,
    batch,
    m,
    n,
    k,
    transA ? 1 : 0,
    transB ? 1 : 0,
    transA ? m : k,
    transB ? k : n,
    n,
    m * k,
    k * n,
    m * n,
    1,
    COMPUTE_CODE[computeOf(b.dtype)],
    1,
    0,
  );
}
