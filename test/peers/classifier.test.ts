import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backward } from "../../src/autograd/tape.js";
import { collate } from "../../src/data/collate.js";
import type { Example } from "../../src/data/mask.js";
import { headLogits } from "../../src/evaluation/head.js";
import { rowsOf } from "../../src/evaluation/loss.js";
import type { Model } from "../../src/model.js";
import { loadModel } from "../../src/plan.js";
import { scope } from "../../src/tensor/scope.js";
import { tensor } from "../../src/tensor/tensor.js";
import { trainLoop } from "../../src/training/loop.js";
import { type TrainOptions, trainSettings } from "../../src/training/options.js";
import { goldenArrays, goldenFloats, goldenPath, goldenValues, relativeError } from "../golden.js";

interface Row {
  ids: number[];
  class: number;
}
const golden = goldenValues("classifier/golden");
const arrays = goldenArrays("classifier/golden");
const rows = golden.rows as Row[];
const options = { ...golden.options, steps: golden.steps, method: "classification" } as TrainOptions;
const full = (): PromiseLike<Model> => loadModel(goldenPath("classifier"), { progress: false });
const adapted = (which: "init" | "final"): PromiseLike<Model> =>
  loadModel(goldenPath("classifier"), { progress: false }).loadAdapter(goldenPath(`classifier/${which}`));

const examples: Example[] = rows.map((row) => {
  const labels = new Int32Array(row.ids.length + 1).fill(-100);
  labels[row.ids.length] = row.class;
  return { ids: Int32Array.from(row.ids), labels };
});

async function logitsOf(model: Model, batch = 3): Promise<number[]> {
  return (
    await headLogits(
      model.module,
      rows.map(({ ids }) => ids),
      { batch },
    )
  ).flat();
}

async function losses(model: Model, more: TrainOptions = {}, together = 1): Promise<number[]> {
  const settings = trainSettings({ shuffle: false, progress: false, ...options, ...more });
  const input = {
    model: model.module,
    train: examples,
    rows: Array.from({ length: examples.length / together }, (_, i) =>
      Int32Array.from({ length: together }, (_, j) => i * together + j),
    ),
    settings,
  };
  const found: number[] = [];
  for await (const step of trainLoop(input)) found.push(step.loss);
  return found;
}

function near(got: readonly number[], want: readonly number[], limit: number): void {
  assert.equal(got.length, want.length);
  got.forEach((value, i) => {
    assert.ok(Math.abs(value - want[i]!) <= limit, `step ${i + 1}: ${value}, torch has ${want[i]}`);
  });
}

for (const [title, load] of [
  ["full", full],
  ["lora", () => adapted("final")],
] as const) {
  test(`${title}: transformers' logits, loss and gradients`, async () => {
    const model = await load();
    assert.deepEqual(model.labels, golden.labels);
    for (const batch of [1, 3, 8]) {
      const off = relativeError(await logitsOf(model, batch), goldenFloats(arrays, `logits.${title}`));
      assert.ok(off < 1e-4, `batch ${batch}: relative error of the logits ${off}`);
    }
    const batch = collate(examples, { paddingSide: "right", padId: 0 });
    assert.equal(batch.tokens, rows.length);
    const total = scope(() => {
      const hidden = model.module.hidden(rowsOf(model.module, batch));
      const { total } = model.module.headLoss(hidden, tensor(batch.labels, { device: model.device }), 1 / rows.length);
      backward(total);
      return total;
    });
    assert.ok(Math.abs((await total.item()) - golden[`loss.${title}`]) < 1e-5);
    const wanted = [...arrays.keys()].filter((key) => key.startsWith(`gradient.${title}.`));
    // In memory PEFT calls an adapter's copy of the head modules_to_save.default, and puts .default behind A and B.
    const name = (key: string): string => key.slice(`gradient.${title}.`.length).replace(/^base_model\.model\./, "");
    const found = new Map([...model.module.namedParameters()].filter(([, p]) => p.requiresGrad));
    assert.deepEqual([...found.keys()].sort(), wanted.map(name).sort());
    for (const key of wanted) {
      const off = relativeError(await found.get(name(key))!.grad!.data(), goldenFloats(arrays, key));
      assert.ok(off < 1e-3, `${key}: relative error ${off}`);
    }
    model.dispose();
  });
}

test("ten steps of full fine-tuning, and of PEFT's adapter with its head, have torch's losses", async () => {
  for (const [model, key] of [
    [await full(), "losses.full"],
    [await adapted("init"), "losses.lora"],
  ] as const) {
    near(await losses(model), golden[key], 1e-3);
    if (key === "losses.lora") {
      const off = relativeError(await logitsOf(model), goldenFloats(arrays, "logits.lora"));
      assert.ok(off < 1e-3, `logits after the steps: ${off}`);
    }
    model.dispose();
  }
});

test("padding, packing and the split into micro-batches change no loss", async () => {
  const reference = await full();
  const want = await losses(reference);
  reference.dispose();
  for (const more of [
    { paddingSide: "right" },
    { paddingSide: "left" },
    { batch: 2, accumulate: 2 },
    { batch: 1, accumulate: 4 },
  ] as TrainOptions[]) {
    const model = await full();
    near(await losses(model, more), want, 1e-5);
    model.dispose();
  }
  const packed = await full();
  near(await losses(packed, { batch: 2 }, 2), want, 1e-5);
  packed.dispose();
});

test("PEFT's files survive a round trip; merged and exported, the model gives the same", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-classifier-"));
  try {
    const model = await adapted("final");
    await model.save(folder);
    const read = async (path: string): Promise<unknown> => JSON.parse(await readFile(path, "utf8"));
    assert.deepEqual(
      await read(join(folder, "adapter_config.json")),
      await read(goldenPath("classifier/final/adapter_config.json")),
    );
    assert.deepEqual(
      await readFile(join(folder, "adapter_model.safetensors")).then((b) => b.length),
      await readFile(goldenPath("classifier/final/adapter_model.safetensors")).then((b) => b.length),
    );
    const again = await loadModel(goldenPath("classifier"), { progress: false }).loadAdapter(folder);
    assert.deepEqual(await logitsOf(again), await logitsOf(model));
    again.dispose();
    const before = await logitsOf(model);
    await model.merge();
    assert.ok(relativeError(await logitsOf(model), before) < 1e-4);
    await model.export(join(folder, "merged"));
    const merged = await loadModel(join(folder, "merged"), { progress: false });
    assert.deepEqual(merged.labels, golden.labels);
    assert.ok(relativeError(await logitsOf(merged), before) < 1e-4);
    merged.dispose();
    model.dispose();
  } finally {
    await rm(folder, { recursive: true });
  }
});
