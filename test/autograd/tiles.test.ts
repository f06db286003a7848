import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { type Checkpointing, withCheckpointing } from "../../src/autograd/checkpoint.js";
import { resetTape, tapeLength } from "../../src/autograd/tape.js";
import { setTile, tiled } from "../../src/autograd/tiles.js";
import { collate } from "../../src/data/collate.js";
import { loadModel, type Model, noGrad, ShapeError, type Tensor, tensor } from "../../src/index.js";
import { stats } from "../../src/tensor/native.js";
import { fill } from "../../src/tensor/ops/elementwise.js";
import { seed } from "../../src/tensor/ops/random.js";
import { outsideScope, scope } from "../../src/tensor/scope.js";
import { empty } from "../../src/tensor/tensor.js";
import { accumulateGradients } from "../../src/training/loss.js";

afterEach(() => setTile());

const CONFIGS = {
  llama: {
    vocab_size: 96,
    hidden_size: 64,
    intermediate_size: 640,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
  },
  gpt_bigcode: {
    vocab_size: 96,
    n_embd: 64,
    n_inner: 640,
    n_layer: 3,
    n_head: 4,
    n_positions: 256,
    attn_pdrop: 0,
    embd_pdrop: 0,
    resid_pdrop: 0,
  },
};

const batch = collate(
  [90, 70, 51].map((length, r) => {
    const ids = Int32Array.from({ length }, (_, i) => (7 + r * 29 + i * (r + 3)) % 96);
    return { ids, labels: ids };
  }),
  { padId: 0, paddingSide: "none" },
);

async function build(type: keyof typeof CONFIGS, kind: "dense" | "nf4" | "dropout" | "mlp"): Promise<Model> {
  const plan = loadModel({ model_type: type, ...CONFIGS[type] }, { weights: "random", seed: 3 });
  if (kind === "dense") return plan;
  const base = kind === "nf4" ? plan.quantize({ type: "nf4" }) : plan;
  const target = kind === "mlp" ? ["up_proj", "down_proj"] : "all-linear";
  const model = await base.addLora({ rank: 4, dropout: kind === "dropout" ? 0.2 : 0, target, seed: 4 });
  for (const [name, p] of model.module.namedParameters())
    if (name.includes("lora_B")) p.set(Float32Array.from({ length: p.size }, (_, i) => Math.sin(i) / 50)); // else A's gradient is 0
  return model;
}

async function step(
  model: Model,
  mode: Checkpointing,
): Promise<{ loss: number; gradients: Map<string, Float32Array> }> {
  seed(11);
  const sum = outsideScope(() => fill(empty([1]), 0));
  model.module.train(true);
  accumulateGradients(model.module, batch, 100, 0, sum, mode);
  const loss = await sum.item();
  model.module.train(false);
  const gradients = new Map<string, Float32Array>();
  for (const [name, p] of model.module.namedParameters())
    if (p.grad) gradients.set(name, (await p.grad.data()) as Float32Array);
  model.module.zeroGrad();
  sum.dispose();
  assert.equal(tapeLength(), 0);
  return { loss, gradients };
}

const largest = (a: Float32Array): number => a.reduce((m, x) => Math.max(m, Math.abs(x)), 0);

for (const [type, kind] of [
  ["llama", "dense"],
  ["llama", "nf4"],
  ["llama", "mlp"],
  ["gpt_bigcode", "dense"],
] as const) {
  test(`${type}, ${kind}: a step in tiles gives the loss and the gradients of all rows at once`, async () => {
    const model = await build(type, kind);
    await step(model, "full"); // the tables of positions get their memory at the first step
    const handles = stats().handles;
    const whole = await step(model, "full");
    for (const rows of [16, 50, 100]) {
      setTile(rows); // 211 rows: whole tiles and a rest
      for (const mode of ["full", "offload"] as const) {
        const parts = await step(model, mode);
        assert.ok(
          Math.abs(parts.loss / whole.loss - 1) < 1e-6,
          `${parts.loss} in tiles of ${rows}, ${whole.loss} at once`,
        );
        assert.deepEqual([...parts.gradients.keys()], [...whole.gradients.keys()]);
        for (const [name, g] of whole.gradients) {
          const other = parts.gradients.get(name)!;
          const error = largest(g.map((x, i) => x - other[i]!)) / largest(g);
          assert.ok(error < 1e-5, `${name} in tiles of ${rows}: relative error ${error}`);
        }
      }
    }
    assert.equal(stats().handles, handles, "tensors were left behind");
    model.dispose();
  });
}

test("the backward pass drops the elements that the forward pass has dropped", async () => {
  const model = await build("llama", "dropout");
  setTile(50);
  const { gradients } = await step(model, "full");
  assert.deepEqual((await step(model, "full")).gradients, gradients);
  for (const name of [
    "layers.0.mlp.up_proj.lora_B",
    "layers.2.mlp.down_proj.lora_A",
    "layers.1.self_attn.q_proj.lora_B",
  ]) {
    const [full, p] = [...model.module.namedParameters()].find(([n]) => n.includes(name))!;
    const gradient = gradients.get(full)!;
    const at = gradient.findIndex((x) => Math.abs(x) === largest(gradient));
    const values = (await p.data()) as Float32Array;
    const lossAt = async (value: number): Promise<number> => {
      p.set(values.map((x, i) => (i === at ? value : x)));
      return (await step(model, "full")).loss;
    };
    const e = 0.02;
    const slope = ((await lossAt(values[at]! + e)) - (await lossAt(values[at]! - e))) / (2 * e);
    p.set(values);
    assert.ok(Math.abs(slope / gradient[at]! - 1) < 0.02, `${full}: slope ${slope}, gradient ${gradient[at]}`);
  }
  model.dispose();
});

test("what tiles make on the way takes the memory of one tile", async () => {
  const config = { model_type: "llama", ...CONFIGS.llama };
  const model = await loadModel(config, { weights: "none" }).addLora({ rank: 4, target: "all-linear" });
  const peak = (): number => model.estimate({ batch: 1, length: 4096, checkpointing: "full" }).activations;
  const whole = peak();
  setTile(256);
  const parts = peak();
  // At once: gate, up and the gradient of their product, 3 · 640 numbers a row. In tiles a sixteenth of it; what is left are tensors of 64 numbers a row.
  assert.ok(whole - parts > 0.8 * 3 * 640 * 4 * 4096, `${whole} at once, ${parts} in tiles`);
  model.dispose();
});

test("without gradients rows go in tiles too; with them only where parts run again", () => {
  setTile(4);
  const seen: number[] = [];
  const twice = (x: Tensor): Tensor => {
    seen.push(x.dim(0));
    return x.mul(2);
  };
  scope(() => {
    const x = tensor(
      Float32Array.from({ length: 30 }, (_, i) => i),
      { shape: [10, 3] },
    );
    const y = noGrad(() => tiled(twice, x, () => false));
    assert.deepEqual(seen.splice(0), [4, 4, 2]);
    assert.deepEqual(y.shape, [10, 3]);
    x.requiresGrad = true;
    withCheckpointing("selective", () => tiled(twice, x, () => false));
    assert.deepEqual(seen.splice(0), [10]);
    withCheckpointing("full", () => tiled(twice, x, () => false));
    assert.deepEqual(seen.splice(0), [4, 4, 2]);
    resetTape();
    assert.throws(
      () =>
        noGrad(() =>
          tiled(
            (part) => part.sum(),
            x,
            () => false,
          ),
        ),
      ShapeError,
    );
  });
});
