// Small Llamas on the GPU beside the same on the CPU: loss, gradients, training curves, generation, adapters. Under TUNEBOOK_FAKE_CUDA=1 the
// CPU's ops stand in for the GPU (see stand-in.test.ts).
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { collate } from "../../src/data/collate.js";
import { tokenizeRows } from "../../src/data/tokenize.js";
import { setReplaying } from "../../src/evaluation/decode.js";
import { type Device, loadModel, type Model, tensor } from "../../src/index.js";
import type { QuantizeOptions } from "../../src/quantization/nf4.js";
import type { DTypeName } from "../../src/tensor/dtype.js";
import { cudaFailure, stats } from "../../src/tensor/native.js";
import { seed } from "../../src/tensor/ops/random.js";
import { recordings } from "../../src/tensor/recording.js";
import { accumulateGradients, restoreGradients } from "../../src/training/loss.js";
import { colourRows, smallConfig, withModelFolder } from "../facade/small.js";
import { relativeError } from "../golden.js";

const missing = cudaFailure();
const skip = missing === undefined ? false : `no CUDA device: ${missing}`;
const quiet = { progress: false } as const;

/** One folder with float32 weights, an adapter for the dense and one for the NF4 model. */
let folder = "";
const release: (() => void)[] = [];
let done: Promise<void> | undefined;

interface Kind {
  name: string;
  dtype: DTypeName;
  quantize?: QuantizeOptions;
  adapter?: boolean;
  /** Bound of the relative error of the loss, and of the gradient of all parameters together. */
  loss: number;
  gradient: number;
}
const nf4 = (compute: DTypeName): QuantizeOptions => ({ type: "nf4", doubleQuant: true, compute });
const KINDS: Kind[] = [
  { name: "dense float32, all parameters", dtype: "fp32", loss: 1e-4, gradient: 1e-4 },
  { name: "LoRA over float32", dtype: "fp32", adapter: true, loss: 1e-4, gradient: 1e-4 },
  { name: "LoRA over bfloat16", dtype: "bf16", adapter: true, loss: 1e-2, gradient: 2e-2 },
  { name: "LoRA over float16", dtype: "fp16", adapter: true, loss: 2e-3, gradient: 4e-3 },
  { name: "LoRA over NF4 in float32", dtype: "fp32", quantize: nf4("fp32"), adapter: true, loss: 1e-4, gradient: 1e-4 },
  {
    name: "LoRA over NF4 in bfloat16",
    dtype: "bf16",
    quantize: nf4("bf16"),
    adapter: true,
    loss: 1e-2,
    gradient: 2e-2,
  },
  {
    name: "LoRA over int8 in bfloat16",
    dtype: "bf16",
    quantize: { type: "int8" },
    adapter: true,
    loss: 1e-2,
    gradient: 2e-2,
  },
  {
    name: "LoRA over FP8 in bfloat16, inputs kept",
    dtype: "bf16",
    quantize: { type: "fp8", activations: "keep" },
    adapter: true,
    loss: 1e-2,
    gradient: 2e-2,
  },
  // What differs in its last bits is rounded to another code now and then.
  {
    name: "LoRA over FP8 in float32",
    dtype: "fp32",
    quantize: { type: "fp8" },
    adapter: true,
    loss: 5e-3,
    gradient: 0.12,
  },
  {
    name: "LoRA over FP8 in bfloat16",
    dtype: "bf16",
    quantize: { type: "fp8" },
    adapter: true,
    loss: 1e-2,
    gradient: 0.12,
  },
];

async function load(kind: Kind, device: Device): Promise<Model> {
  const plan = loadModel(folder, { device, dtype: kind.dtype, ...quiet });
  const model = await (kind.quantize ? plan.quantize(kind.quantize) : plan);
  if (kind.adapter) await model.loadAdapter(join(folder, "adapter"));
  assert.equal(model.device, device);
  return model;
}

before(async () => {
  if (skip) return;
  let ready: () => void;
  const made = new Promise<void>((resolve) => (ready = resolve));
  // The folder lives until the last test has ended.
  done = withModelFolder(
    async (path) => {
      folder = path;
      using model = await loadModel(path, { weights: "random", device: "cpu", seed: 3, ...quiet });
      await model.export(path);
      model.addLora({ rank: 8, alpha: 16, dropout: 0.1, target: "all-linear", seed: 5 });
      await model.train(colourRows(16), { steps: 5, batch: 4, lr: 5e-3, ...quiet });
      await model.save(join(path, "adapter"));
      ready();
      await new Promise<void>((resolve) => release.push(resolve));
    },
    { ...smallConfig, num_hidden_layers: 3 },
  );
  await Promise.race([made, done]);
});

