import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backward } from "../../src/autograd/tape.js";
import { loraLayers } from "../../src/lora/wrap.js";
import type { Model } from "../../src/model.js";
import { loadModel } from "../../src/plan.js";
import { scope } from "../../src/tensor/scope.js";
import { tensor } from "../../src/tensor/tensor.js";
import { goldenArrays, goldenFloats, goldenPath, goldenValues, relativeError } from "../golden.js";
import { flatRows, type LabelledRow, nextLabels } from "./models.js";
import { trainOn } from "./train.js";

const quiet = { progress: false } as const;
const KINDS = [
  "adapter-dora",
  "adapter-dora-bias",
  "adapter-regex",
  "adapter-layers",
  "adapter-embedding",
  "adapter-embedding-dora",
  "adapter-tied",
  "adapter-tied-head",
  "adapter-saved",
  "adapter-bias",
  "adapter-bias-only",
  "adapter-lora-bias",
];

async function load(name: string): Promise<Model> {
  const base = goldenPath(goldenValues(`${name}/golden`).base);
  return loadModel(base, { ...quiet, dtype: "float32" }).loadAdapter(goldenPath(`${name}/adapter`));
}

/** What the active adapter trains, by PEFT's names in memory. */
function trained(model: Model): Map<string, Parameters<typeof relativeName>[1]> {
  const found = new Map();
  for (const [name, p] of model.module.namedParameters()) if (p.requiresGrad) found.set(relativeName(name, p), p);
  return found;
}

const relativeName = (name: string, _p: { grad?: unknown; data(): Promise<Float32Array> }): string => name;

for (const name of KINDS) {
  test(`${name}: PEFT's file gives PEFT's logits, loss and gradients, and merges to the same`, async () => {
    const values = goldenValues(`${name}/golden`);
    const arrays = goldenArrays(`${name}/golden`);
    const model = await load(name);
    const logits = await model.logits([values.sequence]);
    const off = relativeError(logits, goldenFloats(arrays, "logits"));
    assert.ok(off < 1e-5, `logits: relative error ${off}`);
    const rows = values.rows as LabelledRow[];
    const labels = nextLabels(rows);
    const count = labels.reduce((n, l) => n + (l === -100 ? 0 : 1), 0);
    const total = scope(() => {
      const hidden = model.module.hidden(flatRows(rows.map((r) => r.ids)));
      const { total } = model.module.headLoss(hidden, tensor(labels), 1 / count);
      backward(total);
      return total;
    });
    assert.ok(Math.abs((await total.item()) - values.loss) < 1e-4 * values.loss);
    total.dispose();
    const wanted = [...arrays.keys()].filter((k) => k.startsWith("gradient."));
    const parameters = trained(model);
    assert.deepEqual([...parameters.keys()].sort(), wanted.map((k) => k.slice("gradient.".length)).sort());
    for (const key of wanted) {
      const grad = (parameters.get(key.slice("gradient.".length)) as { grad?: { data(): Promise<Float32Array> } }).grad;
      assert.ok(grad, `${key} is missing`);
      const error = relativeError(await grad.data(), goldenFloats(arrays, key));
      assert.ok(error < 1e-4, `${key}: relative error ${error}`);
    }
    model.module.zeroGrad();
    await model.merge();
    // PEFT itself, merging into a tied table, changes the output layer along; here it keeps its own.
    const merged = relativeError(await model.logits([values.sequence]), goldenFloats(arrays, "logits"));
    assert.ok(merged < 1e-5, `merged: relative error ${merged}`);
    model.dispose();
  });

  test(`${name}: saved again, every field of the config and every tensor comes back`, async () => {
    const folder = await mkdtemp(join(tmpdir(), "tunebook-adapter-"));
    const model = await load(name);
    try {
      await model.save(folder);
      const config = async (path: string) => JSON.parse(await readFile(join(path, "adapter_config.json"), "utf8"));
      assert.deepEqual(await config(folder), await config(goldenPath(`${name}/adapter`)));
      const base = goldenPath(goldenValues(`${name}/golden`).base);
      const again = await loadModel(base, { ...quiet, dtype: "float32" }).loadAdapter(folder);
      const ids = [goldenValues(`${name}/golden`).sequence];
      assert.deepEqual(await again.logits(ids), await model.logits(ids));
      again.dispose();
    } finally {
      await rm(folder, { recursive: true });
      model.dispose();
    }
  });
}

