// How long what a forward pass made stays in memory, and what can be read when. test/cuda/stand-in.test.ts runs these on the GPU's place too.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  CHECKPOINTING,
  type Checkpointing,
  checkpoint,
  discard,
  withCheckpointing,
} from "../../src/autograd/checkpoint.js";
import { backward, tapeLength } from "../../src/autograd/tape.js";
import { collate } from "../../src/data/collate.js";
import { loadModel, StateError, type Tensor, tensor } from "../../src/index.js";
import { FrozenLinear } from "../../src/quantization/frozen.js";
import { defaultDevice } from "../../src/tensor/device.js";
import { resetPeak, stats } from "../../src/tensor/native.js";
import { gelu, swiglu } from "../../src/tensor/ops/activation.js";
import { fill, where } from "../../src/tensor/ops/elementwise.js";
import { linearLora } from "../../src/tensor/ops/lora.js";
import { seed } from "../../src/tensor/ops/random.js";
import { outsideScope, scope } from "../../src/tensor/scope.js";
import { empty } from "../../src/tensor/tensor.js";
import { accumulateGradients } from "../../src/training/loss.js";

const device = defaultDevice();

/** A leaf of `rows` x `cols` that needs a gradient. */
function leaf(rows: number, cols: number, phase = 0): Tensor {
  const t = tensor(
    Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i * 0.7 + phase)),
    { shape: [rows, cols] },
  );
  t.requiresGrad = true;
  return t;
}

/** Bytes above those alive at the beginning, at the highest point of `fn`. */
function peakOf(fn: () => void): number {
  const before = stats(device).liveBytes;
  resetPeak();
  fn();
  return stats(device).peakBytes - before;
}

test("the gradients of SwiGLU are written over its inputs where nobody else reads them, and are the same elsewhere", async () => {
  const [rows, cols] = [37, 421];
  const gradients: Float32Array[][] = [];
  const peaks: number[] = [];
  for (const way of ["alone", "an operation reads gate too", "a view of gate is left", "leaves"]) {
    const [a, b] = [leaf(rows, cols), leaf(rows, cols, 1)];
    const views: Tensor[] = [];
    const again: Tensor[] = [];
    peaks.push(
      peakOf(() =>
        scope(() => {
          const [gate, up] = way === "leaves" ? [a, b] : [a.mul(1), b.mul(1)];
          if (way.startsWith("an op")) again.push(gate!.silu());
          if (way.startsWith("a view")) views.push(outsideScope(() => gate!.detach()));
          let loss = swiglu(gate!, up!).sum();
          if (again[0]) loss = loss.add(again[0].sum().mul(0));
          backward(loss);
        }),
      ),
    );
    for (const v of views) {
      assert.deepEqual(await v.data(), await a.data(), "what the user kept was written over");
      v.dispose();
    }
    gradients.push([await a.grad!.data(), await b.grad!.data()]);
    for (const t of [a, b]) t.dispose();
  }
  for (const each of gradients) assert.deepEqual(each, gradients[0]);
  const one = rows * cols * 4;
  // The two gradients of the leaves and the gradient of the product stand beside gate and up, and at first the product itself.
  assert.ok(peaks[0]! < 4.5 * one, `${peaks[0]! / one} tensors`);
  assert.ok(peaks[2]! > peaks[0]! + 0.5 * one, "the view should have kept gate's memory");
  assert.equal(tapeLength(), 0);
});

test("a condition, and both readers of one tensor, find it as it was", async () => {
  const x = leaf(5, 7);
  const gradient = async (fn: (inner: Tensor) => Tensor): Promise<Float32Array> => {
    scope(() => backward(fn(x.mul(2)).sum()));
    const g = await x.grad!.data();
    x.grad!.dispose();
    x.grad = undefined;
    return g;
  };
  const values = await x.data();
  const selected = await gradient((y) => {
    const condition = y.relu();
    const chosen = where(condition, y, y.mul(3));
    return chosen.add(condition.exp().mul(0)); // whose reader's turn comes before that of `where`
  });
  assert.deepEqual(
    selected,
    values.map((v) => (v > 0 ? 2 : 6)),
  );
  const both = await gradient((y) => y.mul(y).add(y.exp()));
  for (const [i, v] of values.entries()) assert.ok(Math.abs(both[i]! - (8 * v + 2 * Math.exp(2 * v))) < 1e-4);
  x.dispose();
});

