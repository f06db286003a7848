// Trains small models for some steps and continues prompts; prints a digest of all that came of it, a line each: see threads.test.ts.
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LoadOptions, loadModel, type QuantizeOptions } from "../../src/index.js";
import { colourRows, smallConfig, withModelFolder } from "../facade/small.js";
import { adapterHash } from "./resumable.js";

// Wide enough that every op of a step is cut into several pieces of work.
const config = { ...smallConfig, hidden_size: 256, intermediate_size: 704, max_position_embeddings: 1024 };
const rows = colourRows(48).map((row, i) => ({
  ...row,
  completion: row.completion + " and so on".repeat(3 + (i % 9)),
}));
const prompts = [
  "The sea is",
  "The",
  "The grass is green and the rose",
  "coal",
  "A rose",
  "The coal is black and so on and so on",
];

const kinds: readonly { name: string; load: LoadOptions; quantize?: QuantizeOptions }[] = [
  { name: "float32", load: { dtype: "float32" } },
  { name: "bfloat16", load: { dtype: "bfloat16" } },
  { name: "nf4", load: { dtype: "bfloat16" }, quantize: { type: "nf4", doubleQuant: true, compute: "bfloat16" } },
  { name: "int8", load: { dtype: "float32" }, quantize: { type: "int8" } },
];

const print = (name: string, value: unknown): void =>
  console.log(`${name} ${createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 24)}`);

const output = await mkdtemp(join(tmpdir(), "tunebook-threads-"));
try {
  await withModelFolder(async (folder) => {
    for (const { name, load, quantize } of kinds) {
      const model = await loadModel(folder, { weights: "random", seed: 1, progress: false, ...load });
      if (quantize) await model.quantize(quantize);
      await model.addLora({ rank: 8, dropout: 0.1, target: "all-linear", seed: 2 });
      const to = join(output, name);
      const result = await model.train(rows, {
        steps: 4,
        batch: 8,
        lr: 1e-2,
        seed: 7,
        progress: false,
        validation: rows.slice(0, 8),
      });
      const steps = result.history
        .toRows()
        .map(({ loss, validationLoss, gradNorm }) => [loss, validationLoss, gradNorm]);
      print(`${name} losses`, steps);
      await model.save(to);
      print(`${name} adapter`, await adapterHash(to));
      for (const batch of [1, 6]) {
        print(`${name} greedy, batch ${batch}`, await model.generate(prompts, { maxNewTokens: 40, batch }));
        const sampled = { maxNewTokens: 40, batch, temperature: 1.1, topP: 0.95, seed: 3 };
        print(`${name} sampled, batch ${batch}`, await model.generate(prompts, sampled));
      }
      model.dispose();
    }
  }, config);
} finally {
  await rm(output, { recursive: true, force: true });
}
