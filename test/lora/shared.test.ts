// Linear layers that read one input and share its products (`linears`) beside the same layers one by one.
import assert from "node:assert/strict";
import { test } from "node:test";
import { checkpoint, withCheckpointing } from "../../src/autograd/checkpoint.js";
import { resetTape, tapeLength } from "../../src/autograd/tape.js";
import { Random } from "../../src/data/random.js";
import { backward, scope, type Tensor, tensor } from "../../src/index.js";
import { type LayerSettings, LoraLinear } from "../../src/lora/linear.js";
import { uniformInit } from "../../src/nn/init.js";
import { Linear, type LinearLike, linears } from "../../src/nn/layers.js";
import { Module, Parameter } from "../../src/nn/module.js";
import { withRoutes } from "../../src/nn/routes.js";
import { QuantizedLinear, quantizeSettings } from "../../src/quantization/nf4.js";
import { stats } from "../../src/tensor/native.js";
import { Fp8Weight } from "../../src/tensor/ops/fp8.js";
import { noGrad } from "../../src/tensor/record.js";
import { relativeError } from "../golden.js";

const device = process.env.TUNEBOOK_DEVICE === "cuda" ? "cuda" : "cpu";
const INPUTS = 64;
const ROWS = 70;

/** Random numbers of a seed. */
function numbers(n: number, seed: number): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length: n }, () => random.nextFloat() * 1.6 - 0.8);
}

const base: LayerSettings = {
  rank: 4,
  alpha: 6,
  dropout: 0,
  rslora: false,
  dora: false,
  loraBias: false,
  init: "default",
  name: "d",
};

interface Wanted {
  outputs: number;
  weight?: "nf4" | "bfloat16" | "in bfloat16" | "fp8";
  bias?: boolean;
  adapter?: Partial<LayerSettings> | "none";
}

function layerOf({ outputs, weight, bias = false, adapter = {} }: Wanted, seed: number): LinearLike {
  const linear = new Linear(INPUTS, outputs, { bias }).to(device) as Linear;
  linear.weight.set(numbers(INPUTS * outputs, seed));
  linear.bias?.set(numbers(outputs, seed + 1));
  if (weight === "bfloat16") {
    const halves = new Parameter([outputs, INPUTS], undefined, "bfloat16", device);
    halves.adopt(noGrad(() => linear.weight.to("bfloat16")));
    linear.weight.dispose();
    linear.weight = halves;
  }
  if (adapter === "none") {
    linear.setRequiresGrad(false);
    return linear;
  }
  const quantized = weight === "nf4" || weight === "in bfloat16";
  const compute = weight === "nf4" ? "fp32" : "bf16";
  if (weight === "fp8") linear.setRequiresGrad(false);
  const layer = new LoraLinear(
    weight === "fp8"
      ? new QuantizedLinear(linear, quantizeSettings({ type: "fp8" }))
      : quantized
        ? new QuantizedLinear(linear, quantizeSettings({ type: "nf4", doubleQuant: true, compute }))
        : linear,
  );
  if (bias) layer.base_layer.bias!.requiresGrad = true;
  layer.add({ ...base, ...adapter });
  layer.train();
  for (const [i, part] of layer.parts("d").entries()) part.set(numbers(part.size, seed + 2 + i));
  return layer;
}
const layersOf = (wanted: readonly Wanted[]): LinearLike[] => wanted.map((each, i) => layerOf(each, 10 * i + 1));

function inputOf(rows = ROWS, needsGradient = true): Tensor {
  const x = tensor(numbers(rows * INPUTS, 99), { shape: [rows, INPUTS], device });
  x.requiresGrad = needsGradient;
  return x;
}

/** A module of one's own that knows of no other. */
class Bare extends Module {
  weight: Parameter = new Parameter([16, INPUTS], uniformInit(0.8), "float32", device);

  forward(x: Tensor): Tensor {
    return x.linear(this.weight);
  }
}

interface Found {
  values: Float32Array[];
  gradients: Map<string, Float32Array>;
  nodes: number;
}

/** Results and gradients after `times` passes, one layer after another or with what they share. */
async function pass(
  layers: readonly LinearLike[],
  input: Tensor,
  together: boolean,
  times = 1,
  dtype: "float32" | "bfloat16" = "float32",
): Promise<Found> {
  const results: Tensor[] = [];
  let nodes = 0;
  for (let i = 0; i < times; i++)
    scope(() => {
      const x = input.to(dtype);
      const ys = together ? linears([...layers], x) : layers.map((layer) => layer.forward(x));
      nodes = tapeLength();
      if (i === 0) results.push(...ys.map((y) => noGrad(() => y.clone())));
      const sums = ys.map((y, j) => y.mul(tensor(numbers(y.size, 50 + j), { shape: y.shape, device })).sum());
      backward(sums.reduce((a, b) => a.add(b)));
      return results;
    });
  const gradients = new Map<string, Float32Array>();
  const take = async (name: string, t: Tensor): Promise<void> => {
    if (!t.grad) return;
    gradients.set(name, await t.grad.data());
    t.grad.dispose();
    t.grad = undefined;
  };
  await take("x", input);
  for (const [i, layer] of layers.entries())
    for (const [name, p] of layer.namedParameters()) await take(`${i}.${name}`, p);
  const values = await Promise.all(results.map((y) => y.data()));
  for (const y of results) y.dispose();
  return { values, gradients, nodes };
}

