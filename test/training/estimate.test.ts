import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { tapeLength } from "../../src/autograd/tape.js";
import { ConfigError, type EstimateOptions, loadModel, type Model } from "../../src/index.js";
import { stats } from "../../src/tensor/native.js";
import { randomState } from "../../src/tensor/ops/random.js";
import { LLAMA3_8B, SMOLLM2_135M } from "../models/shapes.js";
import { measure, SMALL } from "./measured.js";
import { measuredPeak } from "./peak.js";

const embedded = fileURLToPath(new URL("../../../notebooks/embedded/model", import.meta.url));

async function compare(model: Model, cases: readonly (EstimateOptions & { batch: number; length: number })[]) {
  for (const options of cases) {
    const { handles, liveBytes } = stats();
    const random = randomState();
    const estimate = model.estimate(options);
    assert.equal(stats().handles, handles, "an estimate left tensors behind");
    assert.equal(stats().liveBytes, liveBytes);
    assert.deepEqual(randomState(), random);
    assert.equal(tapeLength(), 0);
    const peak = await measuredPeak(model, options);
    const { weights, adapters, gradients, optimizer, activations } = estimate;
    assert.equal(estimate.peak, weights + adapters + gradients + optimizer + activations);
    assert.ok(
      Math.abs(estimate.peak / peak - 1) < 0.1,
      `${JSON.stringify(options)}: ${estimate.peak} predicted, ${peak} measured`,
    );
    assert.ok(Math.abs(estimate.activations + gradients - (peak - liveBytes - optimizer)) < 0.1 * peak);
  }
}

test("the embedded model's steps take what was predicted, in every mode and with every optimizer", async () => {
  const model = await loadModel(embedded, { device: "cpu", progress: false });
  await compare(model, [
    { batch: 2, length: 64, optimizer: "adamw" },
    { batch: 4, length: 128, optimizer: "adamw8bit", checkpointing: "full" },
  ]);
  model.addLora({ rank: 16, target: "all-linear", dropout: 0.1 });
  await compare(model, [
    { batch: 1, length: 32 },
    { batch: 8, length: 200, checkpointing: "none" },
    { batch: 8, length: 200, checkpointing: "selective", optimizer: "paged-adamw8bit" },
    { batch: 8, length: 200, checkpointing: "full", accumulate: 3 },
    { batch: 3, length: 77, checkpointing: "offload", optimizer: "sgd" },
  ]);
  model.dispose();
  const quantised = await loadModel(embedded, { device: "cpu", progress: false })
    .quantize({ type: "nf4", doubleQuant: true })
    .addLora({ rank: 8 });
  await compare(quantised, [{ batch: 4, length: 256 }]);
  quantised.dispose();
});

// node scripts/check-estimates.mjs does the same with larger models.
test("steps of every method are predicted from the config alone within 10% of what they take in a process of their own", async () => {
  for (const one of SMALL) {
    const { predicted, measured } = await measure(one);
    assert.ok(Math.abs(predicted / measured - 1) < 0.1, `${one.name}: ${predicted} predicted, ${measured} measured`);
  }
});

test("so does a model of SmolLM2-135M's shape, and the largest batch is found", async () => {
  const model = await loadModel(SMOLLM2_135M, { device: "cpu", weights: "random", dtype: "bfloat16" }).addLora({
    rank: 16,
    target: "all-linear",
  });
  await compare(model, [
    { batch: 2, length: 64 },
    { batch: 2, length: 64, checkpointing: "full", optimizer: "adamw8bit" },
  ]);
  const mebibyte = 2 ** 20;
  const limit = 800 * mebibyte;
  const e = model.estimate({ batch: 4, length: 256, limit });
  assert.ok(!e.fits);
  const largest = e.largestBatch();
  assert.ok(largest >= 1 && largest < 4);
  assert.ok(model.estimate({ batch: largest, length: 256, limit }).fits);
  assert.ok(!model.estimate({ batch: largest + 1, length: 256, limit }).fits);
  assert.match(e.advice(), /Batch 4 fits with checkpointing: "full"\. The largest batch below .* with "selective"/);
  assert.match(model.estimate({ limit: 300 * mebibyte }).advice(), /Not even a batch of 1 fits/);
  assert.match(
    e.toTable().toText(),
    /weights[\s\S]*adapters[\s\S]*gradients[\s\S]*optimizer[\s\S]*activations[\s\S]*logits[\s\S]*peak/,
  );
  model.dispose();
});

