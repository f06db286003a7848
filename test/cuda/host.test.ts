// A GPU's host memory: copies beside the operations, offloaded activations, paged optimizer states.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Checkpointing } from "../../src/autograd/checkpoint.js";
import { collate } from "../../src/data/collate.js";
import { loadModel, type Model, tensor } from "../../src/index.js";
import type { LlamaForCausalLM } from "../../src/models/llama.js";
import { Parameter } from "../../src/nn/module.js";
import { emptyHost, endTransfers, part, Transfer } from "../../src/tensor/host.js";
import { cudaFailure, resetPeak, stats, sync } from "../../src/tensor/native.js";
import { fill } from "../../src/tensor/ops/elementwise.js";
import { seed } from "../../src/tensor/ops/random.js";
import { outsideScope } from "../../src/tensor/scope.js";
import { empty } from "../../src/tensor/tensor.js";
import { accumulateGradients } from "../../src/training/loss.js";
import { Optimizer, stateLayout } from "../../src/training/optimizer.js";
import { PagedStates } from "../../src/training/paged.js";

const missing = cudaFailure();
const skip = missing === undefined ? {} : { skip: `no CUDA device: ${missing}` };
const host = (): number => stats("cuda").hostBytes;

test("elements go to host memory and back while other work is done", skip, async () => {
  const values = Float32Array.from({ length: 100_000 }, (_, i) => Math.sin(i));
  const x = tensor(values, { device: "cuda" });
  const away = emptyHost([values.length], "float32");
  assert.ok(host() >= 400_000 && away.device === "cuda");
  const out = new Transfer(x, away);
  const busy = x.mul(2);
  out.wait();
  x.dispose();
  assert.deepEqual(await away.data(), values); // host memory can be read like any other
  const back = empty([values.length], "float32", "cuda");
  const coming = new Transfer(away, back);
  coming.wait();
  coming.wait(); // the second time is nothing
  assert.deepEqual(await back.data(), values);
  const third = part(away, [10], "float32", 4 * 50_000);
  assert.deepEqual(await third.data(), values.slice(50_000, 50_010));
  // More copies than there are slots.
  const many = Array.from({ length: 200 }, (_, i) => {
    const t = fill(empty([100], "float32", "cuda"), i);
    const to = emptyHost([100], "float32");
    return { t, to, transfer: new Transfer(t, to) };
  });
  endTransfers();
  for (const [i, { t, to }] of many.entries()) {
    if (i % 20 === 0) assert.equal((await to.data())[99], i);
    t.dispose();
    to.dispose();
  }
  for (const t of [busy, away, back, third]) t.dispose();
  assert.equal(host(), 0);
});

const config = {
  model_type: "llama",
  vocab_size: 96,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
};
const batch = collate(
  [200, 260, 150].map((length, r) => {
    const ids = Int32Array.from({ length }, (_, i) => (7 + r * 29 + i * (r + 3)) % 96);
    return { ids, labels: ids };
  }),
  { padId: 0, paddingSide: "none" },
);

async function step(model: Model, mode: Checkpointing): Promise<{ bits: Uint32Array[]; peak: number; away: number }> {
  seed(11);
  const sum = outsideScope(() => fill(empty([1], "float32", "cuda"), 0));
  model.module.train(true);
  resetPeak("cuda");
  const before = stats("cuda").liveBytes;
  let away = 0;
  const { layers } = (model.module as LlamaForCausalLM).model;
  const last = layers.at(-1)!.mlp;
  const forward = last.forward.bind(last);
  last.forward = (x) => {
    away = Math.max(away, host());
    return forward(x);
  };
  try {
    accumulateGradients(model.module, batch, 600, 0, sum, mode);
    const bits = [new Uint32Array((await sum.data()).buffer)];
    for (const p of model.module.trainableParameters()) bits.push(new Uint32Array((await p.grad!.data()).buffer));
    return { bits, peak: stats("cuda").peakBytes - before, away };
  } finally {
    last.forward = forward;
    model.module.train(false);
    model.module.zeroGrad();
    sum.dispose();
  }
}

