/**
 * Trains the small ChatGLM with this engine, from random weights, and writes notebooks/embedded/chatglm/model. Everything follows from the seed in
 * prepare.ts. Run after the build (some minutes):
 *   node dist/notebooks/embedded/chatglm/train.js [FOLDER]
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { float32ToFloat16 } from "../../../src/hub/float16.js";
import { writeSafetensors } from "../../../src/hub/safetensors-write.js";
import { loadModel, type TrainStep } from "../../../src/index.js";
import { root } from "../prepare.js";
import { corpus, files, recipe } from "./prepare.js";

const folder = resolve(process.argv[2] ?? join(root, "notebooks", "embedded", "chatglm", "model"));
mkdirSync(folder, { recursive: true });
const { train, validation } = corpus();
for (const [name, content] of Object.entries(files(train))) writeFileSync(join(folder, name), content);

const model = await loadModel(folder, { weights: "random", dtype: "float32", seed: recipe.seed });
console.log(`${model.trainable().total} parameters, ${train.length} rows, ${validation.length} to measure on`);
const seen: number[] = [];
const run = await model.train(train as Iterable<Record<string, unknown>>, {
  steps: recipe.steps,
  batch: recipe.batch,
  lr: recipe.lr,
  schedule: "cosine",
  warmup: 60,
  weightDecay: 0.1,
  adamBetas: [0.9, 0.98],
  groupByLength: true,
  seed: recipe.seed,
  progress: false,
  callbacks: [report],
});
console.log(`${run.steps} steps in ${run.seconds.toFixed(0)} s, ${run.tokensPerSecond.toFixed(0)} tokens/s`);
const { loss, perplexity } = await model.evaluate(validation as Iterable<Record<string, unknown>>, {
  metrics: ["loss", "perplexity"],
  progress: false,
});
console.log(`validation: ${loss?.toFixed(4)} nats a token, perplexity ${perplexity?.toFixed(3)}`);
await writeSafetensors(
  join(folder, "model.safetensors"),
  [...model.module.namedParameters()].map(([name, parameter]) => ({
    name,
    dtype: "F16",
    shape: parameter.shape,
    data: async () => new Uint8Array(float32ToFloat16((await parameter.data()) as Float32Array).buffer),
  })),
  { format: "pt" },
);
console.log(`written to ${folder}`);
model.dispose();

function report(step: TrainStep): void {
  seen.push(step.loss);
  if (step.step % 100 !== 0) return;
  const mean = seen.splice(0).reduce((a, b) => a + b, 0) / 100;
  console.log(`${step.step}: loss ${mean.toFixed(4)}, ${step.tokensPerSecond.toFixed(0)} tokens/s`);
}
