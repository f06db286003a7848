import * as calls from "../calls.js";
import { leafGradient } from "../gradient.js";
import { recomputable, record } from "../record.js";
import { sameShape, shapeMismatch } from "../shape.js";
import { activationLike, emptyLike, requireOneDevice, type Tensor } from "../tensor.js";
import { fill } from "./elementwise.js";
import { inDType, widened } from "./layout.js";

/** A gradient that the native call adds to: a leaf's own, or a new one of zeros that must be returned. */
function summed(t: Tensor | undefined): { target: Tensor | undefined; result: Tensor | undefined } {
  if (!t?.requiresGrad) return { target: undefined, result: undefined };
  const leaf = leafGradient(t);
  if (leaf) {
    if (leaf.beta === 0) fill(leaf.grad, 0);
    return { target: leaf.grad, result: undefined };
  }
  const zeros = fill(emptyLike(t, t.shape, "float32"), 0);
  return { target: zeros, result: zeros };
}

/** x / sqrt(mean(x²) + eps) · weight over the last axis (Zhang and Sennrich 2019). */
export function rmsNorm(given: Tensor, weight: Tensor, eps: number): Tensor {
  const x = widened(given);
  const cols = x.dim(-1);
  if (weight.size !== cols) shapeMismatch("rmsNorm", `a weight of ${cols}`, weight.shape);
  requireOneDevice("rmsNorm", x, weight);
  const rows = x.size / cols;
  const y = activationLike(x);
  const rstd = emptyLike(x, [rows], "float32");
  calls.rmsNorm(x.handle, 0, weight.handle, y.handle, 0, rstd.handle, rows, cols, eps);
  record(
    "rmsNorm",
    [x, weight],
    [y],
    (dy) => {
      const dx = activationLike(x);
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
  const y = activationLike(x);
  const rstd = emptyLike(x, [x.size / cols], "float32");
  calls.rmsNorm(x.handle, 0, weight.handle, y.handle, 0, rstd.handle, rstd.size, cols, eps);
  rstd.dispose();
  return y;
}

/** h = x + residual and rmsNorm(h) in one pass, in the dtype of the residual: [h, norm]. The gradient reaching h joins in the same pass backward. */
export function addRmsNorm(given: Tensor, stream: Tensor, weight: Tensor, eps: number): [Tensor, Tensor] {
  const residual = widened(stream);
  const x = inDType(given, residual.dtype);
  const cols = x.dim(-1);
  if (!sameShape(x.shape, residual.shape) || weight.size !== cols)
    shapeMismatch("addRmsNorm", "equal shapes and a weight of the last axis", x.shape, residual.shape, weight.shape);
  requireOneDevice("addRmsNorm", x, residual, weight);
  const rows = x.size / cols;
  const h = activationLike(x);
  const y = activationLike(x);
  const rstd = emptyLike(x, [rows], "float32");
  calls.rmsNorm(x.handle, residual.handle, weight.handle, y.handle, h.handle, rstd.handle, rows, cols, eps);
  record(
    "addRmsNorm",
    [x, residual, weight],
    [h, y],
    (dh, dy) => {
      const dx = activationLike(x);
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
export function layerNorm(given: Tensor, weight: Tensor | undefined, bias: Tensor | undefined, eps: number): Tensor {
  const x = widened(given);
  const cols = x.dim(-1);
  requireOneDevice("layerNorm", x, weight, bias);
  const rows = x.size / cols;
  const made = (): { y: Tensor; mean: Tensor; rstd: Tensor } => {
    const y = activationLike(x);
    const mean = emptyLike(x, [rows], "float32");
    const rstd = emptyLike(x, [rows], "float32");
    const [w, b] = [weight?.handle ?? 0, bias?.handle ?? 0];
    calls.layerNorm(x.handle, w, b, y.handle, mean.handle, rstd.handle, rows, cols, eps);
    return { y, mean, rstd };
  };
  const { y, mean, rstd } = made();
  record(
    "layerNorm",
    [x, weight, bias],
    [y],
    (dy) => {
      const dx = activationLike(x);
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
  const again = (): Tensor => {
    const { y, mean, rstd } = made();
    for (const t of [mean, rstd]) t.dispose();
    return y;
  };
  recomputable(
    y,
    [x, weight, bias].filter((t) => t !== undefined),
    again,
  );
  return y;
}
