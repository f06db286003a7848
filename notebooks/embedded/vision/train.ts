/**
 * Trains the embedded model that sees with this engine, language layers and vision tower from random weights, and writes notebooks/embedded/vision/model.
 * Everything follows from the seed in prepare.ts. Run after the build (18 minutes on two cores that others use, too):
 *   node dist/notebooks/embedded/vision/train.js [FOLDER [PART]]
 *
 * In parts. Looking asks for nothing but the colour or the shape in each place of a picture, until the tower sees shapes and the language layers know
 * where to look. Matching names shapes in random order and wants their colours, or the other way round, so that things are found by what they are. The
 * others ask all kinds of questions. docs/decisions.md says what happens without the first two. Each part begins with the weights that the one before
 * has written, rounded to bfloat16, so that a training can go on with any PART ("looking", "matching" …).
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { loadModel, type TrainStep } from "../../../src/index.js";
import { root } from "../prepare.js";
import { tokenizerFiles } from "../tokenizer.js";
import { config, exercises, form, type Part, preprocessor, recipe, vocabulary } from "./prepare.js";

const folder = resolve(process.argv[2] ?? join(root, "notebooks", "embedded", "vision", "model"));
mkdirSync(folder, { recursive: true });
const parts = Object.keys(recipe.parts) as Part[];
const first = parts.indexOf((process.argv[3] ?? "looking") as Part);
if (first < 0) throw new Error(`The parts are ${parts.join(", ")}.`);
writeFiles();
for (const part of parts.slice(first)) await train(part);
console.log(`written to ${folder}`);

async function train(part: Part): Promise<void> {
  const { rows, seed, pictures, ...options } = recipe.parts[part];
  const begin =
    part === "looking" ? ({ weights: "random", seed: recipe.seed } as const) : ({ dtype: "float32" } as const);
  const model = await loadModel(folder, { ...begin, progress: false });
  const losses: number[] = [];
  const report = ({ step, loss, tokensPerSecond }: TrainStep): void => {
    losses.push(loss);
    if (step % 100 !== 0) return;
    const mean = losses.splice(0).reduce((a, b) => a + b, 0) / 100;
    console.log(`${part} ${step}: loss ${mean.toFixed(4)}, ${tokensPerSecond.toFixed(0)} tokens/s`);
  };
  const result = await model.train(await exercises[rows](seed, pictures), {
    ...options,
    schedule: "cosine",
    warmup: 60,
    weightDecay: 0.05,
    adamBetas: [0.9, 0.98],
    seed,
    progress: false,
    callbacks: [report],
  });
  console.log(`${part}: ${result.steps} steps in ${result.seconds.toFixed(0)} s`);
  await model.export(folder, { dtype: "bfloat16" });
  model.dispose();
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
