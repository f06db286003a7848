import * as calls from "../calls.js";
import { leafGradient } from "../gradient.js";
import { emptyLike, type Tensor } from "../tensor.js";
import { requireFloat32 } from "./matmul.js";

/**
 * Gradients of y = s · h Bᵀ with respect to h (rows, r) and B (out, r) from one reading of dy (rows, out): dh = s · dy B is written; dB = s · dyᵀ h is added to a
 * leaf's gradient in place, returned otherwise. Rows of h and dh stand `stride` elements apart.
 */
export function lowRankGradients(
  dy: Tensor,
  h: Tensor,
  b: Tensor,
  dh: Tensor,
  rows: number,
  scale: number,
  stride: number = b.dim(1),
): Tensor | undefined {
  requireFloat32(b);
  const [outputs, rank] = b.shape as [number, number];
  const leaf = leafGradient(b);
  const db = leaf?.grad ?? emptyLike(b);
  const beta = leaf?.beta ?? 0;
  calls.lowRankGradients(
    dy.handle,
    h.handle,
    b.handle,
    dh.handle,
    db.handle,
    rows,
    outputs,
    rank,
    stride,
    stride,
    scale,
    beta,
  );
  return leaf ? undefined : db;
}