after(async () => {
  for (const end of release) end();
  await done;
});

/** Loss of a batch and its gradients, with dropout, in the order of the parameters. */
async function gradients(model: Model): Promise<{ loss: number; gradient: Float32Array }> {
  const { examples } = await tokenizeRows(colourRows(12), model.tokenizer, { maxLength: 64 });
  const batch = collate(examples, { padId: 0, paddingSide: "none" });
  const network = model.module;
  const sum = tensor([0], { device: model.device });
  network.train(true);
  seed(11);
  accumulateGradients(network, batch, 2 * batch.tokens, 0, sum, "selective");
  accumulateGradients(network, batch, 2 * batch.tokens, 0, sum, "selective"); // a second micro-batch adds to the first
  const parameters = network.trainableParameters();
  restoreGradients(network, parameters, 2 * batch.tokens);
  const parts = await Promise.all(parameters.map((p) => p.grad!.data()));
  for (const p of parameters) {
    assert.equal(p.grad!.dtype, "float32");
    assert.equal(p.grad!.device, model.device);
  }
  const loss = await sum.item();
  sum.dispose();
  network.zeroGrad();
  network.train(false);
  return { loss, gradient: Float32Array.from(parts.flatMap((p) => [...p])) };
}

for (const kind of KINDS) {
  test(`loss and gradients of ${kind.name} are the CPU's`, { skip }, async () => {
    using cpu = await load(kind, "cpu");
    using gpu = await load(kind, "cuda");
    assert.equal(gpu.module.activations, gpu.dtype === "float32" ? "float32" : gpu.dtype);
    const want = await gradients(cpu);
    const got = await gradients(gpu);
    const loss = Math.abs(got.loss - want.loss) / want.loss;
    const gradient = relativeError(got.gradient, want.gradient);
    console.log(
      `${kind.name}: loss ${want.loss} off by ${loss.toExponential(1)}, gradient by ${gradient.toExponential(1)}`,
    );
    assert.ok(loss <= kind.loss, `the loss ${got.loss} is not ${want.loss}`);
    assert.ok(gradient <= kind.gradient, `the gradient is off by ${gradient}`);
    const again = await gradients(gpu);
    assert.deepEqual(again, got, "a second run gives other bits");
  });
}

async function curve(kind: Kind, device: Device): Promise<{ losses: number[]; weights: Float32Array[] }> {
  using model = await load(kind, device);
  const options = { steps: 50, batch: 4, accumulate: 2, lr: 2e-3, seed: 1, ...quiet };
  const losses: number[] = [];
  for await (const step of model.train(colourRows(64), options)) losses.push(step.loss, step.gradNorm);
  const weights = await Promise.all(model.module.trainableParameters().map((p) => p.data()));
  return { losses, weights };
}

for (const kind of KINDS.filter((k) => !/int8|FP8|all parameters/.test(k.name))) {
  test(`50 steps of ${kind.name} follow the CPU's curve; two runs are equal bit for bit`, { skip }, async () => {
    const want = await curve(kind, "cpu");
    const got = await curve(kind, "cuda");
    const again = await curve(kind, "cuda");
    assert.deepEqual(again, got);
    // Where the loss has become nearly nothing, its own size is no measure.
    const off = (i: number): number =>
      Math.abs(got.losses[i]! - want.losses[i]!) / Math.max(want.losses[i]!, 0.1 * want.losses[0]!);
    const largest = want.losses.reduce((most, _, i) => (i % 2 === 0 ? Math.max(most, off(i)) : most), 0);
    console.log(`${kind.name}: ${want.losses[0]} to ${want.losses.at(-2)}, off by ${largest.toExponential(1)} at most`);
    assert.ok(want.losses.at(-2)! < want.losses[0]! / 2, "the reference learns");
    assert.ok(largest <= 0.01, `off by ${largest}`);
  });
}

test("greedy texts, one by one and several at once, are the CPU's in float32", { skip }, async () => {
  const kind = KINDS[1]!;
  using cpu = await load(kind, "cpu");
  using gpu = await load(kind, "cuda");
  const prompts = ["The sea is", "Once", "The grass is green and the"];
  const options = { maxNewTokens: 24 };
  const want: string[] = [];
  for (const prompt of prompts) want.push(await cpu.generate(prompt, options));
  for (const [i, prompt] of prompts.entries()) assert.equal(await gpu.generate(prompt, options), want[i]);
  assert.deepEqual(await gpu.generate(prompts, { ...options, batch: 2 }), want);
  const penalised = { ...options, repetitionPenalty: 1.3 };
  assert.equal(await gpu.generate("Once", penalised), await cpu.generate("Once", penalised));
  const measured = await gpu.evaluate(colourRows(8), { metrics: ["loss", "accuracy", "classification"], ...quiet });
  const wanted = await cpu.evaluate(colourRows(8), { metrics: ["loss", "accuracy", "classification"], ...quiet });
  assert.ok(Math.abs(measured.loss! / wanted.loss! - 1) < 1e-4);
  assert.equal(measured.accuracy, wanted.accuracy);
});