test(
  "offloaded activations give the gradients of full checkpointing, bit for bit, in less of the GPU's memory",
  skip,
  async () => {
    const model = await loadModel(config, { weights: "random", seed: 3, device: "cuda" }).addLora({
      rank: 4,
      dropout: 0.1,
      target: "all-linear",
      seed: 4,
    });
    for (const [name, p] of model.module.namedParameters())
      if (name.includes("lora_B")) p.set(Float32Array.from({ length: p.size }, (_, i) => Math.sin(i) / 50));
    await step(model, "full");
    const handles = stats("cuda").handles;
    const [none, full, offload] = [await step(model, "none"), await step(model, "full"), await step(model, "offload")];
    assert.deepEqual(offload.bits, full.bits);
    assert.deepEqual(full.bits, none.bits);
    assert.equal(full.away, 0);
    const h = 610 * 64 * 4;
    assert.ok(offload.away >= 5 * h, `${offload.away} bytes were in host memory`);
    assert.ok(offload.peak < full.peak - 2 * h, `peaks ${full.peak} and ${offload.peak}`);
    const { layers } = (model.module as LlamaForCausalLM).model;
    const { mlp } = layers[1]!;
    const forward = mlp.forward.bind(mlp);
    let calls = 0;
    for (const wrong of [1, 2]) {
      calls = 0;
      mlp.forward = (x) => {
        if (++calls === wrong) throw new Error("on purpose"); // forward, then in the backward pass
        return forward(x);
      };
      await assert.rejects(step(model, "offload"), /on purpose/);
    }
    mlp.forward = forward;
    assert.deepEqual((await step(model, "offload")).bits, full.bits);
    assert.equal(host(), 0, "host memory was left behind");
    assert.equal(stats("cuda").handles, handles, "tensors were left behind");
    model.dispose();
  },
);

/** Sizes of parameters: three that are paged (two pages of them at least), one that is not, one with float32 states. */
const sizes = [300_000, 120_000, 5000, 250_007, 300];

async function optimize(name: "adamw" | "adamw8bit", paged: boolean): Promise<Float32Array[]> {
  const parameters = sizes.map((n, k) => {
    const start = Float32Array.from({ length: n }, (_, i) => Math.sin(i + k));
    return new Parameter([n, 1]).adopt(tensor(start, { shape: [n, 1], device: "cuda" }));
  });
  const optimizer = new Optimizer(parameters, {
    name,
    paged,
    weightDecay: 0.1,
    epsilon: 1e-8,
    beta1: 0.9,
    beta2: 0.999,
    momentum: 0,
  });
  for (let t = 1; t <= 3; t++) {
    parameters.forEach((p, k) => {
      if (t === 2 && k === 1) return; // a parameter without a gradient
      p.grad = tensor(
        Float32Array.from({ length: p.size }, (_, i) => Math.cos(i * t + k)),
        { shape: p.shape, device: "cuda" },
      );
    });
    optimizer.step(1e-2, 1).dispose();
  }
  assert.equal(host() > 0, paged);
  const out = [...(await Promise.all(parameters.map((p) => p.data())))];
  for (const p of parameters) {
    for (const t of Object.values(optimizer.state(p))) out.push(await t.data());
    p.dispose();
  }
  optimizer.dispose();
  assert.equal(host(), 0);
  return out;
}

for (const name of ["adamw", "adamw8bit"] as const) {
  test(`a paged ${name} takes the steps of the one that is not, bit for bit`, skip, async () => {
    const handles = stats("cuda").handles;
    assert.deepEqual(await optimize(name, true), await optimize(name, false));
    sync("cuda");
    assert.equal(stats("cuda").handles, handles, "tensors were left behind");
  });
}

test("states go through the GPU's memory page by page", skip, async () => {
  const parameters = Array.from({ length: 12 }, () => new Parameter([100_000], undefined, "float32", "cuda"));
  const pages = new PagedStates(parameters, (p) => stateLayout("adamw", p.size), 1_700_000); // two parameters a page
  const seen: number[] = [];
  resetPeak("cuda");
  const before = stats("cuda").peakBytes; // with the working memory of ops that ran before
  for (let round = 0; round < 2; round++)
    pages.each(new Set(parameters), (some, states) => {
      seen.push(some.length);
      for (const { m } of states) fill(m, seen.length);
    });
  assert.deepEqual(seen, new Array(12).fill(2));
  assert.deepEqual((await pages.state(parameters[4]!).m.data()).slice(0, 3), Float32Array.of(9, 9, 9));
  assert.ok(stats("cuda").peakBytes - before < 3.2 * 1_700_000, "more than three pages stood on the GPU");
  pages.dispose();
  assert.equal(host(), 0);
});
