import { type Checkpointing, withCheckpointing } from "../autograd/checkpoint.js";
import { backward } from "../autograd/tape.js";
import type { Batch } from "../data/collate.js";
import { batchLoss } from "../evaluation/loss.js";
import type { CausalLM } from "../models/causal.js";
import { addScaled } from "../tensor/ops/elementwise.js";
import { scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";

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
  checkpointing: Checkpointing,
): void {
  withCheckpointing(checkpointing, () =>
    scope(() => {
      const { total } = batchLoss(model, batch, 1 / tokens, smoothing);
      if (total.requiresGrad) backward(total);
      addScaled(sum, total);
    }),
  );
}
