import * as calls from "../calls.js";
import { COMPUTE_CODE, type Compute, computeOf } from "../dtype.js";
import type { Tensor } from "../tensor.js";
import type { LowRankUpdate } from "./frozen.js";

/** A weight of `linearUpdate` in codes of 4 bits, (out, in). */
export interface FourBitCodes {
  readonly shape: readonly number[];
  readonly codes: Tensor;
  readonly absmax: Tensor;
  readonly absmax2: Tensor | undefined;
  readonly offset: Tensor | undefined;
  readonly block: number;
  readonly kindCode: number;
}

/** Weights of one kind: numbers (out, in), or codes of one form. */
export type UpdatedWeights = { readonly dense: readonly Tensor[] } | { readonly codes: readonly FourBitCodes[] };

/**
 * Frozen layers and their low-rank update as one operation, whose sums are rounded once where the device has a kernel for it: y (m, out) = x Wᵀ + bias + scale · u vᵀ with
 * one weight (`transposed`), or y (m, in) = Σ xᵢ Wᵢ + scale · u v.
 */
export function linearUpdate(
  xs: readonly Tensor[],
  weights: UpdatedWeights,
  y: Tensor,
  m: number,
  transposed: boolean,
  { u, v, rank, scale = 1, stride = rank }: LowRankUpdate,
  { bias, compute }: { bias?: Tensor | undefined; compute?: Compute | undefined } = {},
): void {
  const dense = "dense" in weights ? weights.dense : [];
  const codes = "codes" in weights ? weights.codes : [];
  const all = "dense" in weights ? weights.dense : weights.codes;
  const handles = (tensors: readonly (Tensor | undefined)[]): number[] => tensors.flatMap((t) => (t ? [t.handle] : []));
  const rows = all.reduce((sum, w) => sum + (w.shape[0] ?? 0), 0);
  const cols = all[0]?.shape[1] ?? 0;
  calls.linearUpdate(
    handles(xs),
    handles(dense),
    handles(codes.map((w) => w.codes)),
    handles(codes.map((w) => w.absmax)),
    handles(codes.map((w) => w.absmax2)),
    handles(codes.map((w) => w.offset)),
    bias?.handle ?? 0,
    u.handle,
    v.handle,
    y.handle,
    m,
    rows,
    cols,
    rank,
    transposed ? 1 : 0,
    codes[0]?.block ?? 0,
    stride,
    transposed ? rows : cols,
    codes[0]?.kindCode ?? 0,
    COMPUTE_CODE[compute ?? (dense[0] ? computeOf(dense[0].dtype) : "float32")],
    scale,
  );
}
