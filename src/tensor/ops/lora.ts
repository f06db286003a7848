import * as calls from "../calls.js";
import type { Compute } from "../dtype.js";
import { record } from "../record.js";
import { shapeMismatch } from "../shape.js";
import { empty, Tensor } from "../tensor.js";
import { type FrozenWeight, weightProduct } from "./frozen.js";
import { gemm, weightGradient } from "./matmul.js";
import { reserveRandom } from "./random.js";

/** One low-rank update of a linear layer: s · (x Aᵀ) Bᵀ. */
export interface LoraTerm {
  /** (r, in). */
  readonly a: Tensor;
  /** (out, r). */
  readonly b: Tensor;
  /** alpha / r, or alpha / sqrt(r). */
  readonly scale: number;
  /** Probability with which an input of A is dropped (0: none). */
  readonly dropout: number;
}

/**
 * y = x Wᵀ + bias + s · (dropout(x) Aᵀ) Bᵀ with W (out, in) frozen, dense or quantised (LoRA, Hu et al. 2021, section 4.1). The update is added
 * to the base product in place; of its own intermediates only x Aᵀ (…, r) is kept for the backward pass, the mask is drawn again.
 * @param compute of the base product (by default that of its weight); the update is float32.
 */
export function linearLora(
  x: Tensor,
  w: Tensor | FrozenWeight,
  bias: Tensor | undefined,
  lora: LoraTerm,
  compute?: Compute,
): Tensor {
  const [outputs, inputs] = w.shape as [number, number];
  const rank = lora.a.shape[0] ?? 0;
  const { a, b, scale } = lora;
  if (x.dim(-1) !== inputs || a.dim(1) !== inputs || b.dim(0) !== outputs || b.dim(1) !== rank) {
    shapeMismatch("linearLora", "x (…, in), A (r, in), B (out, r)", x.shape, a.shape, b.shape);
  }
  const rows = x.size / inputs;
  const mask = lora.dropout > 0 ? reserveRandom(x.size) : undefined;
  const dropped = (source: Tensor): Tensor => {
    if (!mask) return source;
    const out = empty(source.shape);
    calls.dropout(source.handle, out.handle, source.size, mask.seed, mask.offset, lora.dropout);
    return out;
  };
  const y = empty([...x.shape.slice(0, -1), outputs]);
  const reduced = empty([rows, rank]);
  weightProduct(x, w, y, rows, true, { bias, compute });
  const input = dropped(x);
  gemm(input, a, reduced, rows, rank, inputs, { transB: true });
  if (mask) input.dispose();
  gemm(reduced, b, y, rows, outputs, rank, { transB: true, alpha: scale, beta: 1 });
  record(
    "linearLora",
    [x, a, b],
    [y],
    (dy) => {
      const dReduced = empty([rows, rank]);
      gemm(dy, b, dReduced, rows, rank, outputs, { alpha: scale });
      const db = b.requiresGrad ? weightGradient(b, dy, reduced, rows, outputs, rank, scale) : undefined;
      let da: Tensor | undefined;
      if (a.requiresGrad) {
        const again = dropped(x);
        da = weightGradient(a, dReduced, again, rows, rank, inputs);
        if (mask) again.dispose();
      }
      let dx: Tensor | undefined;
      if (x.requiresGrad) {
        dx = empty(x.shape);
        weightProduct(dy, w, dx, rows, false, { compute });
        if (mask) {
          const update = empty(x.shape);
          gemm(dReduced, a, update, rows, inputs, rank);
          calls.dropout(update.handle, update.handle, update.size, mask.seed, mask.offset, lora.dropout);
          calls.axpy(update.handle, dx.handle, dx.size, 1);
          update.dispose();
        } else gemm(dReduced, a, dx, rows, inputs, rank, { beta: 1 });
      }
      dReduced.dispose();
      return [dx, da, db];
    },
    [reduced],
    [a, b, w instanceof Tensor ? w : undefined, a.requiresGrad ? x : undefined],
  );
  if (!y.requiresGrad) reduced.dispose();
  return y;
}