test("a model without weights can be estimated, for a GPU too, with 16-bit activations", async () => {
  const plan = loadModel(SMOLLM2_135M, { weights: "none", dtype: "bfloat16" });
  const model = await plan.quantize({ type: "nf4", doubleQuant: true, compute: "bf16" }).addLora({
    rank: 16,
    target: "all-linear",
  });
  const options = { batch: 8, length: 512, device: "cuda", optimizer: "paged-adamw" } as const;
  const half = model.estimate(options);
  const full = model.estimate({ ...options, activations: "float32" });
  assert.ok(half.activations > 0.4 * full.activations && half.activations < 0.62 * full.activations);
  assert.ok(half.logits > 0 && half.scratch > 0);
  assert.equal(
    half.peak,
    half.weights + half.adapters + half.gradients + half.optimizer + half.activations + half.logits + half.scratch,
  );
  const [none, selective, all, offload] = (["none", "selective", "full", "offload"] as const).map((checkpointing) =>
    model.estimate({ ...options, checkpointing, optimizer: "adamw8bit" }),
  );
  assert.ok(none!.activations > selective!.activations && selective!.activations > all!.activations);
  assert.ok(all!.activations > offload!.activations && offload!.host >= 29 * 8 * 512 * 576 * 2);
  assert.ok(offload!.optimizer < 0.4 * model.estimate({ ...options, optimizer: "adamw" }).optimizer);
  for (const wrong of [
    { batch: 0 },
    { length: 1.5 },
    { checkpointing: "some" },
    { device: "tpu" },
    { activations: "int" },
    { imageTokens: [4] }, // it takes text alone
  ])
    assert.throws(() => model.estimate(wrong as EstimateOptions), ConfigError);
  model.dispose();
});

test("images of rows are counted where the model sees, on a GPU that is not there too", async () => {
  const model = await loadModel(
    {
      model_type: "qwen2_vl",
      hidden_size: 1536,
      intermediate_size: 8960,
      num_hidden_layers: 28,
      num_attention_heads: 12,
      num_key_value_heads: 2,
      vocab_size: 151936,
      tie_word_embeddings: true,
      rope_scaling: { type: "mrope", mrope_section: [16, 24, 24] },
      vision_config: { depth: 32, embed_dim: 1280, num_heads: 16, hidden_size: 1536 },
    },
    { weights: "none", dtype: "bfloat16" },
  ).addLora({ rank: 8 });
  const step = { batch: 1, length: 4200, device: "cuda", checkpointing: "full", optimizer: "adamw" } as const;
  const text = model.estimate(step);
  const seeing = model.estimate({ ...step, imageTokens: [4096] });
  // A frozen tower keeps nothing, but its MLP alone holds (16,384, 5,120) twice in 16 bits.
  assert.ok(seeing.activations > 2 * 16_384 * 5120 * 2, `${seeing.activations} bytes`);
  const same = model.estimate({ ...step, imageTokens: [2048, 2048] });
  assert.ok(Math.abs(same.activations / seeing.activations - 1) < 0.01);
  const few = model.estimate({ ...step, imageTokens: [4] });
  assert.ok(Math.abs(few.peak / text.peak - 1) < 0.01, "an image of four tokens takes next to nothing");
  for (const imageTokens of [[4200], [0], [1.5]])
    assert.throws(() => model.estimate({ ...step, imageTokens }), /imageTokens must be whole numbers/);
  assert.throws(() => model.estimate({ ...step, method: "dpo", imageTokens: [4] }), /rows of dpo are text alone/);
  model.dispose();
});

test("a step of Llama-3-8B's shape, 4 x 2048 tokens, fits where it should", async () => {
  const step = { batch: 4, length: 2048, device: "cuda", optimizer: "adamw8bit" } as const;
  for (const [dropout, full, offload] of [
    [0, 8.7, 7],
    [0.05, 8.9, 7],
  ] as const) {
    const model = await loadModel(LLAMA3_8B, { weights: "none", dtype: "bfloat16" })
      .quantize({ type: "nf4", doubleQuant: true, compute: "bf16" })
      .addLora({ rank: 16, target: "all-linear", dropout });
    for (const [checkpointing, gibibytes] of [
      ["selective", 29.5],
      ["full", full],
      ["offload", offload],
    ] as const) {
      const { peak } = model.estimate({ ...step, checkpointing });
      assert.ok(peak < gibibytes * 2 ** 30, `${checkpointing}: ${peak / 2 ** 30} GiB`);
    }
    model.dispose();
  }
});

test("out of memory: the error shows the parts and what would fit, and what would fit does", () => {
  const child = spawnSync(process.execPath, [fileURLToPath(new URL("estimate-child.js", import.meta.url))], {
    env: { ...process.env, TUNEBOOK_MEMORY_LIMIT: String(40 * 2 ** 20), NODE_TEST_CONTEXT: undefined },
    encoding: "utf8",
  });
  assert.equal(child.status, 0, child.stderr);
  const { message, before, after, batch, losses } = JSON.parse(child.stdout) as {
    message: string;
    before: number;
    after: number;
    batch: number;
    losses: number[];
  };
  assert.match(message, /Not enough memory for a tensor/);
  assert.match(message, /activations[\s\S]*peak[\s\S]*limit/);
  assert.match(message, /The largest batch below/);
  assert.ok(Math.abs(after / before - 1) < 0.01, `${before} bytes before, ${after} after`);
  assert.ok(batch >= 1 && losses.every(Number.isFinite) && losses.length === 3);
});