test("decoding by graphs gives the ids of decoding op by op, for 1, 3 and 33 sequences", { skip }, async () => {
  const words = ["The sea is", "Once", "The grass is green and the", "coal", "A rose", "x"];
  for (const kind of [KINDS[1]!, KINDS[2]!, KINDS[5]!, KINDS[6]!]) {
    using model = await load(kind, "cuda");
    await model.generate("Once", { maxNewTokens: 100 }); // tables of positions are made
    for (const count of [1, 3, 33]) {
      const prompts = Array.from({ length: count }, (_, i) => `${words[i % words.length]} ${"a".repeat(i % 5)}`);
      for (const options of [
        { maxNewTokens: 40 },
        { maxNewTokens: 24, temperature: 0.9, topK: 40, topP: 0.95, seed: 3, repetitionPenalty: 1.1 },
      ]) {
        const before = stats("cuda");
        const launches = recordings("cuda").wholeLaunches;
        const graphs = await model.generate(prompts, { ...options, batch: count });
        const whole = recordings("cuda").wholeLaunches - launches;
        setReplaying(false);
        try {
          assert.deepEqual(await model.generate(prompts, { ...options, batch: count }), graphs, kind.name);
        } finally {
          setReplaying(true);
        }
        const { alive, captureError } = recordings("cuda");
        assert.ok(whole > 0, `${kind.name}, ${count}: no step was launched as a graph (${captureError})`);
        assert.equal(alive, 0);
        assert.equal(stats("cuda").handles, before.handles);
      }
    }
  }
});

test("16-bit activations generate, sample, score and chat", { skip }, async () => {
  for (const kind of KINDS.filter((k) => k.dtype !== "fp32")) {
    using cpu = await load(kind, "cpu");
    using gpu = await load(kind, "cuda");
    const rows = [[5, 6, 7, 8, 9, 10]];
    const error = relativeError(await gpu.logits(rows), await cpu.logits(rows));
    assert.ok(error < 0.02, `${kind.name}: logits off by ${error}`);
    const sampled = { maxNewTokens: 8, temperature: 1, topK: 20, topP: 0.9, seed: 4, repetitionPenalty: 1.2 };
    assert.equal(await gpu.generate("Once", sampled), await gpu.generate("Once", sampled));
    await gpu.chat([{ role: "user", content: "Hello" }], { maxNewTokens: 4 });
    await gpu.generate(["Once", "The sea is"], { maxNewTokens: 4 });
  }
});

test("an adapter trained on the GPU is saved, loaded on the CPU, merged and exported", { skip }, async () => {
  const handles = stats("cuda").handles;
  const out = await mkdtemp(join(tmpdir(), "tunebook-cuda-"));
  try {
    const kind = KINDS[4]!;
    const gpu = await load(kind, "cuda");
    await gpu.train(colourRows(8), { steps: 3, lr: 1e-2, ...quiet });
    await gpu.save(join(out, "adapter"));
    const header = (await readFile(join(out, "adapter", "adapter_model.safetensors"))).toString("latin1", 8, 400);
    assert.match(header, /"dtype":"F32"/);
    const rows = [[5, 6, 7, 8, 9, 10]];
    const want = await gpu.logits(rows);
    {
      using cpu = await loadModel(folder, { device: "cpu", ...quiet })
        .quantize(kind.quantize!)
        .loadAdapter(join(out, "adapter"));
      assert.ok(relativeError(await cpu.logits(rows), want) < 1e-4);
    }
    assert.ok((await gpu.merge()).difference < 1e-3);
    await gpu.export(join(out, "merged"));
    using merged = await loadModel(join(out, "merged"), { device: "cpu", ...quiet });
    assert.ok(relativeError(await merged.logits(rows), want) < 1e-4);
    const memory = gpu.memory();
    assert.equal(memory.device, "cuda");
    assert.match(gpu.summary().toText(), /on cuda/);
    gpu.dispose();
    assert.equal(stats("cuda").handles, handles, "tensors were left behind");
  } finally {
    await rm(out, { recursive: true });
  }
});
