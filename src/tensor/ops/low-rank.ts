import * as calls from "../calls.js";
import { leafGradient } from "../gradient.js";
import { emptyLike, type Tensor, view } from "../tensor.js";
import { gemm, requireFloat32 } from "./matmul.js";

/** Runs `fn` with columns `at` to `at + width` of a matrix (rows, columns), as a view whose rows stay as far apart as the matrix's. */
export function columns<T>(all: Tensor, at: number, width: number, fn: (mine: Tensor) => T): T {
  const [rows, stride] = all.shape as [number, number];
  if (width === stride) return fn(all);
  const mine = view(all, [Math.max(0, (rows - 1) * stride + width)], at);
  const result = fn(mine);
  mine.dispose();
  return result;
}

/**
 * Gradients of y = s · h Bᵀ with respect to h (rows, r) and B (out, r) from dy (rows, out): dh = s · dy B is written; dB = s · dyᵀ h, from the same reading
 * of dy, is added to a leaf's gradient in place, returned otherwise, and not made where B has no gradient. h and dh are columns of wider matrices
 * (rows, ranks) where `at` says where they begin; h is not read without dB.
 */
export function lowRankGradients(
  dy: Tensor,
  h: Tensor,
  b: Tensor,
  dh: Tensor,
  scale: number,
  at = 0,
): Tensor | undefined {
  const [rows, stride] = dh.shape as [number, number];
  const [outputs, rank] = b.shape as [number, number];
  return columns(dh, at, rank, (to) => {
    if (!b.requiresGrad) {
      gemm(dy, b, to, rows, rank, outputs, { alpha: scale, strideY: stride });
      return undefined;
    }
    requireFloat32(b);
    const leaf = leafGradient(b);
    const db = leaf?.grad ?? emptyLike(b);
    const beta = leaf?.beta ?? 0;
    columns(h, at, rank, (from) =>
      calls.lowRankGradients(
        dy.handle,
        from.handle,
        b.handle,
        to.handle,
        db.handle,
        rows,
        outputs,
        rank,
        stride,
        stride,
        scale,
        beta,
      ),
    );
    return leaf ? undefined : db;
  });
}
