import assert from "node:assert/strict";
import { test } from "node:test";
import {
  backward,
  type LoraOptions,
  loadModel,
  type Model,
  type QuantizeOptions,
  scope,
  Tensor,
  tensor,
} from "../../src/index.js";
import { LoraLinear } from "../../src/lora/linear.js";
import { adapterParameters, loraLayers } from "../../src/lora/wrap.js";
import { Linear } from "../../src/nn/layers.js";
import { QuantizedLinear, quantizeSettings } from "../../src/quantization/nf4.js";
import { stats } from "../../src/tensor/native.js";
import { leakedTensors } from "../../src/tensor/scope.js";
import { colourRows, smallConfig, withModelFolder } from "../facade/small.js";
import { relativeError } from "../golden.js";

const quiet = { progress: false } as const;
const probe = [Array.from({ length: 40 }, (_, i) => (i * 31 + 5) % 340)];
const device = process.env.TUNEBOOK_DEVICE === "cuda" ? "cuda" : "cpu";

/** Numbers that look random and are the same each time. */
const numbers = (n: number, seed: number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => Math.sin(seed * 12.9898 + i * 78.233) * 0.8);

for (const quantize of [undefined, { type: "nf4" } as QuantizeOptions]) {
  test(`DoRA's gradients are those of m/n (W + s B A) x + b with n held, over ${quantize ? "NF4" : "float32"}`, async () => {
    const [rows, inputs, outputs, rank] = [3, 32, 6, 2];
    const linear = new Linear(inputs, outputs).to(device) as Linear;
    linear.weight.set(numbers(inputs * outputs, 1));
    linear.bias!.set(numbers(outputs, 2));
    const layer = new LoraLinear(quantize ? new QuantizedLinear(linear, quantizeSettings(quantize)) : linear);
    layer.add({ rank, alpha: 3, dropout: 0, rslora: true, dora: true, loraBias: false, init: "default", name: "d" });
    const a = layer.lora_A.d!.weight.set(numbers(rank * inputs, 3));
    const b = layer.lora_B.d!.weight.set(numbers(outputs * rank, 4));
    const m = layer.lora_magnitude_vector.d!.weight.set(numbers(outputs, 5).map((v) => v + 2));
    const x = tensor(numbers(rows * inputs, 6), { shape: [rows, inputs], device });
    x.requiresGrad = true;
    const c = numbers(rows * outputs, 7);
    const loss = scope(() => {
      const sum = layer
        .forward(x)
        .mul(tensor(c, { shape: [rows, outputs], device }))
        .sum();
      backward(sum);
      return sum;
    });
    const base = layer.baseWeight();
    const dense = base instanceof Tensor ? linear.weight : base.restore();
    const values = [await dense.data(), await a.data(), await b.data(), await m.data(), await x.data()];
    const [w, av, bv, mv, xv] = values.map((v) => Float64Array.from(v)) as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array]; // biome-ignore format: one thought
    const bias = await layer.base_layer.bias!.data();
    const s = 3 / Math.sqrt(rank);
    const adapted = (o: number, i: number): number => {
      let sum = w[o * inputs + i]!;
      for (let r = 0; r < rank; r++) sum += s * bv[o * rank + r]! * av[r * inputs + i]!;
      return sum;
    };
    const n = Array.from({ length: outputs }, (_, o) =>
      Math.sqrt(Array.from({ length: inputs }, (_, i) => adapted(o, i) ** 2).reduce((p, q) => p + q)),
    );
    const f = (): number => {
      let sum = 0;
      for (let row = 0; row < rows; row++)
        for (let o = 0; o < outputs; o++) {
          let y = 0;
          for (let i = 0; i < inputs; i++) y += adapted(o, i) * xv[row * inputs + i]!;
          sum += c[row * outputs + o]! * ((mv[o]! / n[o]!) * y + bias[o]!);
        }
      return sum;
    };
    assert.ok(Math.abs((await loss.item()) - f()) < 1e-4 * Math.abs(f()) + 1e-4);
    for (const [name, at, t] of [
      ["A", av, a],
      ["B", bv, b],
      ["m", mv, m],
      ["x", xv, x],
    ] as const) {
      // biome-ignore format: one thought
      const expected = at.map((v, i) => {
        at[i] = v + 1e-4;
        const above = f();
        at[i] = v - 1e-4;
        const below = f();
        at[i] = v;
        return (above - below) / 2e-4;
      });
      const off = relativeError(await t.grad!.data(), expected);
      assert.ok(off < 1e-4, `${name}: ${off}`);
    }
    loss.dispose();
    x.dispose();
    if (dense !== linear.weight) dense.dispose();
    layer.dispose();
  });
}

