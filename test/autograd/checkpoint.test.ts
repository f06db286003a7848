import assert from "node:assert/strict";
import { test } from "node:test";
import { CHECKPOINTING, type Checkpointing, checkpoint, withCheckpointing } from "../../src/autograd/checkpoint.js";
import { backward, resetTape, tapeLength } from "../../src/autograd/tape.js";
import { collate } from "../../src/data/collate.js";
import { accumulateLoss } from "../../src/evaluation/loss.js";
import { InterruptedError, loadModel, type Model, nn, type Tensor, tensor } from "../../src/index.js";
import type { LlamaForCausalLM } from "../../src/models/llama.js";
import { cudaFailure, recover, resetPeak, setInterruptFlag, stats } from "../../src/tensor/native.js";
import { fill } from "../../src/tensor/ops/elementwise.js";
import { dropout, randomState, seed } from "../../src/tensor/ops/random.js";
import { outsideScope, scope } from "../../src/tensor/scope.js";
import { empty } from "../../src/tensor/tensor.js";
import { accumulateGradients } from "../../src/training/loss.js";

// A real GPU's peak holds its kernels' working memory too, which is larger than these tensors.
const COUNTED = process.env.TUNEBOOK_FAKE_CUDA === "1" || cudaFailure() !== undefined;

const config = {
  model_type: "llama",
  vocab_size: 96,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 5,
  num_attention_heads: 4,
  num_key_value_heads: 2,
};
const batches = [0, 1].map((b) =>
  collate(
    [40, 56, 30].map((length, r) => {
      const ids = Int32Array.from({ length }, (_, i) => (7 + b * 13 + r * 29 + i * (r + 3)) % 96);
      return { ids, labels: ids };
    }),
    { padId: 0, paddingSide: "none" },
  ),
);

async function build(kind: "dense" | "dropout" | "nf4"): Promise<Model> {
  const plan = loadModel(config, { weights: "random", seed: 3 });
  if (kind === "dense") return plan;
  const base = kind === "nf4" ? plan.quantize({ type: "nf4" }) : plan;
  const model = await base.addLora({ rank: 4, dropout: kind === "dropout" ? 0.2 : 0, target: "all-linear", seed: 4 });
  for (const [name, p] of model.module.namedParameters())
    if (name.includes("lora_B")) p.set(Float32Array.from({ length: p.size }, (_, i) => Math.sin(i) / 50)); // else A's gradient is 0
  return model;
}

interface Step {
  loss: number;
  gradients: Map<string, Uint32Array>;
  peak: number;
}

/** Two micro-batches, accumulated. */
async function step(model: Model, mode: Checkpointing): Promise<Step> {
  seed(11);
  const sum = outsideScope(() => fill(empty([1]), 0));
  model.module.train(true);
  resetPeak();
  const before = stats().liveBytes;
  for (const batch of batches) accumulateGradients(model.module, batch, 100, 0.1, sum, mode);
  const loss = await sum.item();
  const peak = stats().peakBytes - before;
  model.module.train(false);
  const gradients = new Map<string, Uint32Array>();
  for (const [name, p] of model.module.namedParameters())
    if (p.grad) gradients.set(name, new Uint32Array((await p.grad.data()).buffer));
  model.module.zeroGrad();
  sum.dispose();
  return { loss, gradients, peak };
}

function same(a: Step, b: Step, what: string): void {
  assert.equal(a.loss, b.loss, `${what}: the loss differs`);
  assert.deepEqual([...a.gradients.keys()], [...b.gradients.keys()]);
  for (const [name, bits] of a.gradients) assert.deepEqual(bits, b.gradients.get(name), `${what}: ${name} differs`);
}

for (const kind of ["dense", "dropout", "nf4"] as const) {
  test(`${kind}: every mode gives the same loss and gradients, bit for bit, in less and less memory`, async () => {
    const model = await build(kind);
    await step(model, "none"); // the tables of positions get their memory at the first step
    const handles = stats().handles;
    const steps = new Map<Checkpointing, Step>();
    for (const mode of CHECKPOINTING) {
      steps.set(mode, await step(model, mode));
      assert.equal(tapeLength(), 0);
    }
    const none = steps.get("none")!;
    const trained = model.parameters().filter((p) => p.trainable).length;
    assert.equal(none.gradients.size, trained);
    for (const [, bits] of none.gradients) assert.ok(bits.some((b) => b << 1 !== 0));
    for (const [mode, each] of steps) same(none, each, mode);
    const [a, b, c] = [none.peak, steps.get("selective")!.peak, steps.get("full")!.peak];
    if (COUNTED) assert.ok(b < 0.75 * a && c < 0.75 * b, `peaks of none, selective and full: ${a}, ${b}, ${c}`);
    assert.equal(steps.get("offload")!.peak, c);
    assert.equal(stats().handles, handles, "tensors were left behind");
    model.dispose();
  });
}

