import type { EstimateOptions, Model } from "../../src/index.js";
import { resetPeak, stats } from "../../src/tensor/native.js";
import { trainLoop } from "../../src/training/loop.js";
import { trainSettings } from "../../src/training/options.js";

/** Peak of two optimizer steps of full rows, in bytes: what `estimate` predicts. */
export async function measuredPeak(
  model: Model,
  options: EstimateOptions & { batch: number; length: number },
): Promise<number> {
  const { batch, length, ...rest } = options;
  const ids = Int32Array.from({ length }, (_, i) => 3 + ((i * 7919) % (model.config.vocabSize - 3)));
  const rows = batch * (rest.accumulate ?? 1);
  const loop = trainLoop({
    model: model.module,
    train: Array.from({ length: rows }, () => ({ ids, labels: ids })),
    settings: trainSettings({ ...rest, batch, steps: 2, epochs: 2, progress: false }),
  });
  resetPeak();
  while (!(await loop.next()).done);
  return stats().peakBytes;
}