test("each result is freed by its last reader on the way back", () => {
  const x = leaf(64, 256);
  const one = x.bytes;
  const depth = 12;
  const forward = (): Tensor => {
    let y = x;
    for (let i = 0; i < depth; i++) y = y.mul(0.9).tanh();
    return y.sum();
  };
  // Each tanh reads what mul made; mul reads nothing, so the results of tanh but the last wait for their turn unread.
  const peak = peakOf(() => scope(() => backward(forward())));
  assert.ok(peak < (2 * depth + 3.5) * one, `${peak / one} tensors`);
  const reading = peakOf(() =>
    scope(() => {
      const loss = forward();
      const live = stats(device).liveBytes;
      backward(loss);
      assert.ok(stats(device).liveBytes < live - 2 * (depth - 1) * one);
    }),
  );
  assert.ok(reading <= peak + one);
  x.dispose();
});

test("leaves made in a scope, the loss and clones can be read after backward(); results cannot, and a second backward() says why", async () => {
  const x = leaf(2, 3);
  const loss = outsideScope(() => {
    const weights = tensor([1, 2, 3]);
    const y = x.mul(weights);
    const copy = y.clone().detach();
    const total = y.mul(y).sum();
    backward(total);
    assert.equal(y.disposed, true);
    assert.throws(() => y.handle, StateError);
    return { weights, copy, total };
  });
  assert.deepEqual([...(await loss.weights.data())], [1, 2, 3]);
  assert.equal((await loss.copy.data()).length, 6);
  assert.ok((await loss.total.item()) > 0);
  assert.throws(
    () => backward(loss.total),
    /backward\(\): the operations that led to this loss are not recorded any more/,
  );
  scope(() => {
    const [a, b] = [x.sum(), x.mul(2).sum()];
    backward(a);
    assert.throws(() => backward(b), StateError);
  });
  for (const t of [x, loss.weights, loss.copy, loss.total]) t.dispose();
});

test("checkpoint(): a result that is named twice, a gradient that two results share", async () => {
  const found: Float32Array[] = [];
  for (const mode of ["none", "full"] as const) {
    const x = leaf(3, 4);
    const { handles } = stats();
    withCheckpointing(mode, () =>
      scope(() => {
        const part = (t: Tensor): Tensor[] => {
          const y = t.tanh();
          return [y, y, t.mul(2)];
        };
        const [a, b, c] = checkpoint(part as (...t: Tensor[]) => Tensor[], [x.mul(1)]);
        backward(a!.add(c!).add(b!.exp()).sum());
      }),
    );
    assert.equal(stats().handles, handles + 1); // x's gradient
    found.push(await x.grad!.data());
    x.dispose();
  }
  assert.deepEqual(found[1], found[0]);
});

test("the update of LoRA goes back through its mask without a copy of it", async () => {
  const [rows, inputs, outputs, rank] = [19, 24, 30, 4];
  const [x, a, b] = [leaf(rows, inputs), leaf(rank, inputs, 2), leaf(outputs, rank, 3)];
  const w = leaf(outputs, inputs, 4);
  w.requiresGrad = false;
  seed(5);
  const lora = { a, b, scale: 0.5, dropout: 0.4 };
  // Each element of dx is that of the base product, or has the update's added, made larger by what is dropped.
  scope(() => backward(linearLora(x, w, undefined, lora).sum()));
  const dx = await x.grad!.data();
  const [wv, av, bv] = [await w.data(), await a.data(), await b.data()];
  for (let i = 0; i < inputs; i++) {
    let base = 0;
    let update = 0;
    for (let o = 0; o < outputs; o++) {
      base += wv[o * inputs + i]!;
      for (let k = 0; k < rank; k++) update += 0.5 * bv[o * rank + k]! * av[k * inputs + i]!;
    }
    let kept = 0;
    for (let r = 0; r < rows; r++) {
      const g = dx[r * inputs + i]!;
      const through = Math.abs(g - base - update / 0.6) < 1e-4;
      assert.ok(through || Math.abs(g - base) < 1e-4, `${g} is neither ${base} nor ${base + update / 0.6}`);
      if (through) kept++;
    }
    assert.ok(kept > 0 && kept <= rows);
  }
  for (const t of [x, a, b, w]) t.dispose();
});

/** Activations whose backward passes make them again, of inputs of one shape. */
const MADE_AGAIN: Record<string, (gate: Tensor, up: Tensor) => Tensor> = {
  SwiGLU: swiglu,
  gelu: (gate) => gelu(gate, "gelu"),
  gelu_tanh: (gate) => gelu(gate, "gelu_tanh"),
  quick_gelu: (gate) => gelu(gate, "quick_gelu"),
};