/** A layer of the user's own: two products, a softmax (whose gradient reads its result), dropout; it also looks at what it computes. */
class Own extends nn.Module {
  first = new nn.Linear(64, 32);
  second = new nn.Linear(32, 64);
  seen: Tensor | undefined;

  forward(x: Tensor): Tensor {
    const inner = dropout(this.first.forward(x).softmax(), 0.1);
    this.seen = inner;
    return this.second.forward(inner.mul(inner)).add(x.mul(0.5));
  }
}

/** Hands back what it was given. */
class Nothing extends nn.LinearLike {
  readonly inFeatures = 64;
  readonly outFeatures = 64;

  forward(x: Tensor): Tensor {
    return x;
  }
}

test("a user's own modules in place of a block's parts go along with every mode", async () => {
  const model = await build("dropout");
  const { layers } = (model.module as LlamaForCausalLM).model;
  const own = new Own();
  Object.assign(layers[2]!, { mlp: own });
  Object.assign(layers[1]!.self_attn, { q_proj: new Nothing() });
  Object.assign(layers[3]!.self_attn, { o_proj: new Nothing() });
  Object.assign(layers[3]!, { mlp: new Nothing() });
  await step(model, "none"); // draws the new layers' initial values
  const none = await step(model, "none");
  assert.ok(none.gradients.has("model.layers.2.mlp.first.weight"));
  for (const mode of CHECKPOINTING.slice(1)) same(none, await step(model, mode), mode);
  model.dispose();
});

test("checkpoint(): inputs without gradients, results that are inputs, gradients of some results alone", async () => {
  const w = tensor([2, -3, 4]);
  w.requiresGrad = true;
  const part = (x: Tensor, y: Tensor): Tensor[] => [x.mul(w), x, y.mul(y), y];
  const grads: number[][] = [];
  for (const mode of ["none", "full"] as const) {
    const y = tensor([1, 2, 3]);
    y.requiresGrad = true;
    w.grad?.dispose();
    w.grad = undefined;
    withCheckpointing(mode, () =>
      scope(() => {
        const x = tensor([5, 6, 7]);
        const [a, b, , d] = checkpoint(part as (...t: Tensor[]) => Tensor[], [x, y]);
        backward(a!.mul(b!).add(d!.mul(3)).sum());
      }),
    );
    grads.push([...(await w.grad!.data()), ...(await y.grad!.data())]);
    y.dispose();
  }
  assert.deepEqual(grads[0], [25, 36, 49, 3, 3, 3]);
  assert.deepEqual(grads[1], grads[0]);
  w.dispose();
});

test("random numbers after a checkpointed pass go on where they would have", async () => {
  const model = await build("dropout");
  const states = [];
  for (const mode of ["none", "full"] as const) {
    await step(model, mode);
    states.push(randomState());
  }
  assert.deepEqual(states[0], states[1]);
  model.dispose();
});

test("an interrupt or an error in the middle leaves neither tensors nor a tape behind", async () => {
  const model = await build("dropout");
  await step(model, "full");
  const { handles, liveBytes } = stats();
  const flag = new Int32Array(new SharedArrayBuffer(4));
  setInterruptFlag(flag);
  flag[0] = 1;
  await assert.rejects(step(model, "full"), InterruptedError);
  flag[0] = 0;
  setInterruptFlag(null);
  recover();
  model.module.zeroGrad();
  const { layers } = (model.module as LlamaForCausalLM).model;
  const forward = layers[1]!.mlp.forward.bind(layers[1]!.mlp);
  let calls = 0;
  layers[1]!.mlp.forward = (x) => {
    if (++calls === 2) throw new Error("on purpose"); // the second time is in the backward pass
    return forward(x);
  };
  await assert.rejects(step(model, "full"), /on purpose/);
  layers[1]!.mlp.forward = forward;
  model.module.zeroGrad();
  resetTape();
  const sums = 2; // of the two steps that failed, which their own code would have freed
  assert.equal(stats().handles, handles + sums);
  assert.ok(stats().liveBytes <= liveBytes + sums * 512);
  model.dispose();
});

test("without gradients nothing but the residual stream is kept", async () => {
  const model = await build("nf4");
  const sum = outsideScope(() => fill(empty([1]), 0));
  const peaks: number[] = [];
  for (const mode of ["none", "selective"] as const) {
    const before = stats().liveBytes;
    resetPeak();
    withCheckpointing(mode, () => accumulateLoss(model.module, batches[0]!, sum));
    await sum.data();
    peaks.push(stats().peakBytes - before);
  }
  if (COUNTED) assert.ok(peaks[1]! < peaks[0]! / 3, `${peaks}`);
  sum.dispose();
  model.dispose();
});