for (const name of ["train-dora", "train-dora-nf4", "train-rslora", "train-saved", "train-loraplus"]) {
  test(`${name}: ten steps give PEFT's losses, gradient norms and parameters`, async () => {
    const values = goldenValues(`${name}/golden`);
    const arrays = goldenArrays(`${name}/golden`);
    const plan = loadModel(goldenPath("llama-gqa"), { ...quiet, dtype: "float32" });
    const model = await (values.quantized ? plan.quantize({ type: "nf4" }) : plan).loadAdapter(
      goldenPath(`${name}/init`),
    );
    const { ratio, embedding, decay } = values.plus;
    const plus = ratio ? { loraPlusRatio: ratio, loraPlusEmbeddingRate: embedding, weightDecay: decay } : {};
    const steps = await trainOn(model, values.rows, {
      steps: 10,
      batch: 2,
      schedule: "constant",
      maxGradNorm: 0,
      lr: ratio ? 5e-3 : 1e-2,
      ...plus,
    });
    const losses = relativeError(steps.map((s) => s.loss), values.losses); // biome-ignore format: one claim a line
    assert.ok(losses < 1e-4, `losses ${losses}: ${steps.map((s) => s.loss)}`);
    const norms = relativeError(steps.map((s) => s.gradNorm), values.gradNorms); // biome-ignore format: one claim a line
    assert.ok(norms < 1e-3, `norms ${norms}`);
    const parameters = trained(model);
    for (const key of [...arrays.keys()].filter((k) => k.startsWith("final."))) {
      const off = relativeError(await parameters.get(key.slice("final.".length))!.data(), goldenFloats(arrays, key));
      assert.ok(off < 2e-3, `${key}: relative error ${off}`);
    }
    model.dispose();
  });
}

test("adapter-patterns: ranks and alphas of their own by PEFT's patterns", async () => {
  const model = await load("adapter-patterns");
  const { sequence } = goldenValues("adapter-patterns/golden");
  const off = relativeError(
    await model.logits([sequence]),
    goldenFloats(goldenArrays("adapter-patterns/golden"), "logits"),
  );
  assert.ok(off < 1e-5, `${off}`);
  const ranks = loraLayers(model.module).map(([path, layer]) => [path, layer.settingsOf("default").rank]);
  assert.equal(new Map(ranks as [string, number][]).get("model.layers.1.mlp.down_proj"), 3);
  assert.equal(new Map(ranks as [string, number][]).get("model.layers.0.mlp.down_proj"), 2);
  model.dispose();
});

test("adapter-pissa: PEFT's decomposition, its unconverted and its converted file", async () => {
  const arrays = goldenArrays("adapter-pissa/golden");
  const { sequence } = goldenValues("adapter-pissa/golden");
  const base = goldenPath("llama-gqa");
  const fresh = await loadModel(base, quiet).addLora({
    rank: 4,
    alpha: 8,
    target: ["q_proj", "down_proj"],
    init: "pissa",
  });
  for (const [path, layer] of loraLayers(fresh.module)) {
    if (!arrays.has(`residual.${path}`)) continue;
    const rest = await layer.denseBase("test").weight.data();
    const off = relativeError(rest, goldenFloats(arrays, `residual.${path}`));
    assert.ok(off < 1e-5, `${path}: relative error ${off}`);
  }
  fresh.dispose();
  for (const kind of ["adapter", "converted"]) {
    const model = await loadModel(base, quiet).loadAdapter(goldenPath(`adapter-pissa/${kind}`));
    const off = relativeError(await model.logits([sequence]), goldenFloats(arrays, "logits"));
    assert.ok(off < 1e-4, `${kind}: ${off}`);
    model.dispose();
  }
});

test("adapter-tokens: an adapter with more tokens than its base brings their rows along", async () => {
  const model = await loadModel(goldenPath("llama-gqa"), quiet).loadAdapter(goldenPath("adapter-tokens/adapter"));
  assert.equal(model.config.vocabSize, 100);
  const { sequence } = goldenValues("adapter-tokens/golden");
  const off = relativeError(await model.logits([sequence]), goldenFloats(goldenArrays("adapter-tokens/golden"), "logits")); // biome-ignore format: one claim a line
  assert.ok(off < 1e-5, `${off}`);
  model.dispose();
});
