import { discard, endParts } from "../autograd/checkpoint.js";
import { type Batch, collate } from "../data/collate.js";
import type { Example } from "../data/mask.js";
import { isInterrupted, throwIfInterrupted } from "../display/host.js";
import { DataError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import { packedRows, type Rows } from "../nn/cache.js";
import { addScaled, fill } from "../tensor/ops/elementwise.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope, scope } from "../tensor/scope.js";
import { empty, type Tensor, tensor } from "../tensor/tensor.js";

/** The rows of a batch on the model's device. */
export function rowsOf(model: CausalLM, batch: Batch, neftune = 0): Rows {
  const { inputIds, positions, sequences } = batch;
  const rows = packedRows(inputIds, positions, sequences.begin, sequences.length, model.device);
  const { begin, length } = sequences;
  return {
    ...rows,
    ...(neftune === 0 ? {} : { noise: noiseSize(model, batch, neftune) }),
    ...(batch.pictures ? { pictures: { ids: inputIds, begin, length, of: batch.pictures } } : {}),
  };
}

/** Largest noise of each row, (rows, 1): NEFTune's alpha / sqrt(L · d), L being the tokens of the row's own sequence, however it is batched. */
function noiseSize(model: CausalLM, batch: Batch, alpha: number): Tensor {
  const { begin, length } = batch.sequences;
  const size = new Float32Array(batch.inputIds.length);
  begin.forEach((from, s) => {
    size.fill(alpha / Math.sqrt(length[s]! * model.config.hiddenSize), from, from + length[s]!);
  });
  return tensor(size, { device: model.device }).reshape(size.length, 1);
}

/** Weighted sum of the cross entropies of a batch's trained tokens: scale · Σ, one element; and each row's own (rows). */
export function batchLoss(
  model: CausalLM,
  batch: Batch,
  scale: number,
  smoothing = 0,
  neftune = 0,
): { total: Tensor; rows: Tensor } {
  const rows = rowsOf(model, batch, neftune);
  const h = model.hidden(rows); // (batch · length, hidden)
  endParts();
  const loss = model.headLoss(h, tensor(batch.labels, { device: model.device }), scale, smoothing);
  discard([h], [loss.total, loss.rows]);
  return loss;
}

/** Adds the loss of a batch (nats, not divided) to `sum`, without gradients. */
export function accumulateLoss(model: CausalLM, batch: Batch, sum: Tensor): void {
  scope(() => noGrad(() => addScaled(sum, batchLoss(model, batch, 1).total)));
}

/** Mean loss a trained token over all examples, in nats; without gradients. */
export async function meanLoss(
  model: CausalLM,
  examples: readonly Example[],
  s: { batch: number; paddingSide?: "right" | "left" | "none"; signal?: AbortSignal | undefined },
  padId: number,
  onBatch?: (done: number) => void,
): Promise<number> {
  const sum = outsideScope(() => fill(empty([1], "float32", model.device), 0));
  let tokens = 0;
  try {
    for (let i = 0; i < examples.length; i += s.batch) {
      if (isInterrupted(s.signal)) throwIfInterrupted("Evaluation", s.signal);
      const batch = collate(examples.slice(i, i + s.batch), { padId, paddingSide: s.paddingSide ?? "none" });
      tokens += batch.tokens;
      if (batch.tokens > 0) accumulateLoss(model, batch, sum);
      if (onBatch || i % (8 * s.batch) === 0) await sum.data();
      onBatch?.(Math.min(examples.length, i + s.batch));
    }
    if (tokens === 0)
      throw new DataError("evaluate: no row has a trained token: every label is masked; check format and maxLength.");
    return (await sum.item()) / tokens;
  } finally {
    sum.dispose();
  }
}
