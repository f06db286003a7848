import * as calls from "../calls.js";
import type { Compute } from "../dtype.js";
import { inputGradient } from "../gradient.js";
import { endReading, handOver, leaveToMaker, whenRead } from "../lifetime.js";
import { record } from "../record.js";
import { shapeMismatch } from "../shape.js";
import { activationLike, requireOneDevice, Tensor } from "../tensor.js";
import { addScaled } from "./elementwise.js";
import { type FrozenWeight, requireWeightDevice, weightProduct } from "./frozen.js";
import { widened } from "./layout.js";
import { lowRankGradients } from "./low-rank.js";
import { biasGradient, gemm, weightGradient } from "./matmul.js";
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
 * y = x Wᵀ + bias + s · (dropout(x) Aᵀ) Bᵀ with W (out, in) frozen, dense or quantised (LoRA, Hu et al. 2021, section 4.1). The base product is added
 * to the update in place; of its own intermediates only x Aᵀ (…, r) is kept for the backward pass, the mask is drawn again.
 * A and B are float32; the update is made in the dtype of x.
 * @param compute of the base product, by default that of its weight.
 */
export function linearLora(
  given: Tensor,
  w: Tensor | FrozenWeight,
  bias: Tensor | undefined,
  lora: LoraTerm,
  compute?: Compute,
): Tensor {
  const x = widened(given);
  const [outputs, inputs] = w.shape as [number, number];
  const rank = lora.a.shape[0] ?? 0;
  const { a, b, scale } = lora;
  if (x.dim(-1) !== inputs || a.dim(1) !== inputs || b.dim(0) !== outputs || b.dim(1) !== rank) {
    shapeMismatch("linearLora", "x (…, in), A (r, in), B (out, r)", x.shape, a.shape, b.shape);
  }
  requireWeightDevice("linearLora", x, w);
  requireOneDevice("linearLora", x, a, b, bias);
  const rows = x.size / inputs;
  const mask = lora.dropout > 0 ? reserveRandom(x.size) : undefined;
  /** Masks `from`; in its own memory, or in new. */
  const drop = (from: Tensor, inPlace: boolean): Tensor => {
    const out = inPlace ? from : activationLike(from);
    if (mask) calls.dropout(from.handle, out.handle, out.size, mask.seed, mask.offset, lora.dropout);
    return out;
  };
  let dropped: Tensor | undefined; // dropout(x) while it is there
  const reduced = whenRead(x, [rows, rank], () => {
    const out = activationLike(x, [rows, rank]);
    const input = dropped ?? (mask ? drop(x, false) : x);
    gemm(input, a, out, rows, rank, inputs, { transB: true });
    if (mask && !dropped) input.dispose();
    return out;
  });
  const shape = [...x.shape.slice(0, -1), outputs];
  const y = whenRead(x, shape, () => {
    const out = activationLike(x, shape);
    weightProduct(x, w, out, rows, true, { bias, compute, update: { u: reduced, v: b, rank, scale } });
    return out;
  });
  record(
    "linearLora",
    [x, a, b, bias],
    [y],
    (dy) => {
      const dReduced = activationLike(x, [rows, rank]);
      if (mask && a.requiresGrad) {
        const spare = handOver(x, reduced.held ? 1 : 2);
        dropped = drop(spare ?? x, spare !== undefined);
      }
      const db = lowRankGradients(dy, reduced, b, dReduced, scale);
      const left =
        a.requiresGrad &&
        a.leaf &&
        !mask &&
        leaveToMaker(x, (elements) => {
          weightGradient(a, dReduced, elements, rows, rank, inputs);
          dReduced.dispose();
        });
      let da: Tensor | undefined;
      if (a.requiresGrad && !left) {
        da = weightGradient(a, dReduced, dropped ?? x, rows, rank, inputs);
        dropped?.dispose();
        dropped = undefined;
        endReading(x);
      }
      let dx: Tensor | undefined;
      if (x.requiresGrad) {
        const { grad, beta, returned } = inputGradient(x);
        if (mask) {
          const part = beta === 0 ? grad : activationLike(x);
          gemm(dReduced, a, part, rows, inputs, rank);
          drop(part, true);
          weightProduct(dy, w, grad, rows, false, { compute, beta: 1 });
          if (part !== grad) {
            addScaled(grad, part);
            part.dispose();
          }
        } else {
          weightProduct(dy, w, grad, rows, false, { compute, beta, update: { u: dReduced, v: a, rank } });
        }
        dx = returned;
      }
      if (!left) dReduced.dispose();
      return [dx, da, db, biasGradient(bias, dy, rows, outputs)];
    },
    [reduced],
    [a, b, w instanceof Tensor ? w : undefined, a.requiresGrad ? x : undefined],
  );
  if (!y.requiresGrad) {
    void y.handle; // it may not have been made yet
    reduced.dispose();
  }
  return y;
}
