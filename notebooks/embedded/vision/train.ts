/**
 * Trains the embedded model that sees with this engine, language layers and vision tower from random weights, and writes notebooks/embedded/vision/model.
 * Everything follows from the seed in prepare.ts. Run after the build:
 *   node dist/notebooks/embedded/vision/train.js [FOLDER]
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { loadModel, type TrainOptions, type TrainStep } from "../../../src/index.js";
import { root } from "../prepare.js";
import { tokenizerFiles } from "../tokenizer.js";
import { config, form, looks, preprocessor, recipe, type Talk, talks, vocabulary } from "./prepare.js";

const folder = resolve(process.argv[2] ?? join(root, "notebooks", "embedded", "vision", "model"));
mkdirSync(folder, { recursive: true });
writeFiles();

const model = await loadModel(folder, { weights: "random", seed: recipe.seed });
console.log(`${model.trainable().total} parameters`);
const { looking, answering } = recipe;
await part("looking", await looks(looking.pictures), looking.options);
await part("answering", await talks(answering.pictures), answering.options);
await model.export(folder, { dtype: "bfloat16" });
console.log(`written to ${folder}`);
model.dispose();

async function part(name: string, rows: Talk[], options: TrainOptions<Talk>): Promise<void> {
  const losses: number[] = [];
  const result = await model.train(rows, {
    ...options,
    warmup: 60,
    weightDecay: 0.05,
    adamBetas: [0.9, 0.98],
    seed: recipe.seed,
    progress: false,
    callbacks: [
      ({ step, loss, tokensPerSecond }: TrainStep) => {
        losses.push(loss);
        if (step % 100 !== 0) return;
        const mean = losses.splice(0).reduce((a, b) => a + b, 0) / 100;
        console.log(`${name} ${step}: loss ${mean.toFixed(4)}, ${tokensPerSecond.toFixed(0)} tokens/s`);
      },
    ],
  });
  console.log(`${name}: ${result.steps} steps in ${result.seconds.toFixed(0)} s`);
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
