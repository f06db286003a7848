/**
 * Trains the embedded model with this engine and writes notebooks/embedded/model. Everything follows from the seed in prepare.ts. Run
 * after the build (20 to 25 minutes on two cores):
 *   node dist/notebooks/embedded/train.js [FOLDER]
 *
 * In two parts. A model of this size that starts on the village's texts learns their words but not to look back: the lead of a story
 * changes its name with every sentence, and questions about a passage get a guess. So the first part trains on nothing but
 * repeating random words, until the heads that find "what followed this word before" (Olsson et al. 2022) have formed; the second
 * part, on the texts, then uses them from the start.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { writeSafetensors } from "../../src/hub/safetensors-write.js";
import { loadModel, type Model, type TrainOptions, type TrainStep } from "../../src/index.js";
import { config, corpus, parrotRows, recipe, root, vocabulary } from "./prepare.js";
import { tokenizerFiles } from "./tokenizer.js";

const folder = resolve(process.argv[2] ?? join(root, "notebooks", "embedded", "model"));
mkdirSync(folder, { recursive: true });
const { train, validation } = corpus();
writeFiles();

const model = await loadModel(folder, { weights: "random", seed: recipe.seed });
console.log(`${model.trainable().total} parameters, ${train.length} rows of text, ${validation.length} to measure on`);
await part("copying", parrotRows(), { ...recipe.copying, schedule: "constant" });
await part("reading", train, { ...recipe.reading, schedule: "cosine" });
const { loss, perplexity } = await model.evaluate(validation, { metrics: ["loss", "perplexity"], progress: false });
console.log(`validation: ${loss?.toFixed(4)} nats a token, perplexity ${perplexity?.toFixed(3)}`);
await writeWeights(model);
console.log(`written to ${folder}`);
model.dispose();

async function part(name: string, rows: Iterable<object>, options: TrainOptions): Promise<void> {
  const seen: number[] = [];
  const result = await model.train(rows as Iterable<Record<string, unknown>>, {
    ...options,
    warmup: 60,
    weightDecay: 0.1,
    adamBetas: [0.9, 0.98],
    groupByLength: true,
    seed: recipe.seed,
    progress: false,
    callbacks: [(step: TrainStep) => report(name, step, seen)],
  });
  console.log(
    `${name}: ${result.steps} steps in ${result.seconds.toFixed(0)} s, ${result.tokensPerSecond.toFixed(0)} tokens/s`,
  );
}

function report(name: string, step: TrainStep, seen: number[]): void {
  seen.push(step.loss);
  if (step.step % 100 !== 0) return;
  const mean = seen.splice(0).reduce((a, b) => a + b, 0) / 100;
  console.log(`${name} ${step.step}: loss ${mean.toFixed(4)}, ${step.tokensPerSecond.toFixed(0)} tokens/s`);
}

/** Everything but the weights. */
function writeFiles(): void {
  const shape = config();
  const files = {
    ...tokenizerFiles(vocabulary(train), recipe.context),
    "config.json": `${JSON.stringify(shape, null, 2)}\n`,
    "generation_config.json": `${JSON.stringify(
      {
        bos_token_id: shape.bos_token_id,
        eos_token_id: shape.eos_token_id,
        pad_token_id: shape.pad_token_id,
        max_length: recipe.context,
      },
      null,
      2,
    )}\n`,
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
}

async function writeWeights(trained: Model): Promise<void> {
  const tensors = [...trained.module.namedParameters()].map(([name, parameter]) => ({
    name,
    dtype: "F32",
    shape: parameter.shape,
    data: async () => new Uint8Array((await parameter.data()).buffer),
  }));
  await writeSafetensors(join(folder, "model.safetensors"), tensors, { format: "pt" });
}