const KINDS: [string, LoraOptions][] = [
  ["DoRA", { rank: 4, alpha: 8, target: "all-linear", dora: true, dropout: 0.1 }],
  ["PiSSA", { rank: 4, target: "all-linear", init: "pissa" }],
  ["PiSSA with DoRA", { rank: 4, target: ["q_proj", "down_proj"], init: "pissa", dora: true }],
  ["embedding and head", { rank: 4, target: ["embed_tokens", "lm_head", "v_proj"] }],
  ["embedding with DoRA", { rank: 4, target: ["embed_tokens", "up_proj"], dora: true }],
  ["modules to save", { rank: 4, modulesToSave: ["lm_head", "norm"] }],
  ["biases", { rank: 4, target: ["q_proj"], bias: "all" }],
  ["B with a bias", { rank: 4, target: ["o_proj", "up_proj"], loraBias: true }],
  ["patterns", { rank: 4, target: "all-linear", rankPattern: { ".*_proj": 2 }, alphaPattern: { q_proj: 8 } }],
];
const BASES: [string, { dtype: "float32" | "bfloat16" }, QuantizeOptions | undefined][] = [
  ["float32", { dtype: "float32" }, undefined],
  ["bfloat16", { dtype: "bfloat16" }, undefined],
  ["NF4", { dtype: "float32" }, { type: "nf4", doubleQuant: true }],
];

for (const tied of [true, false])
  for (const [base, options, quantize] of BASES) {
    test(`every kind of adapter trains over a ${tied ? "tied" : "plain"} ${base} model, switches off and merges`, () =>
      withModelFolder(
        async (folder) => {
          const handles = stats().handles;
          for (const [kind, lora] of KINDS) {
            const plan = loadModel(folder, { weights: "random", seed: 1, device, ...options, ...quiet });
            const model = await (quantize ? plan.quantize(quantize) : plan).addLora({ seed: 2, ...lora });
            await trains(model, `${kind} over ${base}`, lora);
          }
          assert.equal(stats().handles, handles, "tensors were left behind");
          assert.equal(leakedTensors(), 0);
        },
        { ...smallConfig, tie_word_embeddings: tied, attention_bias: true, mlp_bias: true },
      ));
  }

/** After three steps every part of the adapter has changed; off is the base again, and merged is the adapted. */
async function trains(model: Model, what: string, lora: LoraOptions): Promise<void> {
  const plain = await model.withoutAdapter(() => model.logits(probe));
  const parts = new Set([...adapterParameters(model.module), ...model.module.trainableParameters()]);
  const before = await Promise.all([...parts].map((p) => p.data()));
  const losses: number[] = [];
  const callbacks = [({ loss }: { loss: number }) => losses.push(loss)];
  await model.train(colourRows(16), { steps: 6, batch: 8, lr: 1e-2, schedule: "constant", callbacks, ...quiet });
  assert.ok(losses.at(-1)! < 0.95 * losses[0]!, `${what}: losses ${losses}`);
  for (const [i, p] of [...parts].entries()) {
    const now = await p.data();
    assert.ok(relativeError(now, before[i]!) > 0, `${what}: a part of shape ${p.shape} has not changed`);
  }
  const adapted = await model.logits(probe);
  assert.ok(relativeError(plain, adapted) > 1e-2, `${what}: the adapter changes nothing`);
  const off = await model.withoutAdapter(() => model.logits(probe));
  assert.deepEqual(off, plain, `${what}: off is not what it was`);
  assert.deepEqual(await model.logits(probe), adapted, `${what}: on again is not what it was`);
  if (lora.init !== "pissa") assert.ok(model.memory().adapters > 0);
  const { difference } = await model.merge();
  const exact = device === "cpu" && model.dtype === "float32";
  assert.ok(difference < (exact ? 1e-4 : 0.05), `${what}: ${difference}`);
  model.dispose();
}

