import * as calls from "../calls.js";
import type { DType } from "../dtype.js";
import { record } from "../record.js";
import { broadcastShape, broadcastStrides, dims4, sameShape, shapeMismatch } from "../shape.js";
import { activationLike, emptyLike, requireOneDevice, type Tensor } from "../tensor.js";
import { widened } from "./layout.js";

/** Codes of `unary` in native/ops.def. */
const UNARY = {
  affine: 0,
  abs: 1,
  exp: 2,
  log: 3,
  sqrt: 4,
  rsqrt: 5,
  reciprocal: 6,
  tanh: 7,
  sigmoid: 8,
  silu: 9,
  gelu: 10,
  gelu_tanh: 11,
  relu: 12,
  pow: 13,
  clamp: 14,
  sin: 15,
  cos: 16,
  log_sigmoid: 17,
  quick_gelu: 18,
} as const;
export type UnaryKind = keyof typeof UNARY;

/** Its number in native/ops.def. */
export function unaryCode(kind: UnaryKind): number {
  return UNARY[kind];
}

/** Codes of `binary` in native/ops.def. */
const BINARY = { add: 0, sub: 1, mul: 2, div: 3, max: 4, min: 5, pow: 6, equal: 7, less: 8 } as const;
export type BinaryKind = keyof typeof BINARY;

/** y = f(x) element by element; alpha and beta are the parameters of affine, pow and clamp. */
export function unary(kind: UnaryKind, given: Tensor, alpha = 0, beta = 0): Tensor {
  const x = widened(given);
  const y = activationLike(x);
  const code = UNARY[kind];
  calls.unary(x.handle, y.handle, code, x.size, alpha, beta);
  record(
    kind,
    [x],
    [y],
    (dy) => {
      const dx = activationLike(x);
      calls.unaryBackward(x.handle, dy.handle, dx.handle, 0, code, x.size, alpha, beta);
      return [dx];
    },
    [],
    [x],
  );
  return y;
}

/** y = scale * x + shift. */
export function affine(given: Tensor, scale: number, shift: number): Tensor {
  const x = widened(given);
  const y = activationLike(x);
  calls.unary(x.handle, y.handle, UNARY.affine, x.size, scale, shift);
  record("affine", [x], [y], (dy) => [affine(dy, scale, 0)], [], []);
  return y;
}

/** y = a ∘ b with NumPy's broadcasting, at most 4 axes; of different dtypes the result is float32. */
export function binary(kind: BinaryKind, first: Tensor, second: Tensor): Tensor {
  requireOneDevice(kind, first, second);
  const a = widened(first);
  const b = widened(second);
  const shape = broadcastShape(kind, a.shape, b.shape);
  const y = emptyLike(a, shape, a.dtype === b.dtype ? a.dtype : "float32");
  const d = dims4(kind, shape);
  const as = broadcastStrides(kind, a.shape, d);
  const bs = broadcastStrides(kind, b.shape, d);
  calls.binary(a.handle, b.handle, y.handle, BINARY[kind], ...d, ...as, ...bs);
  record(
    kind,
    [a, b],
    [y],
    kind === "pow" || kind === "equal" || kind === "less"
      ? "none"
      : (dy) => [
          a.requiresGrad ? broadcastGradient(gradientOfFirst(kind, a, b, dy), a) : undefined,
          b.requiresGrad ? broadcastGradient(gradientOfSecond(kind, a, b, y, dy), b) : undefined,
        ],
    [],
    readByGradients(kind, a, b, y),
  );
  return y;
}

function readByGradients(kind: BinaryKind, a: Tensor, b: Tensor, y: Tensor): (Tensor | undefined)[] {
  if (kind === "add" || kind === "sub") return [];
  if (kind === "mul") return [a.requiresGrad ? b : undefined, b.requiresGrad ? a : undefined];
  return [a, b, y];
}

function gradientOfFirst(kind: BinaryKind, a: Tensor, b: Tensor, dy: Tensor): Tensor {
  switch (kind) {
    case "mul":
      return binary("mul", dy, b);
    case "div":
      return binary("div", dy, b);
    case "max":
      return where(binary("less", a, b), affine(dy, 0, 0), dy);
    case "min":
      return where(binary("less", b, a), affine(dy, 0, 0), dy);
    default:
      return dy;
  }
}

function gradientOfSecond(kind: BinaryKind, a: Tensor, b: Tensor, y: Tensor, dy: Tensor): Tensor {
  switch (kind) {
    case "sub":
      return affine(dy, -1, 0);
    case "mul":
      return binary("mul", dy, a);
    case "div":
      return affine(binary("div", binary("mul", dy, y), b), -1, 0);
    case "max":
      return where(binary("less", a, b), dy, affine(dy, 0, 0));
    case "min":
      return where(binary("less", b, a), dy, affine(dy, 0, 0));
    default:
      return dy;
  }
}

/** condition != 0 ? a : b, all of one shape. */
export function where(condition: Tensor, first: Tensor, second: Tensor): Tensor {
  requireOneDevice("where", condition, first, second);
  const a = widened(first);
  const b = widened(second);
  if (!sameShape(a.shape, b.shape) || !sameShape(a.shape, condition.shape)) {
    shapeMismatch("where", "three equal shapes", condition.shape, a.shape, b.shape);
  }
  const y = emptyLike(a, a.shape, a.dtype === b.dtype ? a.dtype : "float32");
  calls.where(widened(condition).handle, a.handle, b.handle, y.handle, y.size);
  record(
    "where",
    [a, b],
    [y],
    (dy) => {
      const zero = affine(dy, 0, 0);
      return [where(condition, dy, zero), where(condition, zero, dy)];
    },
    [],
    [condition],
  );
  return y;
}

/** A gradient summed to the shape of the operand that was broadcast; for a leaf in float32. */
function broadcastGradient(gradient: Tensor, operand: Tensor): Tensor {
  return sumTo(gradient, operand.shape, operand.leaf ? "float32" : gradient.dtype);
}

/** The gradient of a broadcast: x summed into `shape`. */
export function sumTo(x: Tensor, shape: readonly number[], dtype: DType = x.dtype): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const y = emptyLike(x, shape, dtype);
  const d = dims4("sumTo", x.shape);
  calls.sumTo(x.handle, y.handle, ...d, ...broadcastStrides("sumTo", shape, d), y.size);
  return y;
}

/** target += alpha * x, in place (no gradient). */
export function addScaled(target: Tensor, x: Tensor, alpha = 1): void {
  if (target.size !== x.size) shapeMismatch("addScaled", "equal sizes", target.shape, x.shape);
  requireOneDevice("addScaled", target, x);
  const added = widened(x);
  calls.axpy(added.handle, target.handle, x.size, alpha);
  if (added !== x) added.dispose();
}

/** target *= scale, in place (no gradient). */
export function scaleInPlace(target: Tensor, scale: number): void {
  calls.unary(target.handle, target.handle, UNARY.affine, target.size, scale, 0);
}

/** Sets every element, in place (no gradient). */
export function fill(target: Tensor, value: number): Tensor {
  calls.fill(target.handle, target.size, value);
  return target;
}
