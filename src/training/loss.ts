import { type Checkpointing, withCheckpointing } from "../autograd/checkpoint.js";
import { backward } from "../autograd/tape.js";
import type { Batch } from "../data/collate.js";
import { batchLoss } from "../evaluation/loss.js";
import type { CausalLM } from "../models/causal.js";
import type { Parameter } from "../nn/module.js";
import { endTransfers } from "../tensor/host.js";
import { addScaled, scaleInPlace } from "../tensor/ops/elementwise.js";
import { scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";

// Gradients on their way through float16 activations would vanish below 6e-8: they are made this many times larger (as of the sum over all tokens, not
// the mean) and brought back before the optimizer takes them. Parameters' own gradients are float32.
const FLOAT16_SCALE = 8;

function gradientScale(model: CausalLM, tokens: number): number {
  return model.activations === "float16" ? FLOAT16_SCALE * tokens : 1;
}

/** Brings the gradients of an optimizer step of `tokens` trained tokens, made by `accumulateGradients`, back to their size. */
export function restoreGradients(model: CausalLM, parameters: readonly Parameter[], tokens: number): void {
  const scale = gradientScale(model, tokens);
  if (scale === 1) return;
  for (const { grad } of parameters) if (grad) scaleInPlace(grad, 1 / scale);
}

/**
 * Adds a micro-batch's gradients to the parameters and its share of the loss to `sum`; `lossOf` computes that share, `scale` times larger.
 * `tokens` are the trained tokens of the whole optimizer step; `restoreGradients` must follow the last micro-batch.
 */
export function accumulateLoss(
  model: CausalLM,
  tokens: number,
  checkpointing: Checkpointing,
  sum: Tensor,
  lossOf: (scale: number) => Tensor,
): void {
  const scale = gradientScale(model, tokens);
  withCheckpointing(checkpointing, () =>
    scope(() => {
      try {
        const loss = lossOf(scale);
        if (loss.requiresGrad) backward(loss);
        addScaled(sum, loss, 1 / scale);
      } finally {
        endTransfers(); // nothing may be freed while it is copied
      }
    }),
  );
}

/** `accumulateLoss` of the mean cross entropy: divided by the whole step's tokens, it does not depend on how the step is split. */
export function accumulateGradients(
  model: CausalLM,
  batch: Batch,
  tokens: number,
  smoothing: number,
  sum: Tensor,
  checkpointing: Checkpointing,
  neftune = 0,
): void {
  accumulateLoss(
    model,
    tokens,
    checkpointing,
    sum,
    (scale) => batchLoss(model, batch, scale / tokens, smoothing, neftune).total,
  );
}