test("PiSSA takes the largest parts out of the weights and leaves the outputs as they are", () =>
  withModelFolder(async (folder) => {
    for (const hidden of [64, 192]) {
      // 192 is decomposed by subspaces.
      const config = { ...smallConfig, hidden_size: hidden, intermediate_size: 256 };
      const load = () => loadModel(config, { weights: "random", seed: 1, device, ...quiet });
      const plain = await load();
      const expected = await plain.logits(probe);
      const model = await load().addLora({ rank: 6, alpha: 3, target: ["down_proj"], init: "pissa" });
      assert.ok(relativeError(await model.logits(probe), expected) < 1e-4);
      for (const [path, layer] of loraLayers(model.module)) {
        const rest = (await (layer.base_layer as Linear).weight.data()).reduce((n, v) => n + v * v, 0);
        const whole = (await (plain.module.module(path) as Linear).weight.data()).reduce((n, v) => n + v * v, 0);
        const scale = layer.scaleOf("default");
        const [a, b] = [layer.lora_A.default!.weight, layer.lora_B.default!.weight];
        const taken = await scope(() => b.matmul(a).square().sum()).item();
        assert.ok(
          Math.abs(whole - rest - scale * scale * taken) < 1e-3 * whole,
          `${path}: the parts are not perpendicular`,
        );
        // More than random directions would take.
        assert.ok(scale * scale * taken > (1.5 * 6 * whole) / hidden, `${path}: ${taken} of ${whole}`);
      }
      model.dispose();
      plain.dispose();
    }
    await assert.rejects(
      (async () => {
        const model = await loadModel(folder, { weights: "random", ...quiet }).quantize({ type: "nf4" });
        await model.adaptLora({ rank: 4, init: "pissa" });
      })(),
      /before it was quantised.*loadModel\(…\)\.quantize\(…\)\.addLora/,
    );
  }));

test("LoftQ begins nearer to the dense model than quantisation alone, and more iterations nearer still", () =>
  withModelFolder(async (folder) => {
    const load = () => loadModel(folder, { weights: "random", seed: 1, device, ...quiet });
    const dense = await load();
    const expected = await dense.logits(probe);
    const type = "nf4" as const;
    const nf4 = await load().quantize({ type }).addLora({ rank: 16, target: "all-linear" });
    const errors = [relativeError(await nf4.logits(probe), expected)];
    nf4.dispose();
    for (const iterations of [1, 5]) {
      const lora = { rank: 16, target: "all-linear", init: "loftq", loftq: { iterations } } as const;
      const model = await load().quantize({ type }).addLora(lora);
      assert.equal(model.parameters().filter((p) => p.dtype === "nf4").length, 14);
      errors.push(relativeError(await model.logits(probe), expected));
      if (iterations > 1) await assert.rejects(model.save(folder), /use one iteration/);
      model.dispose();
    }
    assert.ok(errors[1]! < 0.9 * errors[0]! && errors[2]! < errors[1]!, errors.join());
    dense.dispose();
  }));

test("how much is kept for the backward pass changes nothing, dropout, DoRA, tables and whole norms included", () =>
  withModelFolder(async (folder) => {
    const runs: number[][] = [];
    for (const checkpointing of ["none", "selective", "full", "offload"] as const) {
      const model = await loadModel(folder, { weights: "random", seed: 1, device, ...quiet }).addLora({
        rank: 4,
        target: ["embed_tokens", "q_proj", "down_proj"],
        dora: true,
        dropout: 0.2,
        modulesToSave: ["input_layernorm"],
        seed: 3,
      });
      const numbers: number[] = [];
      const callbacks = [({ loss, gradNorm }: { loss: number; gradNorm: number }) => numbers.push(loss, gradNorm)];
      await model.train(colourRows(16), { steps: 4, batch: 4, lr: 1e-2, checkpointing, callbacks, ...quiet });
      runs.push(numbers);
      model.dispose();
    }
    for (const run of runs) assert.deepEqual(run, runs[0]);
  }));

test("an adapter that began by PiSSA gives the weights back when it is removed", () =>
  withModelFolder(async (folder) => {
    const load = () => loadModel(folder, { weights: "random", seed: 1, device, ...quiet });
    const plain = await load();
    const expected = await plain.logits(probe);
    plain.dispose();
    const model = await load().addLora({ rank: 4, alpha: 2, target: "all-linear", init: "pissa" });
    assert.ok(relativeError(await model.withoutAdapter(() => model.logits(probe)), expected) > 1e-2);
    model.removeAdapter("default");
    assert.ok(relativeError(await model.logits(probe), expected) < 1e-4);
    model.dispose();
    const quantised = await load()
      .quantize({ type: "nf4" })
      .addLora({ rank: 4, target: ["q_proj"], init: "pissa" });
    assert.throws(() => quantised.removeAdapter("default"), /cannot take it back: load the model again/);
    quantised.dispose();
  }));

test("memory of every kind is predicted for a model without weights", () =>
  withModelFolder(async (folder) => {
    for (const [kind, lora] of KINDS) {
      const peaks: number[] = [];
      for (const weights of ["none", "random"] as const) {
        const model = await loadModel(folder, { weights, device: "cpu", ...quiet }).addLora(lora);
        peaks.push(model.estimate({ batch: 4, length: 32, device: "cpu" }).peak);
        model.dispose();
      }
      assert.equal(peaks[0], peaks[1], kind);
    }
  }));
