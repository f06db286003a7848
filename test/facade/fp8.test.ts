import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Random } from "../../src/data/random.js";
import { embeddedModel, loadModel, type Model, type QuantizeOptions } from "../../src/index.js";
import { adaptedNorms, rowSquares } from "../../src/lora/norms.js";
import { QuantizedLinear } from "../../src/quantization/nf4.js";
import { stats } from "../../src/tensor/native.js";
import { type Fp8Weight, quantizeFp8 } from "../../src/tensor/ops/fp8.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";
import { relativeError } from "../golden.js";
import { colourRows, smallConfig, withModelFolder } from "./small.js";

const quiet = { progress: false } as const;
const STEPS = 60;

async function adapted(folder: string, quantize?: QuantizeOptions): Promise<Model> {
  const plan = loadModel(folder, { weights: "random", seed: 3, ...quiet });
  return (quantize ? plan.quantize(quantize) : plan).addLora({
    rank: 8,
    alpha: 16,
    target: "all-linear",
    seed: 5,
  });
}

/** Losses of batches of far more than 64 tokens, so that inputs are rounded where they may be. */
async function losses(folder: string, quantize?: QuantizeOptions): Promise<number[]> {
  using model = await adapted(folder, quantize);
  const options = { steps: STEPS, batch: 32, lr: 3e-3, seed: 1, ...quiet };
  const out: number[] = [];
  for await (const step of model.train(colourRows(64), options)) out.push(step.loss);
  return out;
}

/** The mean distance of two loss curves, relative to the reference's mean. */
function distance(curve: readonly number[], reference: readonly number[]): number {
  assert.equal(curve.length, reference.length);
  const total = reference.reduce((sum, v) => sum + v, 0);
  return curve.reduce((sum, v, i) => sum + Math.abs(v - reference[i]!), 0) / total;
}

// The first one, because it counts tensors: what a test that generates leaves behind goes with the next garbage collection.
test("an FP8 model says what it is, and is saved, merged and loaded as others are", () =>
  withModelFolder(async (folder) => {
    const out = await mkdtemp(join(tmpdir(), "tunebook-fp8-"));
    const handles = stats().handles;
    try {
      await savesAndMerges(folder, out);
    } finally {
      await rm(out, { recursive: true });
    }
    assert.equal(stats().handles, handles, "tensors were left behind");
  }));

test("training over FP8, with inputs rounded and kept, follows the unquantised model within 1%", async () => {
  const file = fileURLToPath(new URL("../../../notebooks/data/dialogues.jsonl", import.meta.url));
  const lines = readFileSync(file, "utf8").trim().split("\n").slice(0, 160);
  const rows = lines.map((line) => {
    const { dialogue, summary } = JSON.parse(line) as { dialogue: string; summary: string };
    return { prompt: `${dialogue}\n`, completion: summary };
  });
  const curve = async (quantize?: QuantizeOptions): Promise<number[]> => {
    const plan = loadModel(embeddedModel(), quiet);
    using model = await (quantize ? plan.quantize(quantize) : plan).addLora({ rank: 8, target: "all-linear", seed: 5 });
    const out: number[] = [];
    for await (const step of model.train(rows, { steps: 40, batch: 4, lr: 1e-3, seed: 1, ...quiet }))
      out.push(step.loss);
    return out;
  };
  const reference = await curve();
  assert.ok(reference.at(-1)! < 0.8 * reference[0]!, "the reference learns");
  for (const activations of ["fp8", "keep"] as const) {
    const d = distance(await curve({ type: "fp8", activations }), reference);
    assert.ok(d < 0.01, `${activations}: ${d}`);
  }
});

test("training over FP8 gives the same bits twice, and others where inputs are kept", () =>
  withModelFolder(async (folder) => {
    const reference = await losses(folder);
    const rounded = await losses(folder, { type: "fp8" });
    assert.deepEqual(await losses(folder, { type: "fp8", activations: "fp8" }), rounded);
    const kept = await losses(folder, { type: "fp8", activations: "keep" });
    assert.notDeepEqual(kept, rounded);
    // The model is small and random: there each digit of a weight counts.
    for (const curve of [rounded, kept]) assert.ok(distance(curve, reference) < 0.04, `${distance(curve, reference)}`);
  }));