for (const [name, activation] of Object.entries(MADE_AGAIN))
  test(`the result of ${name} that a layer behind it reads for its A comes again with ${name}'s own gradients`, async () => {
    const [rows, inner, outputs, rank] = [23, 48, 20, 4];
    const results: { gradients: (Float32Array | undefined)[]; again: number }[] = [];
    for (const mode of ["none", "selective", "another reader", "dropout"] as const) {
      const [x, u, a, b] = [leaf(rows, inner), leaf(rows, inner, 1), leaf(rank, inner, 2), leaf(outputs, rank, 3)];
      const w = leaf(outputs, inner, 4);
      w.requiresGrad = false;
      let again = 0;
      withCheckpointing(mode === "none" ? "none" : "selective", () =>
        scope(() => {
          const [gate, up] = [x.mul(1), u.mul(1)];
          const product = activation(gate, up);
          const { remake } = product;
          product.remake = () => {
            again++;
            return remake!();
          };
          const dropout = mode === "dropout" ? 1e-9 : 0; // drops nothing, and has a mask all the same
          let loss = linearLora(product, w, undefined, { a, b, scale: 0.5, dropout }).sum();
          if (mode === "another reader") loss = loss.add(product.silu().sum().mul(0));
          discard([gate, up, product], [loss]);
          backward(loss);
        }),
      );
      const gradients = await Promise.all([x, u, a, b].map((t) => t.grad?.data()));
      results.push({ gradients, again });
      for (const t of [x, u, a, b, w]) t.dispose();
    }
    const expected = results[0]!.gradients;
    assert.equal(expected.filter(Boolean).length, name === "SwiGLU" ? 4 : 3);
    for (const { gradients } of results.slice(1, 3)) assert.deepEqual(gradients, expected);
    assert.deepEqual(results[3]!.gradients.slice(2), expected.slice(2));
    assert.deepEqual(
      results.map(({ again }) => again),
      [0, 0, 1, 1],
    );
    assert.equal(tapeLength(), 0);
  });

test("the gradient of GELU is written over its input where nobody else reads that, and is the same elsewhere", async () => {
  const [rows, cols] = [37, 421];
  const found: { gradient: Float32Array; peak: number }[] = [];
  for (const way of ["alone", "a view is left", "a leaf"]) {
    const x = leaf(rows, cols);
    let view: Tensor | undefined;
    const peak = peakOf(() =>
      scope(() => {
        const inner = way === "a leaf" ? x : x.mul(1);
        if (way === "a view is left") view = outsideScope(() => inner.detach());
        backward(gelu(inner, "gelu").sum());
      }),
    );
    if (view) assert.deepEqual(await view.data(), await x.data(), "what the user kept was written over");
    found.push({ gradient: await x.grad!.data(), peak });
    for (const t of [x, view]) t?.dispose();
  }
  for (const { gradient } of found) assert.deepEqual(gradient, found[0]!.gradient);
  assert.ok(found[1]!.peak > found[0]!.peak + 0.5 * rows * cols * 4);
});

const config = {
  model_type: "llama",
  vocab_size: 96,
  hidden_size: 64,
  intermediate_size: 320,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
};

test("inputs that wait in host memory come back two at a time at most, to the same gradients", async () => {
  const length = 512; // tensors large enough to be moved
  const ids = Int32Array.from({ length }, (_, i) => (i * 37) % 96);
  const batch = collate(
    [
      { ids, labels: ids },
      { ids, labels: ids },
    ],
    { padId: 0, paddingSide: "none" },
  );
  const model = await loadModel(config, { weights: "random", seed: 3 }).addLora({ rank: 4, target: "all-linear" });
  const stream = 2 * length * 64 * 4;
  const digest = async (mode: Checkpointing): Promise<{ peak: number; gradients: Float32Array[] }> => {
    seed(1);
    const sum = outsideScope(() => fill(empty([1]), 0));
    const peak = peakOf(() => accumulateGradients(model.module, batch, 100, 0, sum, mode));
    const gradients: Float32Array[] = [];
    for (const p of model.module.trainableParameters()) gradients.push(await p.grad!.data());
    model.module.zeroGrad();
    sum.dispose();
    return { peak, gradients };
  };
  await digest("none");
  const { handles } = stats();
  const all = [];
  for (const mode of CHECKPOINTING) all.push(await digest(mode));
  const [none, selective, full, offload] = all;
  assert.equal(stats().handles, handles);
  for (const each of [selective, full, offload]) assert.deepEqual(each!.gradients, none!.gradients);
  assert.ok(selective!.peak < none!.peak && full!.peak < selective!.peak);
  // In the mode "full" the inputs of six blocks are there when the last block's gradients are made, in "offload" two of them.
  if (device === "cuda")
    assert.ok(offload!.peak < full!.peak - 3.5 * stream, `${(full!.peak - offload!.peak) / stream}`);
  else assert.equal(offload!.peak, full!.peak);
  model.dispose();
});

