// The node half of a live check: gives a decoder a head for classes, trains it whole and as an adapter, saves both, and writes down the head's logits.
//   node scripts/peers/save-classifier.mjs BASE OUT
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { headLogits } from "../../dist/src/evaluation/head.js";
import { loadModel } from "../../dist/src/plan.js";
import { trainLoop } from "../../dist/src/training/loop.js";
import { trainSettings } from "../../dist/src/training/options.js";

const [base, out] = process.argv.slice(2);
const labels = ["calm", "sad", "glad"];
const sequences = [[7], [5, 9, 33, 2, 81], Array.from({ length: 30 }, (_, i) => (i * 31 + 11) % 97)];
// The loop below the facade takes ids: this model has no tokenizer.
const rows = sequences.map((ids, k) => {
  const classes = new Int32Array(ids.length + 1).fill(-100);
  classes[ids.length] = k;
  return { ids: Int32Array.from(ids), labels: classes };
});
const options = { steps: 4, batch: 3, lr: 0.02, schedule: "constant", method: "classification", progress: false };
const settings = trainSettings(options);

const written = [];
for (const [name, lora] of [
  ["whole", undefined],
  ["adapter", { rank: 4, alpha: 8, target: "all-linear", seed: 1 }],
  ["adapter-dora", { rank: 4, target: ["q_proj", "v_proj"], dora: true, seed: 2 }],
]) {
  const plan = loadModel(base, { task: "classification", labels, device: "cpu", dtype: "float32", progress: false });
  const model = await (lora ? plan.addLora(lora) : plan);
  const input = { model: model.module, train: rows, settings };
  for await (const step of trainLoop(input)) console.log(`${name}: step ${step.step}, loss ${step.loss.toFixed(4)}`);
  const folder = join(out, name);
  mkdirSync(folder, { recursive: true });
  if (lora) await model.save(folder);
  else await model.export(folder);
  const logits = await headLogits(model.module, sequences, { batch: 3 });
  written.push({ name, lora: lora !== undefined, logits });
  model.dispose();
}
writeFileSync(join(out, "cases.json"), JSON.stringify({ labels, sequences, cases: written }));
