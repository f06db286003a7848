/**
 * Trains the embedded model that sees with this engine, language layers and vision tower from random weights, and writes notebooks/embedded/vision/model.
 * Everything follows from the seed in prepare.ts. Run after the build:
 *   node dist/notebooks/embedded/vision/train.js [FOLDER]
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { loadModel, type Model, type TrainStep } from "../../../src/index.js";
import { root } from "../prepare.js";
import { tokenizerFiles } from "../tokenizer.js";
import { config, form, preprocessor, recipe, talks, vocabulary } from "./prepare.js";

const folder = resolve(process.argv[2] ?? join(root, "notebooks", "embedded", "vision", "model"));
mkdirSync(folder, { recursive: true });
writeFiles();

const model = await loadModel(folder, { weights: "random", seed: recipe.seed });
console.log(`${model.trainable().total} parameters`);
for (const [i, part] of recipe.parts.entries()) {
  const begun = performance.now();
  const rows = await talks(recipe.seed + 10 + i, part.pictures, part.most);
  console.log(`${part.name}: ${rows.length} pictures in ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  const seen: number[] = [];
  const result = await model.train(rows, {
    steps: part.steps,
    batch: recipe.batch,
    lr: part.lr,
    schedule: "cosine",
    warmup: 60,
    weightDecay: 0.05,
    adamBetas: [0.9, 0.98],
    seed: recipe.seed + i,
    progress: false,
    callbacks: [(step: TrainStep) => report(part.name, step, seen)],
  });
  console.log(`${part.name}: ${result.steps} steps in ${result.seconds.toFixed(0)} s`);
}
await write(model);
console.log(`written to ${folder}`);
model.dispose();

function report(name: string, step: TrainStep, seen: number[]): void {
  seen.push(step.loss);
  if (step.step % 100 !== 0) return;
  const mean = seen.splice(0).reduce((a, b) => a + b, 0) / 100;
  console.log(`${name} ${step.step}: loss ${mean.toFixed(4)}, ${step.tokensPerSecond.toFixed(0)} tokens/s`);
}

/** Everything but the weights. */
function writeFiles(): void {
  const shape = config();
  const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
  const files = {
    ...tokenizerFiles(vocabulary(), recipe.context, form),
    "config.json": json(shape),
    "preprocessor_config.json": json(preprocessor()),
    "generation_config.json": json({ eos_token_id: shape.eos_token_id, pad_token_id: shape.pad_token_id }),
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
}

async function write(trained: Model): Promise<void> {
  await trained.export(folder, { dtype: "bfloat16" });
}
