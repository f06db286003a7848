import assert from "node:assert/strict";
import { test } from "node:test";
import { backward } from "../../src/autograd/tape.js";
import { Random } from "../../src/data/random.js";
import { geglu, gelu, swiglu, swigluHalves } from "../../src/tensor/ops/activation.js";
import { attention, attentionOfOne, rope, type Segments } from "../../src/tensor/ops/attention.js";
import { where } from "../../src/tensor/ops/elementwise.js";
import { quantizeFp8 } from "../../src/tensor/ops/fp8.js";
import { linearFrozen } from "../../src/tensor/ops/frozen.js";
import { concat, split } from "../../src/tensor/ops/layout.js";
import { linearLora } from "../../src/tensor/ops/lora.js";
import { linearsLora } from "../../src/tensor/ops/lora-shared.js";
import { crossEntropy, embedding, linearCrossEntropy, linearCrossEntropyRows } from "../../src/tensor/ops/loss.js";
import { dequantizeNf4, linearNf4, quantizeNf4 } from "../../src/tensor/ops/nf4.js";
import { addLayerNorm, addRmsNorm, layerNorm, rmsNorm } from "../../src/tensor/ops/norm.js";
import { dropout, seed } from "../../src/tensor/ops/random.js";
import { broadcastTo, pick } from "../../src/tensor/ops/reduce.js";
import { noGrad } from "../../src/tensor/record.js";
import { scope } from "../../src/tensor/scope.js";
import { sizeOf } from "../../src/tensor/shape.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";

/**
 * Central differences of Σ w ∘ f(inputs), w fixed random numbers, against backward(): float32 with a step of 4e-3 leaves errors of
 * about 1e-4 for values near 1.
 */
async function check(
  name: string,
  shapes: readonly (readonly number[])[],
  f: (...x: Tensor[]) => Tensor,
  options: { low?: number; high?: number; tolerance?: number; step?: number } = {},
): Promise<void> {
  const { low = -1, high = 1, tolerance = 5e-3, step = 4e-3 } = options;
  const random = new Random(7);
  const values = shapes.map((s) =>
    Float32Array.from({ length: sizeOf(s) }, () => low + (high - low) * random.nextFloat()),
  );
  let weights: Float32Array | undefined;
  const value = async (at: readonly Float32Array[]): Promise<number> => {
    const y = scope(() => noGrad(() => f(...at.map((v, i) => tensor(v, shapes[i]!)))));
    const data = await y.data();
    y.dispose();
    weights ??= Float32Array.from({ length: data.length }, () => random.nextFloat() * 2 - 1);
    return data.reduce((sum, v, i) => sum + v * weights![i]!, 0);
  };
  await value(values);
  const grads = scope(() => {
    const inputs = values.map((v, i) => tensor(v, shapes[i]!));
    for (const x of inputs) x.requiresGrad = true;
    const y = f(...inputs);
    backward(y.mul(tensor(weights!, y.shape)).sum());
    return inputs.map((x) => {
      assert.ok(x.grad, `${name}: an input got no gradient`);
      return x.grad.clone();
    });
  });
  for (const [k, grad] of grads.entries()) {
    const got = await grad.data();
    const want = new Float64Array(got.length);
    for (let i = 0; i < got.length; i++) {
      const moved = values.map((v) => Float32Array.from(v));
      const x = values[k]![i]!;
      moved[k]![i] = x + step;
      const up = await value(moved);
      const upAt = moved[k]![i]!;
      moved[k]![i] = x - step;
      const down = await value(moved);
      want[i] = (up - down) / (upAt - moved[k]![i]!);
    }
    const scale = want.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-3);
    const error = want.reduce((m, v, i) => Math.max(m, Math.abs(v - got[i]!)), 0) / scale;
    assert.ok(error < tolerance, `${name}: input ${k} has a relative error of ${error}`);
    grad.dispose();
  }
}

