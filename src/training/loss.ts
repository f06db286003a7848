import { backward } from "../autograd/tape.js";
import type { Batch } from "../data/collate.js";
import type { CausalLM } from "../models/causal.js";
import { packedRows } from "../nn/cache.js";
import { addScaled } from "../tensor/ops/elementwise.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { type Tensor, tensor } from "../tensor/tensor.js";

/** Weighted sum of the cross entropies of a batch's trained tokens: scale · Σ, one element; and each row's own (rows). */
export function batchLoss(
  model: CausalLM,
  batch: Batch,
  scale: number,
  smoothing = 0,
): { total: Tensor; rows: Tensor } {
  const rows = packedRows(batch.inputIds, batch.positions, batch.sequences.begin, batch.sequences.length);
  const h = model.hidden(rows); // (batch · length, hidden)
  return model.headLoss(h, tensor(batch.labels), scale, smoothing);
}

/**
 * Adds a micro-batch's gradients to the parameters and its share of the loss to `sum`. `tokens` are the trained tokens of the whole optimizer
 * step, so that the result does not depend on how the step is split.
 */
export function accumulateGradients(
  model: CausalLM,
  batch: Batch,
  tokens: number,
  smoothing: number,
  sum: Tensor,
): void {
  scope(() => {
    const { total } = batchLoss(model, batch, 1 / tokens, smoothing);
    if (total.requiresGrad) backward(total);
    addScaled(sum, total);
  });
}

/** Adds the loss of a batch (nats, not divided) to `sum`, without gradients. */
export function accumulateLoss(model: CausalLM, batch: Batch, sum: Tensor): void {
  scope(() => noGrad(() => addScaled(sum, batchLoss(model, batch, 1).total)));
}
