import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LoraOptions, loadModel, type Model, type TrainOptions } from "../../src/index.js";
import { colourRows, withModelFolder } from "../facade/small.js";

/** Runs `use` with a model's folder and an empty one for output. */
export async function withFolders(use: (model: string, output: string) => Promise<void>): Promise<void> {
  await withModelFolder(async (model) => {
    const output = await mkdtemp(join(tmpdir(), "tunebook-run-"));
    try {
      await use(model, output);
    } finally {
      await rm(output, { recursive: true, force: true });
    }
  });
}

/** A small model with an adapter that draws random numbers in every step. */
export async function adapted(folder: string, lora: Partial<LoraOptions> = {}): Promise<Model> {
  const model = await loadModel(folder, { weights: "random", seed: 1, progress: false });
  await model.adaptLora({ rank: 4, dropout: 0.1, target: "all-linear", seed: 2, ...lora });
  return model;
}

/** Rows of different lengths. */
export const rows: { prompt: string; completion: string }[] = colourRows(22).map((row, i) => ({
  ...row,
  completion: row.completion + " and so".repeat(i % 4),
}));

/** The same with a worse answer each. */
export const pairs: { prompt: string; chosen: string; rejected: string }[] = rows.map(({ prompt, completion }, i) => ({
  prompt,
  chosen: completion,
  rejected: " no".repeat(1 + (i % 3)),
}));

/** A run that uses all that has a state: an uneven last batch, several epochs, dropout, a schedule, measurements. */
export const options: TrainOptions = {
  steps: 17,
  batch: 3,
  accumulate: 2,
  lr: 1e-2,
  schedule: "cosine",
  warmup: 3,
  weightDecay: 0.01,
  seed: 7,
  validation: rows.slice(0, 4),
  evalEvery: 3,
  keepBest: true,
  progress: false,
};

/** SHA-256 of the adapter in a folder. */
export async function adapterHash(folder: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(join(folder, "adapter_model.safetensors")))
    .digest("hex");
}