function compare(shared: Found, single: Found, bound: number): void {
  assert.deepEqual([...shared.gradients.keys()], [...single.gradients.keys()]);
  for (const [i, y] of shared.values.entries()) assert.ok(relativeError(y, single.values[i]!) < bound, `output ${i}`);
  for (const [name, grad] of shared.gradients) {
    const error = relativeError(grad, single.gradients.get(name)!);
    assert.ok(grad.some((v) => v !== 0) && error < bound, `${name}: ${error}`);
  }
}

const KINDS: Record<string, Wanted[]> = {
  "three dense layers": [{ outputs: 32 }, { outputs: 16 }, { outputs: 24 }],
  "different ranks, scales and weights, one trained bias": [
    { outputs: 32, weight: "nf4", adapter: { rank: 3, rslora: true } },
    { outputs: 16, bias: true, adapter: { rank: 1 } },
    { outputs: 24, weight: "bfloat16", adapter: { rank: 8, alpha: 2 } },
  ],
  "NF4 in bfloat16": [
    { outputs: 32, weight: "in bfloat16" },
    { outputs: 48, weight: "in bfloat16", bias: true },
  ],
  "FP8 beside others": [
    { outputs: 32, weight: "fp8", bias: true },
    { outputs: 16 },
    { outputs: 48, weight: "fp8", adapter: { rank: 2 } },
  ],
  "ranks that are many together": [
    { outputs: 32, adapter: { rank: 40 } },
    { outputs: 32, adapter: { rank: 48 } },
  ],
};

for (const [name, wanted] of Object.entries(KINDS)) {
  test(`${name}: results and gradients are those of the layers by themselves, in one node of the tape`, async () => {
    const layers = layersOf(wanted);
    const { handles } = stats(device);
    const x = inputOf();
    for (const times of [1, 2]) {
      const single = await pass(layers, x, false, times);
      const shared = await pass(layers, x, true, times);
      assert.equal(shared.nodes, 1);
      assert.equal(single.nodes, layers.length);
      compare(shared, single, 2e-5);
      const again = await pass(layers, x, true, times);
      assert.deepEqual(again, shared, "two passes differ");
    }
    const fixed = inputOf(ROWS, false);
    const shared = await pass(layers, fixed, true);
    compare(shared, await pass(layers, fixed, false), 2e-5);
    assert.ok(!shared.gradients.has("x"));
    for (const t of [x, fixed]) t.dispose();
    assert.equal(stats(device).handles, handles, "tensors were left behind");
    for (const layer of layers) layer.dispose();
  });
}

test("inputs of FP8 weights are rounded once for all of them, when the forward pass runs again too", async (t) => {
  const round = t.mock.method(Fp8Weight.prototype, "round");
  const layers = layersOf([16, 32, 24].map((outputs) => ({ outputs, weight: "fp8" })));
  const { handles } = stats(device);
  const x = inputOf();
  const gradients: Float32Array[] = [];
  for (const mode of ["none", "full"] as const) {
    round.mock.resetCalls();
    withCheckpointing(mode, () =>
      scope(() => {
        const inner = x.mul(1);
        // Squares, so that the results are read again.
        const sum = (from: Tensor): [Tensor] => [
          linears(layers, from)
            .map((y) => y.mul(y).sum())
            .reduce((a, b) => a.add(b)),
        ];
        backward(checkpoint(sum, [inner])[0]);
      }),
    );
    assert.equal(round.mock.callCount(), mode === "none" ? 1 : 2);
    gradients.push(await x.grad!.data());
    x.grad!.dispose();
    x.grad = undefined;
    for (const layer of layers) layer.zeroGrad();
  }
  assert.deepEqual(gradients[1], gradients[0]);
  round.mock.resetCalls();
  const few = inputOf(63);
  scope(() => noGrad(() => void linears(layers, few)));
  assert.equal(round.mock.callCount(), 0, "few rows are not rounded");
  for (const each of [x, few]) each.dispose();
  assert.equal(stats(device).handles, handles, "codes were left behind");
  for (const layer of layers) layer.dispose();
});

