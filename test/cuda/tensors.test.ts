// Tensors on two devices: creation, moving with gradients, errors that name both, dtypes of results and gradients.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import {
  arange,
  backward,
  defaultDevice,
  devices,
  full,
  nn,
  ones,
  randn,
  setDefaultDevice,
  type Tensor,
  tensor,
  zeros,
} from "../../src/index.js";
import * as calls from "../../src/tensor/calls.js";
import { cudaFailure } from "../../src/tensor/native.js";
import { seed } from "../../src/tensor/ops/random.js";

const missing = cudaFailure();
const skip = missing === undefined ? false : `no CUDA device: ${missing}`;
const cuda = { device: "cuda" } as const;

afterEach(() => setDefaultDevice("cpu"));

test("creation takes a device, and follows the default", { skip }, async () => {
  setDefaultDevice("cpu");
  assert.equal(tensor([1, 2]).device, "cpu");
  for (const t of [zeros([2], cuda), ones([2], cuda), full([2], 3, cuda), randn([2], cuda), arange(2, cuda)])
    assert.equal(t.device, "cuda");
  assert.deepEqual([...(await arange(3, 11, 4, cuda).data())], [3, 7]);
  assert.equal(tensor([1, 2], { device: "cuda", dtype: "bfloat16" }).dtype, "bfloat16");
  setDefaultDevice("cuda");
  assert.equal(defaultDevice(), "cuda");
  assert.equal(tensor([1, 2]).device, "cuda");
  assert.equal(new nn.Linear(2, 2).weight.device, "cuda");
  assert.deepEqual(
    devices().map((d) => d.name),
    ["cpu", "cuda"],
  );
});

test("the same seed gives the same mask on both devices", { skip }, async () => {
  const masks: Float32Array[] = [];
  for (const device of ["cpu", "cuda"] as const) {
    seed(5);
    const layer = new nn.Dropout(0.3);
    layer.training = true;
    masks.push(await layer.forward(ones([1000], { device })).data());
  }
  assert.deepEqual(masks[0], masks[1]);
});

test("what an activation's backward pass makes again has the bits of the forward pass", { skip }, async () => {
  const n = 5003;
  const gate = randn([n], cuda).mul(3);
  const up = randn([n], cuda);
  for (const dtype of ["float32", "bfloat16", "float16"] as const) {
    const [x, u, y, dx, du, again] = [gate, up, gate, up, up, up].map((t) => t.to(dtype).clone()) as Tensor[];
    for (const kind of [10, 11, 18]) {
      calls.unary(x!.handle, y!.handle, kind, n, 0, 0);
      calls.unaryBackward(x!.handle, u!.handle, dx!.handle, again!.handle, kind, n, 0, 0);
      assert.deepEqual(await again!.raw(), await y!.raw(), `${dtype}, kind ${kind}`);
      calls.unaryBackward(x!.handle, u!.handle, du!.handle, 0, kind, n, 0, 0);
      assert.deepEqual(await dx!.raw(), await du!.raw(), `${dtype}, kind ${kind}: the gradient`);
    }
    calls.swiglu(x!.handle, u!.handle, y!.handle, 1, n, n, n, n);
    calls.swigluBackward(x!.handle, u!.handle, u!.handle, dx!.handle, du!.handle, again!.handle, 1, n, n, n, n, n, n);
    assert.deepEqual(await again!.raw(), await y!.raw(), `${dtype}, swiglu`);
  }
});

test("moving keeps the values, and gradients come back", { skip }, async () => {
  const x = tensor([[1, 2, 3]], { device: "cpu" });
  x.requiresGrad = true;
  const y = x.to("cuda");
  assert.deepEqual([x.device, y.device], ["cpu", "cuda"]);
  assert.equal(x.to("cpu"), x);
  const loss = y.mul(y).cpu().sum();
  assert.equal(loss.device, "cpu");
  assert.equal(await loss.item(), 14);
  backward(loss);
  assert.equal(x.grad!.device, "cpu");
  assert.deepEqual([...(await x.grad!.data())], [2, 4, 6]);
});

test("tensors of two devices in one operation: the error names both and the remedy", { skip }, () => {
  const a = ones([2, 3], { device: "cpu" });
  const b = ones([2, 3], cuda);
  const linear = new nn.Linear(3, 2).to("cuda");
  for (const use of [() => a.add(b), () => a.matmul(b.transpose()), () => linear.forward(a)])
    assert.throws(use, (e: Error) => e.name === "DeviceError" && /on cpu .*on cuda.*x\.to\("cuda"\)/s.test(e.message));
});

test("a module moves with its values, and a replacement goes where the old one stood", { skip }, async () => {
  const linear = new nn.Linear(3, 2);
  const before = await linear.weight.data();
  linear.to("cuda");
  assert.equal(linear.weight.device, "cuda");
  assert.deepEqual(await linear.weight.data(), before);
  class Pair extends nn.Module {
    a: nn.LinearLike = linear;
  }
  const pair = new Pair();
  pair.replace("a", new nn.Linear(3, 2));
  assert.equal((pair.a as nn.Linear).weight.device, "cuda");
});

test("operations on 16-bit activations keep their dtype; gradients of leaves are float32", { skip }, async () => {
  for (const dtype of ["bfloat16", "float16"] as const) {
    seed(1);
    const x = randn([4, 8], { device: "cuda", dtype });
    x.requiresGrad = true;
    const norm = new nn.RMSNorm(8).to("cuda");
    const up = new nn.Linear(8, 6).to("cuda");
    const results: Tensor[] = [
      x.add(1),
      x.mul(x),
      x.silu(),
      x.softmax(),
      norm.forward(x),
      up.forward(x),
      x.sum(1),
      x.slice(1, 2, 5),
      x.transpose(),
      x.reshape(8, 4),
    ];
    for (const [i, t] of results.entries()) assert.equal(t.dtype, dtype, `result ${i}`);
    assert.equal(x.add(ones([8], cuda)).dtype, "float32", "beside float32 the result is float32");
    backward(
      up
        .forward(norm.forward(x))
        .add(x.slice(1, 0, 6))
        .square()
        .mean()
        .to("float32"),
    );
    for (const t of [x, norm.weight, up.weight, up.bias!]) {
      assert.equal(t.grad!.dtype, "float32");
      assert.ok((await t.grad!.data()).every(Number.isFinite));
    }
    const values = await x.grad!.data();
    assert.ok(values.some((v) => v !== 0));
  }
});

test("on the CPU 16-bit and whole numbers are computed in float32", async () => {
  setDefaultDevice("cpu");
  const x = tensor([1, 2, 3], { device: "cpu" }).to("bf16");
  assert.equal(x.add(1).dtype, "float32");
  assert.deepEqual([...(await x.mul(2).data())], [2, 4, 6]);
  assert.deepEqual([...(await arange(3, { device: "cpu" }).add(1).data())], [1, 2, 3]);
});
