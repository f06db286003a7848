// The node half of a live check: trains small adapters with tunebook, saves them, merges them, exports the merged
// models, and writes down the logits.
//   node scripts/peers/save-adapters.mjs BASE OUT
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../dist/src/plan.js";
import { trainLoop } from "../../dist/src/training/loop.js";
import { trainSettings } from "../../dist/src/training/options.js";

const [base, out] = process.argv.slice(2);
const all = { rank: 4, alpha: 8, target: "all-linear" };
const cases = [
  { name: "all-linear", lora: { ...all, seed: 1 } },
  { name: "rslora", lora: { rank: 4, alpha: 8, target: ["q_proj", "v_proj"], rslora: true, seed: 2 } },
  { name: "over-nf4", lora: { ...all, seed: 3 }, quantize: { type: "nf4" } },
  { name: "over-double-nf4", lora: { rank: 4, seed: 4 }, quantize: { type: "nf4", doubleQuant: true } },
  { name: "dora", lora: { ...all, dora: true, seed: 5 } },
  { name: "dora-nf4", lora: { ...all, dora: true, seed: 6 }, quantize: { type: "nf4" } },
  { name: "pissa", lora: { ...all, init: "pissa", seed: 7 } },
  {
    name: "pissa-patterns",
    lora: { ...all, init: "pissa", rankPattern: { q_proj: 2 }, alphaPattern: { up_proj: 3 }, rslora: true },
  },
  { name: "loftq", lora: { ...all, init: "loftq", alpha: 4 }, quantize: { type: "nf4" } },
  {
    name: "patterns",
    lora: { ...all, rankPattern: { "layers\\.1\\..*_proj": 2, q_proj: 6 }, alphaPattern: { o_proj: 3 }, seed: 8 },
  },
  { name: "layers", lora: { rank: 4, target: ["q_proj", "up_proj"], layers: [1], layersPattern: "layers", seed: 9 } },
  { name: "pattern", lora: { rank: 4, target: ".*(q|k)_proj", exclude: ["layers.0.self_attn.k_proj"], seed: 10 } },
  { name: "embedding", lora: { rank: 4, target: ["embed_tokens", "lm_head", "v_proj"], seed: 11 } },
  { name: "embedding-dora", lora: { rank: 4, target: ["embed_tokens", "v_proj"], dora: true, seed: 12 } },
  { name: "saved", lora: { rank: 4, modulesToSave: ["lm_head", "input_layernorm"], seed: 13 } },
  { name: "lora-bias", lora: { rank: 4, loraBias: true, seed: 14 }, merge: false },
];
const sequences = [[7], [5, 9, 33, 2, 81], Array.from({ length: 30 }, (_, i) => (i * 31 + 11) % 97)];
// The loop below the facade takes ids: these models have no tokenizer.
const rows = sequences.slice(1).map((ids) => ({ ids: Int32Array.from(ids), labels: Int32Array.from(ids) }));
const settings = trainSettings({ steps: 4, batch: 2, lr: 0.05, schedule: "constant", progress: false });

const written = [];
for (const { name, lora, quantize, merge = true } of cases) {
  const plan = loadModel(base, { dtype: "float32", device: "cpu" });
  const model = await (quantize ? plan.quantize(quantize) : plan).addLora(lora);
  // A few steps, so that no B is zero any more.
  const input = { model: model.module, train: rows, settings };
  for await (const step of trainLoop(input)) console.log(`${name}: step ${step.step}, loss ${step.loss.toFixed(4)}`);
  mkdirSync(out, { recursive: true });
  await model.save(join(out, name));
  const logits = [];
  for (const row of sequences) logits.push(Array.from(await model.logits([row])));
  written.push({ name, quantize: quantize ?? null, merge, sequences, logits });
  if (merge) {
    const { difference } = await model.merge();
    console.log(`${name}: merged, the logits changed by ${difference.toExponential(1)}`);
    await model.export(join(out, `${name}-merged`));
  }
  model.dispose();
}
writeFileSync(join(out, "cases.json"), JSON.stringify(written));