test("activations of 16 bits, which stay so on a GPU", async () => {
  const wanted = [
    { outputs: 64, weight: "in bfloat16", adapter: { rank: 16 } },
    { outputs: 16, weight: "in bfloat16", adapter: { rank: 16 } },
    { outputs: 16, weight: "bfloat16", adapter: { rank: 16 } },
  ] as const;
  const layers = layersOf(wanted);
  const x = inputOf(128);
  const shared = await pass(layers, x, true, 2, "bfloat16");
  compare(shared, await pass(layers, x, false, 2, "bfloat16"), 2e-2);
  assert.deepEqual(await pass(layers, x, true, 2, "bfloat16"), shared, "two passes differ");
  for (const t of [x, ...layers]) t.dispose();
});

test("a matrix that is frozen gets no gradient, its neighbours theirs", async () => {
  const layers = layersOf(KINDS["three dense layers"]!) as LoraLinear[];
  layers[1]!.lora_A.d!.weight.requiresGrad = false;
  layers[2]!.lora_B.d!.weight.requiresGrad = false;
  const x = inputOf();
  const shared = await pass(layers, x, true);
  compare(shared, await pass(layers, x, false), 2e-5);
  assert.equal(shared.gradients.size, 5);
  for (const layer of layers) for (const p of layer.parts("d")) p.requiresGrad = false;
  compare(await pass(layers, x, true), await pass(layers, x, false), 2e-5);
  for (const t of [x, ...layers]) t.dispose();
});

test("what is no plain update goes by itself, and the others still share", async () => {
  const plain = { outputs: 16 };
  const odd: Record<string, Wanted> = {
    "no adapter": { outputs: 16, adapter: "none" },
    dropout: { outputs: 16, adapter: { dropout: 0.5 } },
    DoRA: { outputs: 16, adapter: { dora: true } },
    "a bias of B": { outputs: 16, adapter: { loraBias: true } },
  };
  const x = inputOf();
  const nodes = (layers: readonly LinearLike[]): number => {
    scope(() => linears([...layers], x));
    const n = tapeLength();
    resetTape();
    return n;
  };
  for (const [name, wanted] of Object.entries(odd)) {
    for (const order of [
      [plain, wanted, plain],
      [wanted, plain, plain],
    ]) {
      const layers = layersOf(order);
      const alone = nodes([layers[order.indexOf(wanted)]!]);
      assert.equal(nodes(layers), 1 + alone, name);
      if (name !== "dropout") compare(await pass(layers, x, true), await pass(layers, x, false), 2e-5);
      for (const layer of layers) layer.train(false);
      assert.equal(nodes(layers), name === "dropout" ? 1 : 1 + alone, name);
      for (const layer of layers) layer.dispose();
    }
  }
  // Whatever stands in a layer's place, one layer in two places among them.
  const [one, two] = layersOf([plain, plain]);
  const bare = new Bare() as Module as LinearLike;
  for (const layers of [
    [one!, bare, two!],
    [two!, one!, two!],
  ])
    compare(await pass(layers, x, true), await pass(layers, x, false), 2e-5);
  assert.equal(nodes([bare, one!]), 2);
  for (const layer of [one!, two!, bare]) layer.dispose();
  const [first, second, third] = layersOf([plain, plain, plain]) as [LoraLinear, LoraLinear, LoraLinear];
  const all = [first, second, third];
  assert.equal(nodes(all), 1);
  second.active = undefined;
  assert.equal(nodes(all), 2);
  first.active = undefined;
  assert.equal(nodes(all), 3);
  first.active = second.active = "d";
  const { forward } = LoraLinear.prototype;
  second.forward = (x) => forward.call(second, x).mul(2); // a user's own
  assert.equal(nodes(all), 3);
  compare(await pass(all, x, true), await pass(all, x, false), 2e-5);
  for (const t of [x, ...all]) t.dispose();
});

test("without gradients many rows share, and few or routed ones are bit for bit those of the layers by themselves", async () => {
  const layers = layersOf(KINDS["three dense layers"]!);
  for (const rows of [1, 8, ROWS]) {
    for (const routed of [false, true]) {
      const x = inputOf(rows);
      const routes = routed ? [{ adapter: "d", begin: 0, end: rows }] : undefined;
      const run = (together: boolean): Tensor[] =>
        scope(() =>
          noGrad(() =>
            withRoutes(routes, () => (together ? linears(layers, x) : layers.map((layer) => layer.forward(x)))),
          ),
        );
      const [shared, single] = [run(true), run(false)];
      for (const [i, y] of shared.entries()) {
        const [got, want] = [await y.data(), await single[i]!.data()];
        if (rows < 64 || routed) assert.deepEqual(got, want);
        else assert.ok(relativeError(got, want) < 2e-5);
      }
      for (const t of [x, ...shared, ...single]) t.dispose();
    }
  }
  for (const layer of layers) layer.dispose();
});