const segments = (begin: number[], length: number[], keyBegin = begin, keyLength = length): Segments => ({
  count: begin.length,
  queryBegin: tensor(Int32Array.from(begin)),
  queryLength: tensor(Int32Array.from(length)),
  keyBegin: tensor(Int32Array.from(keyBegin)),
  keyLength: tensor(Int32Array.from(keyLength)),
});

for (const name of ["exp", "tanh", "sigmoid", "silu", "gelu", "sin", "cos", "square", "neg"] as const) {
  test(`gradient of ${name}`, () => check(name, [[3, 5]], (x) => x[name]()));
}
for (const name of ["log", "sqrt", "rsqrt", "reciprocal"] as const) {
  test(`gradient of ${name}`, () => check(name, [[3, 5]], (x) => x[name](), { low: 0.5, high: 2 }));
}
test("gradient of pow, clamp, relu, abs away from their corners", async () => {
  await check("pow", [[7]], (x) => x.pow(1.7), { low: 0.5, high: 2 });
  await check("relu", [[7]], (x) => x.relu(), { low: 0.1, high: 1 });
  await check("abs", [[7]], (x) => x.abs(), { low: -1, high: -0.1 });
  await check("clamp", [[7]], (x) => x.clamp(-5, 5));
  await check("gelu tanh", [[7]], (x) => x.gelu("tanh"));
});
test("gradient of add, sub, mul, div with broadcasting", async () => {
  await check("add", [[2, 3, 4], [4]], (a, b) => a.add(b));
  await check(
    "sub",
    [
      [3, 1],
      [1, 4],
    ],
    (a, b) => a.sub(b),
  );
  await check(
    "mul",
    [
      [2, 3, 4],
      [3, 1],
    ],
    (a, b) => a.mul(b),
  );
  await check("div", [[3, 4], [4]], (a, b) => a.div(b), { low: 0.5, high: 2 });
  await check("maximum", [[9], [9]], (a, b) => a.maximum(b));
  await check("minimum", [[9], [9]], (a, b) => a.minimum(b));
  await check("x + x", [[5]], (a) => a.add(a).mul(a));
  await check("broadcastTo", [[3, 1]], (a) => broadcastTo(a, [2, 3, 4]));
  const mask = tensor(Float32Array.of(1, 0, 1, 0));
  await check("where", [[4], [4]], (a, b) => where(mask, a, b));
});
test("gradient of sum, mean, softmax, logSoftmax, pick", async () => {
  await check("sum axis", [[2, 3, 4]], (x) => x.sum(1));
  await check("mean", [[2, 3]], (x) => x.mean());
  await check("mean axis, kept", [[2, 3, 4]], (x) => x.mean(-1, true));
  await check("softmax", [[3, 5]], (x) => x.softmax());
  await check("logSoftmax", [[3, 5]], (x) => x.logSoftmax());
  await check("pick", [[3, 5]], (x) => pick(x, tensor(Int32Array.of(4, -100, 1))));
});
test("gradient of reshape, permute, transpose, slice, concat", async () => {
  await check("reshape", [[2, 6]], (x) => x.reshape(3, -1).mul(x.reshape(3, 4)));
  await check("permute", [[2, 3, 4]], (x) => x.permute(2, 0, 1));
  await check("transpose", [[3, 4]], (x) => x.transpose());
  await check("slice", [[3, 6]], (x) => x.slice(1, 1, 4).add(x.slice(1, 3, 6)));
  await check("slice rows", [[5, 2]], (x) => x.slice(0, 1, 3));
  await check(
    "concat",
    [
      [2, 3],
      [2, 2],
    ],
    (a, b) => concat([a, b, a], 1),
  );
});
test("gradient of matmul and linear", async () => {
  await check(
    "matmul",
    [
      [3, 5],
      [5, 4],
    ],
    (a, b) => a.matmul(b),
  );
  await check(
    "matmul, shared b",
    [
      [2, 3, 5],
      [5, 4],
    ],
    (a, b) => a.matmul(b),
  );
  await check(
    "matmul, batched",
    [
      [2, 3, 5],
      [2, 5, 4],
    ],
    (a, b) => a.matmul(b),
  );
  await check("linear", [[2, 3, 5], [4, 5], [4]], (x, w, b) => x.linear(w, b));
});
test("gradient of rmsNorm, addRmsNorm, layerNorm, addLayerNorm", async () => {
  await check("rmsNorm", [[4, 8], [8]], (x, w) => rmsNorm(x, w, 1e-5));
  await check("addRmsNorm", [[4, 8], [4, 8], [8]], (x, r, w) => {
    const [h, y] = addRmsNorm(x, r, w, 1e-5);
    return h.mul(0.3).add(y);
  });
  await check("layerNorm", [[4, 8], [8], [8]], (x, w, b) => layerNorm(x, w, b, 1e-5));
  for (const share of [0, 0.4])
    await check("addLayerNorm", [[4, 8], [4, 8], [8], [8]], (x, r, w, b) => {
      seed(9); // the same mask at every point
      const [h, y] = addLayerNorm(x, r, w, b, 1e-5, share);
      return h.mul(0.3).add(y);
    });
});
test("gradient of rope, both pairings", async () => {
  const positions = tensor(Int32Array.of(0, 3, 1, 2));
  const angles = Float32Array.from({ length: 8 }, (_, i) => i * 0.37);
  const tables = { cos: tensor(angles.map(Math.cos), [4, 2]), sin: tensor(angles.map(Math.sin), [4, 2]) };
  for (const interleaved of [false, true]) {
    await check("rope", [[4, 8]], (x) => rope(x, positions, tables, { heads: 2, headDim: 4, interleaved }));
    await check("partial rope", [[4, 12]], (x) =>
      rope(x, positions, tables, { heads: 2, headDim: 6, rotaryDim: 4, interleaved }),
    );
  }
});
test("gradient of attention: packed, grouped heads, window, not causal", async () => {
  const packed = segments([0, 3], [3, 4]);
  const shapes = [
    [7, 16],
    [7, 8],
    [7, 8],
  ];
  const base = { heads: 4, kvHeads: 2, headDim: 4 };
  await check("causal", shapes, (q, k, v) => attention(q, k, v, packed, base));
  await check("window", shapes, (q, k, v) => attention(q, k, v, packed, { ...base, window: 2 }));
  const [width, kvWidth] = [base.heads * base.headDim, base.kvHeads * base.headDim];
  const row = width + 2 * kvWidth;
  await check("of one tensor", [[shapes[0]![0]!, row]], (qkv) => attentionOfOne(qkv, packed, base));
  await check("full", shapes, (q, k, v) => attention(q, k, v, packed, { ...base, causal: false }));
  await check("dropout", shapes, (q, k, v) => {
    seed(5);
    return attention(q, k, v, packed, { ...base, dropout: 0.4 });
  });
});
test("gradient of activations, gated and not, of halves, and of what is cut", async () => {
  const two = [
    [3, 6],
    [3, 6],
  ];
  await check("swiglu", two, swiglu);
  await check("geglu", two, geglu);
  await check("swigluHalves", [[3, 10]], swigluHalves);
  await check("gelu", [[3, 6]], (x) => gelu(x, "gelu"));
  await check("gelu_tanh", [[3, 6]], (x) => gelu(x, "gelu_tanh"));
  for (const rows of [1, 4])
    await check("split", [[rows, 9]], (x) => {
      const [a, b, c] = split(x, [4, 1, 4]) as [Tensor, Tensor, Tensor];
      return a.mul(b).sub(c.square());
    });
  await check("split, a piece not used", [[4, 9]], (x) => split(x, [4, 5])[1]!.square());
});
test("gradient of dropout, embedding", async () => {
  await check("dropout", [[5, 7]], (x) => {
    seed(11);
    return dropout(x, 0.4);
  });
  await check("embedding", [[6, 3]], (w) => embedding(w, tensor(Int32Array.of(5, 0, 5, 2))));
});
test("gradient of cross entropy, plain, smoothed and through the chunked head", async () => {
  const labels = tensor(Int32Array.of(2, -100, 0, 6));
  await check("crossEntropy", [[4, 7]], (x) => crossEntropy(x, labels));
  await check("smoothed", [[4, 7]], (x) => crossEntropy(x, labels, 0.1));
  await check(
    "linearCrossEntropy",
    [
      [4, 5],
      [7, 5],
    ],
    (x, w) => linearCrossEntropy(x, w, labels, { scale: 0.5, chunk: 3 }).total.mul(3),
  );
  await check(
    "linearCrossEntropy smoothed",
    [
      [4, 5],
      [7, 5],
    ],
    (x, w) => linearCrossEntropy(x, w, labels, { smoothing: 0.1 }).total,
  );
  for (const [chunk, smoothing] of [
    [3, 0],
    [0, 0.1],
  ] as const) {
    const shapes = [
      [4, 5],
      [7, 5],
    ];
    const title = `linearCrossEntropyRows in chunks of ${chunk}`;
    await check(title, shapes, (x, w) => linearCrossEntropyRows(x!, w!, labels, { chunk, smoothing }));
    const frozen = tensor(Float32Array.from({ length: 35 }, (_, i) => Math.sin(i)), [7, 5]); // biome-ignore format: one line
    await check(`${title}, frozen`, [[4, 5]], (x) => linearCrossEntropyRows(x!, frozen, labels, { chunk, smoothing }));
    await check(`${title}, of a fixed x`, [[7, 5]], (w) =>
      linearCrossEntropyRows(frozen.slice(0, 0, 4), w!, labels, { chunk, smoothing }),
    );
  }
});
test("gradient of LoRA over dense, NF4 and FP8 weights, with and without dropout", async () => {
  const random = new Random(3);
  const dense = tensor(
    Float32Array.from({ length: 6 * 64 }, () => random.nextFloat() - 0.5),
    [6, 64],
  );
  const fp8 = quantizeFp8(dense, { roundInputs: false }); // what rounds has no slope
  for (const weight of [dense, quantizeNf4(dense), quantizeNf4(dense, { doubleQuant: true }), fp8]) {
    for (const p of [0, 0.3]) {
      await check(
        `linearLora, dropout ${p}`,
        [
          [5, 64],
          [4, 64],
          [6, 4],
        ],
        (x, a, b) => {
          seed(5);
          return linearLora(x, weight, undefined, { a, b, scale: 0.7, dropout: p });
        },
      );
    }
  }
  const packed = quantizeNf4(dense, { doubleQuant: true });
  await check("linearNf4", [[5, 64]], (x) => linearNf4(x, packed));
  await check("linearFrozen over FP8", [[5, 64], [6]], (x, bias) => linearFrozen(x!, fp8, bias));
  const restored = dequantizeNf4(packed);
  const x = tensor(
    Float32Array.from({ length: 128 }, () => random.nextFloat()),
    [2, 64],
  );
  const a = await linearNf4(x, packed).data();
  const b = await x.linear(restored).data();
  assert.ok(a.every((v, i) => Math.abs(v - b[i]!) < 1e-5));
});

test("gradients of several LoRA layers over one input", async () => {
  const random = new Random(4);
  const dense = (outputs: number): Tensor =>
    tensor(
      Float32Array.from({ length: outputs * 64 }, () => random.nextFloat() - 0.5),
      [outputs, 64],
    );
  const [first, second, third] = [dense(6), dense(5), dense(3)];
  for (const weights of [
    [first, second, third],
    [quantizeNf4(first), second, quantizeNf4(third, { doubleQuant: true })],
  ]) {
    const shapes = [[5, 64], ...[4, 1, 3].flatMap((rank, i) => [[rank, 64], [weights[i]!.shape[0]!, rank]]), [5]]; // biome-ignore format: one line
    await check("linearsLora", shapes, (x, ...rest) => {
      const parts = weights.map((weight, i) => ({
        weight,
        bias: i === 1 ? rest[6] : undefined,
        lora: { a: rest[2 * i]!, b: rest[2 * i + 1]!, scale: 0.7 + i },
      }));
      return concat(linearsLora(x!, parts), 1);
    });
  }
});
