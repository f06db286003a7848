// A GPU's limits: too little memory, and a step that is interrupted. Both leave the process alive and the memory as it was before.
// Under TUNEBOOK_FAKE_CUDA=1 the CPU's ops stand in for the GPU.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { collate } from "../../src/data/collate.js";
import { loadModel, type Model } from "../../src/index.js";
import { cudaFailure, openDevice, recover, setInterruptFlag, settle, stats } from "../../src/tensor/native.js";
import { scope } from "../../src/tensor/scope.js";
import { empty } from "../../src/tensor/tensor.js";
import { accumulateGradients } from "../../src/training/loss.js";

const missing = cudaFailure();
const skip = missing === undefined ? false : `no CUDA device: ${missing}`;
const standIn = process.env.TUNEBOOK_FAKE_CUDA === "1";

/** A Llama that is small for the stand-in, and large enough on a GPU for steps of some length. */
async function model(): Promise<Model> {
  const wide = standIn ? 64 : 2048;
  const config = {
    model_type: "llama",
    vocab_size: 8 * wide,
    hidden_size: wide,
    intermediate_size: 4 * wide,
    num_hidden_layers: standIn ? 4 : 16,
    num_attention_heads: wide / 32,
    num_key_value_heads: wide / 64,
    max_position_embeddings: 4096,
    tie_word_embeddings: false,
  };
  return loadModel(config, { weights: "random", dtype: "bfloat16", device: "cuda", progress: false })
    .quantize({ type: "nf4", doubleQuant: true })
    .addLora({ rank: 8, target: "all-linear" });
}

const LENGTH = standIn ? 128 : 2048;

function rows(count: number, vocab: number): { ids: Int32Array; labels: Int32Array }[] {
  const ids = Int32Array.from({ length: LENGTH }, (_, i) => 3 + ((i * 7919) % (vocab - 3)));
  return Array.from({ length: count }, () => ({ ids, labels: ids }));
}

function pass(m: Model, count: number): void {
  const batch = collate(rows(count, m.config.vocabSize), { padId: 0, paddingSide: "none" });
  scope(() => {
    const sum = empty([1], "float32", "cuda");
    accumulateGradients(m.module, batch, batch.tokens, 0, sum, "none");
  });
}

test("a batch that does not fit ends in an error, and the memory is as before", { skip }, async () => {
  const m = await model();
  pass(m, 1); // gradients and working memory are there from now on
  await settle("cuda");
  const before = stats("cuda").liveBytes;
  // Twice what the device has, by the planner.
  const limit = Number(process.env.TUNEBOOK_CUDA_MEMORY_LIMIT ?? openDevice().memory);
  let count = 1;
  while (m.estimate({ batch: count, length: LENGTH, checkpointing: "none" }).peak < 2 * limit) count *= 2;
  assert.throws(() => pass(m, count), { name: "OutOfMemoryError" });
  await settle("cuda").catch(() => {});
  const after = stats("cuda").liveBytes;
  assert.ok(Math.abs(after / before - 1) < 0.01, `${before} bytes before, ${after} after`);
  pass(m, 1);
  await settle("cuda");
  m.dispose();
});

test("an interrupt stops a step within a second and frees its memory", { skip }, async () => {
  const m = await model();
  pass(m, 1);
  await settle("cuda");
  const before = stats("cuda").liveBytes;
  const flag = new Int32Array(new SharedArrayBuffer(4));
  setInterruptFlag(flag);
  try {
    for (let i = 0; i < 8; i++) pass(m, standIn ? 2 : 8);
    await turn();
    const start = performance.now();
    Atomics.store(flag, 0, 1);
    await assert.rejects(settle("cuda"), { name: "InterruptedError" });
    const ms = performance.now() - start;
    console.log(`stopped after ${ms.toFixed(0)} ms`);
    assert.ok(ms < 1_000, `${ms} ms`);
  } finally {
    Atomics.store(flag, 0, 0);
    recover();
    setInterruptFlag(null);
  }
  await settle("cuda");
  const after = stats("cuda").liveBytes;
  assert.ok(Math.abs(after / before - 1) < 0.01, `${before} bytes before, ${after} after`);
  pass(m, 1);
  await settle("cuda");
  m.dispose();
});
