import type { Model } from "../../src/model.js";
import { trainLoop } from "../../src/training/loop.js";
import { type TrainOptions, type TrainStep, trainSettings } from "../../src/training/options.js";
import type { LabelledRow } from "./models.js";

/** Trains in the order of the rows, and gives each step's numbers. */
export async function trainOn(model: Model, rows: readonly LabelledRow[], options: TrainOptions): Promise<TrainStep[]> {
  const steps: TrainStep[] = [];
  const settings = trainSettings({ shuffle: false, progress: false, ...options });
  const train = rows.map(({ ids, labels }) => ({ ids: Int32Array.from(ids), labels: Int32Array.from(labels) }));
  const input = { model: model.module, train, settings };
  for await (const step of trainLoop(input)) steps.push(step);
  return steps;
}