test("DoRA over FP8 measures the weight itself, whatever its rank", async () => {
  const random = new Random(7);
  const numbers = (...shape: [number, number]): Tensor =>
    tensor(
      Float32Array.from({ length: shape[0] * shape[1] }, () => random.nextFloat() - 0.5),
      shape,
    );
  const [w, a, b] = [numbers(30, 50), numbers(70, 50), numbers(30, 70)];
  using packed = quantizeFp8(w);
  using dense = packed.restore();
  const squares = rowSquares(packed);
  const wanted = await adaptedNorms(squares, dense, a, b, 0.5).data();
  assert.ok(relativeError(await adaptedNorms(squares, packed, a, b, 0.5).data(), wanted) < 1e-5);
});

test("inputs are rounded from 64 rows on, and only if asked", () =>
  withModelFolder(async (folder) => {
    const load = (q: QuantizeOptions): PromiseLike<Model> =>
      loadModel(folder, { weights: "random", seed: 3, ...quiet }).quantize(q);
    using rounded = await load({ type: "fp8" });
    using kept = await load({ type: "fp8", activations: "keep" });
    const ids = (n: number): number[] => Array.from({ length: n }, (_, i) => (i * 31 + 5) % 340);
    assert.deepEqual(await rounded.logits([ids(63)]), await kept.logits([ids(63)]));
    const error = relativeError(await rounded.logits([ids(64)]), await kept.logits([ids(64)]));
    assert.ok(error > 1e-3 && error < 0.2, `${error}`);
    // Decoding is one row at a time.
    const text = { maxNewTokens: 12 };
    assert.equal(await rounded.generate("The sea is", text), await kept.generate("The sea is", text));
  }));

async function savesAndMerges(folder: string, out: string): Promise<void> {
  using model = await adapted(folder, { type: "fp8" });
  const name = "model.layers.0.mlp.up_proj.base_layer.weight";
  assert.equal(model.parameters().find((p) => p.name === name)?.dtype, "fp8");
  await model.train(colourRows(16), { steps: 4, batch: 16, lr: 1e-2, ...quiet });
  const probe = [Array.from({ length: 40 }, (_, i) => (i * 31 + 5) % 340)];
  const before = await model.logits(probe);
  await model.save(join(out, "adapter"));
  using again = await loadModel(folder, { weights: "random", seed: 3, ...quiet })
    .quantize({ type: "fp8" })
    .loadAdapter(join(out, "adapter"));
  assert.deepEqual(await again.logits(probe), before);
  const report = await model.merge();
  assert.match(report.base, /14 quantised layers restored/);
  assert.ok(relativeError(await model.logits(probe), before) < 1e-4);
  await model.export(join(out, "merged"));
  using merged = await loadModel(join(out, "merged"), quiet);
  assert.ok(relativeError(await merged.logits(probe), before) < 1e-4);
}

test("one scale an output, a byte a weight", async () => {
  using model = await loadModel(smallConfig, { weights: "random", seed: 3, ...quiet }).quantize({ type: "fp8" });
  let layers = 0;
  for (const [name, m] of model.module.namedModules()) {
    if (!(m instanceof QuantizedLinear)) continue;
    layers++;
    const w = m.quantized as Fp8Weight;
    assert.equal(w.bytes, m.outFeatures * m.inFeatures + 4 * m.outFeatures, name);
    assert.deepEqual(w.scale.shape, [m.outFeatures], name);
    assert.equal(m.ownBytes(), w.bytes);
    const dense = await w.restore().data();
    assert.ok(dense.some((v) => v !== 0) && dense.every(Number.isFinite), name);
  }
  assert.equal(layers, 14);
});

test("wrong options are refused by name", async () => {
  const plan = (o: object): unknown => loadModel(smallConfig, { weights: "random" }).quantize(o as QuantizeOptions);
  const fails = (o: object, words: RegExp): void =>
    assert.throws(
      () => plan(o),
      (e: Error) => e.name === "ConfigError" && words.test(e.message),
    );
  fails({ type: "fp8", activations: "int8" }, /activations must be "fp8" or "keep", received "int8"/);
  fails({ type: "nf4", activations: "keep" }, /activations belongs to type "fp8".*nf4/);
  fails({ type: "fp8", doubleQuant: true }, /doubleQuant and blockSize.*fp8 has one scale an output/);
  fails({ type: "fp8", blockSize: 64 }, /doubleQuant and blockSize/);
});