/** Layers of a block, in the order of their products. The second model drops a tenth of what each half of a block adds. */
const BLOCKS = {
  llama: {
    config,
    adapters: ["q_proj", "gate_proj"],
    layers: ["q_proj", "k_proj", "v_proj", "o_proj"]
      .map((n) => `self_attn.${n}`)
      .concat(["gate_proj", "up_proj", "down_proj"].map((n) => `mlp.${n}`)),
  },
  gpt_bigcode: {
    config: { model_type: "gpt_bigcode", vocab_size: 96, n_embd: 64, n_layer: 6, n_head: 4, n_positions: 64 },
    adapters: ["c_attn", "c_fc"],
    layers: ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
  },
};

for (const [name, { config, adapters, layers }] of Object.entries(BLOCKS))
  test(`${name}: a repeated forward pass leaves out a block's last product, and what is frozen goes along`, async () => {
    const ids = Int32Array.from({ length: 40 }, (_, i) => (i * 37) % 96);
    const batch = collate([{ ids, labels: ids }], { padId: 0, paddingSide: "none" });
    const model = await loadModel(config, { weights: "random", seed: 3 })
      .quantize({ type: "nf4" })
      .addLora({ rank: 4, target: adapters });
    model.module.train();
    const products = new Map<string, number>();
    for (const [name, layer] of model.module.namedModules()) {
      const short = /\.(?:layers|h)\.3\.(.*?)(?:\.base_layer)?$/.exec(name)?.[1];
      if (!(layer instanceof FrozenLinear) || short === undefined) continue;
      const weight = layer.quantized;
      const product = weight.product.bind(weight);
      weight.product = (...all) => {
        products.set(short, (products.get(short) ?? 0) + 1);
        product(...all);
      };
    }
    const step = async (mode: Checkpointing): Promise<[Map<string, number>, Float32Array[]]> => {
      products.clear();
      seed(5);
      const sum = outsideScope(() => fill(empty([1]), 0));
      accumulateGradients(model.module, batch, 100, 0, sum, mode);
      const gradients: Float32Array[] = [];
      for (const p of model.module.trainableParameters()) gradients.push(await p.grad!.data());
      model.module.zeroGrad();
      sum.dispose();
      return [new Map(products), gradients];
    };
    const [once, expected] = await step("selective");
    assert.deepEqual(
      layers.map((n) => once.get(n)),
      layers.map(() => 2),
    );
    const { handles } = stats();
    const [twice, gradients] = await step("full");
    assert.deepEqual(
      layers.map((n) => twice.get(n)),
      layers.map((_, i) => (i === layers.length - 1 ? 2 : 3)),
    );
    assert.deepEqual(gradients, expected);
    assert.equal(stats().handles, handles);
    model.dispose();
  });

test("a part may free what it has made, in a scope or by hand, and hold parts of its own", async () => {
  const frozen = leaf(6, 6, 1);
  frozen.requiresGrad = false;
  const part = (x: Tensor): [Tensor] => {
    const doubled = x.mul(2);
    const first = doubled.linear(frozen); // whose gradient does not read `doubled`
    doubled.dispose();
    const second = scope(() => first.tanh().linear(frozen));
    const [third] = checkpoint(((t: Tensor) => [t.mul(3).linear(frozen)]) as (...t: Tensor[]) => Tensor[], [second]);
    return [third!];
  };
  const found: Float32Array[] = [];
  for (const mode of CHECKPOINTING) {
    const x = leaf(4, 6);
    const run = (): void =>
      backward(
        checkpoint(part as (...t: Tensor[]) => [Tensor], [x.mul(1)])[0]
          .exp()
          .sum(),
      );
    const { handles } = stats();
    withCheckpointing(mode, () => scope(run));
    assert.equal(stats().handles, handles + 1);
    found.push(await x.grad!.data());
    x.dispose();
  }
  for (const each of found) assert.deepEqual(each, found[0]);
  frozen.dispose();
});
