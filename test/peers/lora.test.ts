import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ConfigError } from "../../src/errors.js";
import type { Model } from "../../src/model.js";
import { loadModel } from "../../src/plan.js";
import type { TrainOptions } from "../../src/training/options.js";
import { goldenArrays, goldenFloats, goldenPath, goldenValues, relativeError } from "../golden.js";
import { trainOn } from "./train.js";

/** The adapter's matrices by PEFT's names. */
async function matrices(model: Model): Promise<Map<string, Float32Array>> {
  const found = new Map<string, Float32Array>();
  for (const [name, p] of model.module.namedParameters()) {
    if (!name.includes("lora_")) continue;
    const key = `base_model.model.${name.replace(".default.weight", ".weight")}`;
    found.set(key, (await p.data()) as Float32Array);
  }
  return found;
}

async function load(quantized: string | null): Promise<Model> {
  const plan = loadModel(goldenPath("llama-gqa"), { dtype: "float32", progress: false });
  return quantized === null ? plan : plan.quantize({ type: "nf4" });
}

for (const name of ["lora", "lora-schedule", "lora-nf4"]) {
  const values = goldenValues(`${name}/golden`);
  const { lr, weightDecay, maxGradNorm, schedule, warmup, accumulate } = values.options;
  const options: TrainOptions = { steps: 20, lr, weightDecay, maxGradNorm, schedule, warmup };

  test(`${name}: 20 steps give the losses, norms and matrices of PEFT and torch`, async () => {
    const model = await load(values.quantized);
    await model.loadAdapter(goldenPath(`${name}/init`));
    const steps = await trainOn(model, values.rows, { ...options, batch: 2, accumulate });
    const error = (got: number[], want: number[]): number => relativeError(got, want);
    assert.ok(error(steps.map((s) => s.loss), values.losses) < 1e-4, `losses ${steps.map((s) => s.loss)}`); // biome-ignore format: one claim a line
    assert.ok(error(steps.map((s) => s.lr), values.rates) < 1e-12, `rates ${steps.map((s) => s.lr)}`); // biome-ignore format: one claim a line
    assert.ok(error(steps.map((s) => s.gradNorm), values.gradNorms) < 1e-3, `norms ${steps.map((s) => s.gradNorm)}`); // biome-ignore format: one claim a line
    const trained = await matrices(model);
    const expected = goldenArrays(`${name}/final/adapter_model`);
    assert.deepEqual([...trained.keys()].sort(), [...expected.keys()].sort());
    for (const [key, got] of trained) {
      const off = relativeError(got, goldenFloats(expected, key));
      assert.ok(off < 2e-3, `${key}: relative error ${off}`);
    }
    const logits = await model.logits([values.sequence]);
    assert.ok(relativeError(logits, goldenFloats(goldenArrays(`${name}/golden`), "logits")) < 2e-3);
    model.dispose();
  });
}

for (const name of ["lora", "lora-schedule", "adapter-rslora"]) {
  const folder = goldenPath(`${name}/${existsSync(goldenPath(`${name}/adapter`)) ? "adapter" : "final"}`);

  test(`an adapter that PEFT saved (${name}) loads with PEFT's logits, and switches off`, async () => {
    const model = await loadModel(goldenPath("llama-gqa"), { progress: false }).loadAdapter(folder);
    const arrays = goldenArrays(`${name}/golden`);
    const { sequence } = goldenValues(`${name}/golden`);
    const adapted = await model.logits([sequence]);
    const error = relativeError(adapted, goldenFloats(arrays, "logits"));
    assert.ok(error < 1e-5, `relative error ${error}`);
    const plain = await model.withoutAdapter(() => model.logits([sequence]));
    assert.ok(relativeError(plain, goldenFloats(arrays, "logits.base")) < 1e-5);
    model.dispose();
  });
}

test("an adapter whose ranks differ by layer is loaded exactly or refused, never loaded wrongly", async () => {
  const plan = loadModel(goldenPath("llama-gqa"), { progress: false }).loadAdapter(
    goldenPath("adapter-patterns/adapter"),
  );
  const model = await plan.then(
    (m) => m,
    (error: unknown) => {
      assert.ok(error instanceof ConfigError, String(error));
      assert.match(error.message, /rank_pattern|alpha_pattern/);
    },
  );
  if (!model) return;
  const logits = await model.logits([goldenValues("adapter-patterns/golden").sequence]);
  assert.ok(relativeError(logits, goldenFloats(goldenArrays("adapter-patterns/golden"), "logits")) < 1e-5);
  model.dispose();
});

test("a saved adapter is read back with the same bytes and the same logits", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-adapter-"));
  const { sequence } = goldenValues("lora/golden");
  try {
    const first = await loadModel(goldenPath("llama-gqa"), { progress: false }).loadAdapter(goldenPath("lora/final"));
    const before = await first.logits([sequence]);
    await first.save(folder);
    const second = await loadModel(goldenPath("llama-gqa"), { progress: false }).loadAdapter(folder);
    const after = await second.logits([sequence]);
    assert.deepEqual(Float32Array.from(after), Float32Array.from(before));
    assert.deepEqual(await matrices(second), await matrices(first));
    first.dispose();
    second.dispose();
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("how a step is split into micro-batches, and on which side rows are padded, does not change the run", async () => {
  const values = goldenValues("lora-schedule/golden");
  const { lr, weightDecay, maxGradNorm, schedule, warmup } = values.options;
  const losses: number[][] = [];
  for (const [batch, accumulate, paddingSide] of [
    [4, 1, "right"],
    [4, 1, "left"],
    [2, 2, "right"],
    [1, 4, "left"],
    [4, 1, "none"],
    [2, 2, "none"],
  ] as const) {
    const model = await load(null);
    await model.loadAdapter(goldenPath("lora-schedule/init"));
    const options: TrainOptions = { steps: 20, lr, weightDecay, maxGradNorm, schedule, warmup };
    const steps = await trainOn(model, values.rows, { ...options, batch, accumulate, paddingSide });
    losses.push(steps.map((s) => s.loss));
    model.dispose();
  }
  for (const other of losses.slice(1)) {
    const error = relativeError(other, losses[0]!);
    assert.ok(error < 1e-5, `relative error ${error}`);
  }
});

test("after three steps every A and B of a new adapter has changed", async () => {
  const model = (await load("nf4")).addLora({ rank: 4, target: "all-linear", seed: 3 });
  const { rows } = goldenValues("lora/golden");
  const before = await matrices(model);
  const steps = await trainOn(model, rows, { steps: 3, batch: 8, lr: 1e-2, schedule: "constant" });
  assert.ok(steps.every((s) => s.gradNorm > 0), `norms ${steps.map((s) => s.gradNorm)}`); // biome-ignore format: one claim a line
  const after = await matrices(model);
  assert.equal(after.size, 28);
  for (const [key, values] of after) {
    assert.ok(relativeError(values, before.get(key)!) > 1e-3, `${key} did not change`);
  }
  model.dispose();
});

test("the seed decides an adapter's first values", async () => {
  const first: Map<string, Float32Array>[] = [];
  for (const seed of [7, 7, 8]) {
    const model = (await load(null)).addLora({ rank: 4, target: "all-linear", seed });
    await model.logits([[1, 2, 3]]);
    first.push(await matrices(model));
    model.dispose();
  }
  const key = [...first[0]!.keys()].find((name) => name.includes("lora_A"))!;
  assert.deepEqual(first[0], first[1]);
  assert.notDeepEqual(first[0]!.get(key), first[2]!.get(key));
});
