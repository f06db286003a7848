import * as calls from "../calls.js";
import { leafGradient } from "../gradient.js";
import { recomputable, record } from "../record.js";
import { sameShape, shapeMismatch } from "../shape.js";
import { empty, type Tensor } from "../tensor.js";
import { fill } from "./elementwise.js";

/** A gradient that the native call adds to: a leaf's own, or a new one of zeros that must be returned. */
function summed(t: Tensor | undefined): { target: Tensor | undefined; result: Tensor | undefined } {
  if (!t?.requiresGrad) return { target: undefined, result: undefined };
  const leaf = leafGradient(t);
  if (leaf) {
    if (leaf.beta === 0) fill(leaf.grad, 0);
    return { target: leaf.grad, result: undefined };
  }
  const zeros = fill(empty(t.shape), 0);
  return { target: zeros, result: zeros };
}

/** x / sqrt(mean(x²) + eps) · weight over the last axis (Zhang and Sennrich 2019). */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
  const cols = x.dim(-1);
  if (weight.size !== cols) shapeMismatch("rmsNorm", `a weight of ${cols}`, weight.shape);
  const rows = x.size / cols;
  const y = empty(x.shape);
  const rstd = empty([rows]);
  calls.rmsNorm(x.handle, 0, weight.handle, y.handle, 0, rstd.handle, rows, cols, eps);
  record(
    "rmsNorm",
    [x, weight],
    [y],
    (dy) => {
      const dx = empty(x.shape);
      const dw = summed(weight);
      calls.rmsNormBackward(
        dy.handle,
        x.handle,
        weight.handle,
        rstd.handle,
        0,
        dx.handle,
        dw.target?.handle ?? 0,
        rows,
        cols,
      );
      return [dx, dw.result];
    },
    [rstd],
    [x, weight],
  );
  recomputable(y, [x, weight], () => normAgain(x, weight, eps));
  return y;
}

/** The norm of x once more, without recording: what `rmsNorm` and `addRmsNorm` gave, bit for bit. */
function normAgain(x: Tensor, weight: Tensor, eps: number): Tensor {
  const cols = x.dim(-1);
  const y = empty(x.shape);
  const rstd = empty([x.size / cols]);
  calls.rmsNorm(x.handle, 0, weight.handle, y.handle, 0, rstd.handle, rstd.size, cols, eps);
  rstd.dispose();
  return y;
}

/** h = x + residual and rmsNorm(h) in one pass: [h, norm]. The gradient reaching h joins in the same pass backward. */
export function addRmsNorm(x: Tensor, residual: Tensor, weight: Tensor, eps: number): [Tensor, Tensor] {
  const cols = x.dim(-1);
  if (!sameShape(x.shape, residual.shape) || weight.size !== cols)
    shapeMismatch("addRmsNorm", "equal shapes and a weight of the last axis", x.shape, residual.shape, weight.shape);
  const rows = x.size / cols;
  const h = empty(x.shape);
  const y = empty(x.shape);
  const rstd = empty([rows]);
  calls.rmsNorm(x.handle, residual.handle, weight.handle, y.handle, h.handle, rstd.handle, rows, cols, eps);
  record(
    "addRmsNorm",
    [x, residual, weight],
    [h, y],
    (dh, dy) => {
      const dx = empty(x.shape);
      const dw = summed(weight);
      calls.rmsNormBackward(
        dy!.handle,
        h.handle,
        weight.handle,
        rstd.handle,
        dh!.handle,
        dx.handle,
        dw.target?.handle ?? 0,
        rows,
        cols,
      );
      return [dx, dx, dw.result];
    },
    [rstd],
    [h, weight],
  );
  recomputable(y, [h, weight], () => normAgain(h, weight, eps));
  return [h, y];
}

/** (x - mean) / sqrt(var + eps) · weight + bias over the last axis (Ba et al. 2016). */
export function layerNorm(x: Tensor, weight: Tensor | undefined, bias: Tensor | undefined, eps: number): Tensor {
  const cols = x.dim(-1);
  const rows = x.size / cols;
  const y = empty(x.shape);
  const mean = empty([rows]);
  const rstd = empty([rows]);
  calls.layerNorm(
    x.handle,
    weight?.handle ?? 0,
    bias?.handle ?? 0,
    y.handle,
    mean.handle,
    rstd.handle,
    rows,
    cols,
    eps,
  );
  record(
    "layerNorm",
    [x, weight, bias],
    [y],
    (dy) => {
      const dx = empty(x.shape);
      const dw = summed(weight);
      const db = summed(bias);
      calls.layerNormBackward(
        dy.handle,
        x.handle,
        weight?.handle ?? 0,
        mean.handle,
        rstd.handle,
        dx.handle,
        dw.target?.handle ?? 0,
        db.target?.handle ?? 0,
        rows,
        cols,
      );
      return [dx, dw.result, db.result];
    },
    [mean, rstd],
    [x, weight],
  );
  return y;
}
