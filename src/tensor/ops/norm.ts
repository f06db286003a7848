import * as calls from "../calls.js";
import { leafGradient } from "../gradient.js";
import { recomputable, record } from "../record.js";
import { sameShape, shapeMismatch } from "../shape.js";
import { activationLike, emptyLike, requireOneDevice, type Tensor } from "../tensor.js";
import { fill } from "./elementwise.js";
import { inDType, widened } from "./layout.js";
import { reserveRandom } from "./random.js";

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
  requireOneDevice("layerNorm", x, weight, bias);
  const { y, mean, rstd } = layerNormed(x, weight, bias, eps);
  record(
    "layerNorm",
    [x, weight, bias],
    [y],
    (dy) => {
      const { dx, dw, db } = layerNormGradients(dy, x, weight, bias, mean, rstd);
      return [dx, dw, db];
    },
    [mean, rstd],
    [x, weight],
  );
  layerNormAgain(y, x, weight, bias, eps);
  return y;
}

/**
 * h = dropout(x) + residual and layerNorm(h) in one pass, in the dtype of the residual: [h, norm]. The gradient reaching h joins in the same pass backward, which
 * drops what goes to x by the same mask.
 * @param share probability with which an element of x is dropped; the others are divided by 1 - share.
 */
export function addLayerNorm(
  given: Tensor,
  stream: Tensor,
  weight: Tensor | undefined,
  bias: Tensor | undefined,
  eps: number,
  share = 0,
): [Tensor, Tensor] {
  const residual = widened(stream);
  const x = inDType(given, residual.dtype);
  if (!sameShape(x.shape, residual.shape)) shapeMismatch("addLayerNorm", "equal shapes", x.shape, residual.shape);
  requireOneDevice("addLayerNorm", x, residual, weight, bias);
  const drop = share > 0 ? { ...reserveRandom(x.size), share } : undefined;
  const h = activationLike(x);
  const { y, mean, rstd } = layerNormed(x, weight, bias, eps, { residual, h, drop });
  record(
    "addLayerNorm",
    [x, residual, weight, bias],
    [h, y],
    (dh, dy) => {
      const { dx, dropped, dw, db } = layerNormGradients(dy!, h, weight, bias, mean, rstd, { dh: dh!, drop });
      return [dropped ?? dx, dx, dw, db];
    },
    [mean, rstd],
    [h, weight],
  );
  layerNormAgain(y, h, weight, bias, eps);
  return [h, y];
}

/** Numbers that give a mask of dropout again. */
interface Mask {
  readonly seed: number;
  readonly offset: number;
  readonly share: number;
}

function layerNormed(
  x: Tensor,
  weight: Tensor | undefined,
  bias: Tensor | undefined,
  eps: number,
  added?: { residual: Tensor; h: Tensor; drop: Mask | undefined },
): { y: Tensor; mean: Tensor; rstd: Tensor } {
  const cols = x.dim(-1);
  const rows = x.size / cols;
  const y = activationLike(x);
  const mean = emptyLike(x, [rows], "float32");
  const rstd = emptyLike(x, [rows], "float32");
  const { residual, h, drop } = added ?? {};
  calls.layerNorm(
    x.handle, residual?.handle ?? 0, weight?.handle ?? 0, bias?.handle ?? 0, y.handle, h?.handle ?? 0, mean.handle, rstd.handle,
    rows, cols, drop?.seed ?? 0, drop?.offset ?? 0, eps, drop?.share ?? 0,
  ); // biome-ignore format: one line a group
  return { y, mean, rstd };
}

/** Says how the norm y of x is made again. */
function layerNormAgain(y: Tensor, x: Tensor, weight: Tensor | undefined, bias: Tensor | undefined, eps: number): void {
  const from = [x, weight, bias].filter((t) => t !== undefined);
  recomputable(y, from, () => {
    const { y, mean, rstd } = layerNormed(x, weight, bias, eps);
    for (const t of [mean, rstd]) t.dispose();
    return y;
  });
}

/** Gradients by that of the norm of x, and by that of x itself (`dh`); `dropped` is that of what dropout made x of. */
function layerNormGradients(
  dy: Tensor,
  x: Tensor,
  weight: Tensor | undefined,
  bias: Tensor | undefined,
  mean: Tensor,
  rstd: Tensor,
  added?: { dh: Tensor; drop: Mask | undefined },
): { dx: Tensor; dropped: Tensor | undefined; dw: Tensor | undefined; db: Tensor | undefined } {
  const { dh, drop } = added ?? {};
  const dx = activationLike(x);
  const dropped = drop && activationLike(x);
  const [dw, db] = [summed(weight), summed(bias)];
  const cols = x.dim(-1);
  calls.layerNormBackward(
    dy.handle, x.handle, weight?.handle ?? 0, mean.handle, rstd.handle, dh?.handle ?? 0,
    dx.handle, dropped?.handle ?? 0, dw.target?.handle ?? 0, db.target?.handle ?? 0,
    x.size / cols, cols, drop?.seed ?? 0, drop?.offset ?? 0, drop?.share ?? 0,
  ); // biome-ignore format: one line a group
  return { dx, dropped, dw: dw.result, db: db.result };
}
