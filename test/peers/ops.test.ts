import assert from "node:assert/strict";
import { test } from "node:test";
import { backward } from "../../src/autograd/tape.js";
import { swiglu } from "../../src/tensor/ops/activation.js";
import { attention, rope, type Segments } from "../../src/tensor/ops/attention.js";
import { unary } from "../../src/tensor/ops/elementwise.js";
import { crossEntropy } from "../../src/tensor/ops/loss.js";
import { addRmsNorm } from "../../src/tensor/ops/norm.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";
import { goldenArrays, goldenFloats, goldenValues, relativeError } from "../golden.js";

const arrays = goldenArrays("ops");
const values = goldenValues("ops");

function input(name: string, needsGradient = true): Tensor {
  const { shape } = arrays.get(name)!;
  const t = tensor(goldenFloats(arrays, name), shape);
  t.requiresGrad = needsGradient;
  return t;
}

function integers(name: string): Tensor {
  return tensor(arrays.get(name)!.data as Int32Array);
}

async function close(name: string, got: Tensor | undefined, limit = 2e-6): Promise<void> {
  assert.ok(got, `${name}: there is no gradient`);
  const error = relativeError((await got.data()) as Float32Array, goldenFloats(arrays, name));
  assert.ok(error < limit, `${name}: relative error ${error}`);
}

test("RMSNorm with a residual agrees with transformers, gradients included", async () => {
  const { eps } = values.rms_norm;
  const [x, residual, weight] = [input("rms_norm.x"), input("rms_norm.residual"), input("rms_norm.weight")];
  const [h, y] = addRmsNorm(x, residual, weight, eps);
  await close("rms_norm.h", h);
  await close("rms_norm.y", y);
  const loss = y
    .mul(input("rms_norm.dy", false))
    .sum()
    .add(h.mul(input("rms_norm.dh", false)).sum());
  backward(loss);
  await close("rms_norm.dx", x.grad);
  await close("rms_norm.dx", residual.grad);
  await close("rms_norm.dweight", weight.grad);
});

test("rotary position embedding agrees with transformers", async () => {
  const { rows, heads, headDim, theta } = values.rope;
  const half = headDim / 2;
  const last = 500;
  const angles = Array.from(
    { length: (last + 1) * half },
    (_, i) => Math.floor(i / half) / theta ** ((i % half) / half),
  );
  const tables = {
    cos: tensor(Float32Array.from(angles, Math.cos), [last + 1, half]),
    sin: tensor(Float32Array.from(angles, Math.sin), [last + 1, half]),
  };
  const x = tensor(goldenFloats(arrays, "rope.x"), [rows, heads * headDim]);
  await close("rope.y", rope(x, integers("rope.positions"), tables, { heads, headDim }), 3e-5); // torch's angles are fp32
});

for (const [title, [causal, window]] of Object.entries<[boolean, number]>(values.attention.cases)) {
  test(`attention (${title}) over packed rows agrees with torch, gradients included`, async () => {
    const { lengths, heads, kvHeads, headDim } = values.attention;
    const begin = lengths.map((_: number, i: number) => lengths.slice(0, i).reduce((a: number, b: number) => a + b, 0));
    const queryBegin = tensor(Int32Array.from(begin));
    const queryLength = tensor(Int32Array.from(lengths));
    const segments: Segments = {
      count: lengths.length,
      queryBegin,
      queryLength,
      keyBegin: queryBegin,
      keyLength: queryLength,
    };
    const flat = (name: string, n: number): Tensor => {
      const data = goldenFloats(arrays, `attention.${name}`);
      const t = tensor(data, [data.length / (n * headDim), n * headDim]);
      t.requiresGrad = name !== "dy";
      return t;
    };
    const [q, k, v, dy] = [flat("q", heads), flat("k", kvHeads), flat("v", kvHeads), flat("dy", heads)];
    const y = attention(q, k, v, segments, { heads, kvHeads, headDim, causal, window });
    await close(`attention.${title}.y`, y);
    backward(y, dy);
    await close(`attention.${title}.dq`, q.grad);
    await close(`attention.${title}.dk`, k.grad);
    await close(`attention.${title}.dv`, v.grad);
  });
}

test("SwiGLU agrees with torch, gradients included", async () => {
  const [gate, up] = [input("swiglu.gate"), input("swiglu.up")];
  const y = swiglu(gate, up);
  await close("swiglu.y", y);
  backward(y, input("swiglu.dy", false));
  await close("swiglu.dgate", gate.grad);
  await close("swiglu.dup", up.grad);
});

for (const [title, smoothing] of Object.entries<number>(values.cross_entropy.smoothing)) {
  test(`cross entropy (${title}) agrees with torch, gradients included`, async () => {
    const logits = input("cross_entropy.logits");
    const loss = crossEntropy(logits, integers("cross_entropy.labels"), smoothing);
    await close(`cross_entropy.${title}.loss`, loss);
    backward(loss, input("cross_entropy.dy", false));
    await close(`cross_entropy.${title}.dlogits`, logits.grad);
  });
}

const kinds = ["tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "relu", "log_sigmoid", "quick_gelu"] as const;
for (const kind of kinds) {
  test(`${kind} agrees with torch, gradient included`, async () => {
    const x = input("unary.x");
    const y = unary(kind, x);
    await close(`unary.${kind}.y`, y, 5e-6);
    backward(y, input("unary.dy", false));
    await close(`unary.${kind}.dx`, x.grad, 5e-6);
  });
}
