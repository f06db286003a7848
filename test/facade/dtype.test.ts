import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type TensorToWrite, writeSafetensors } from "../../src/hub/safetensors-write.js";
import { type LoadOptions, loadModel, type Model } from "../../src/index.js";
import type { QuantizeOptions } from "../../src/quantization/nf4.js";
import { noGrad } from "../../src/tensor/record.js";
import { relativeError } from "../golden.js";
import { colourRows, smallConfig, withModelFolder } from "./small.js";

const STEPS = 60;

/** Training losses of a small adapter over a random base; the base, the adapter and the batches are those of the seed. */
async function losses(
  folder: string,
  dtype: NonNullable<LoadOptions["dtype"]>,
  quantize?: QuantizeOptions,
): Promise<number[]> {
  const plan = loadModel(folder, { weights: "random", seed: 3, dtype, progress: false });
  using model = await (quantize ? plan.quantize(quantize) : plan).addLora({
    rank: 8,
    alpha: 16,
    target: "all-linear",
    seed: 5,
  });
  const out: number[] = [];
  const run = model.train(colourRows(64), { steps: STEPS, batch: 4, lr: 3e-3, seed: 1, progress: false });
  for await (const step of run) out.push(step.loss);
  return out;
}

/** The largest distance of two loss curves, relative to the reference (or to a tenth of its beginning, where it is nearly nothing). */
function distance(curve: readonly number[], reference: readonly number[]): number {
  assert.equal(curve.length, reference.length);
  return Math.max(...curve.map((v, i) => Math.abs(v - reference[i]!) / Math.max(reference[i]!, 0.1 * reference[0]!)));
}

test("training over bfloat16 and float16 weights follows the float32 loss curve", () =>
  withModelFolder(async (folder) => {
    const reference = await losses(folder, "float32");
    assert.equal(reference.length, STEPS);
    assert.ok(reference.at(-1)! < 0.7 * reference[0]!, "the reference learns");
    for (const dtype of ["bfloat16", "float16"] as const) {
      const d = distance(await losses(folder, dtype), reference);
      assert.ok(d < 0.01, `${dtype}: ${d}`);
    }
  }));

test("NF4, FP4, int8 and FP8 computed in bfloat16 follow the same in float32", () =>
  withModelFolder(async (folder) => {
    for (const type of ["nf4", "fp4", "int8", "fp8"] as const) {
      const reference = await losses(folder, "float32", { type, compute: "fp32" });
      const d = distance(await losses(folder, "float32", { type, compute: "bf16" }), reference);
      assert.ok(d < 0.01, `${type}: ${d}`);
    }
  }));

function dtypes(model: Model): Record<string, string> {
  return Object.fromEntries(model.parameters().map((p) => [p.name, p.dtype]));
}

test("a model says the dtypes of its parameters, and half as many bytes", () =>
  withModelFolder(async (folder) => {
    using full = await loadModel(folder, { weights: "random", progress: false });
    assert.equal(full.dtype, "float32");
    using half = await loadModel(folder, { weights: "random", dtype: "bf16", progress: false });
    assert.equal(half.dtype, "bfloat16");
    half.addLora({ rank: 4, target: "all-linear" });
    const found = dtypes(half);
    assert.equal(found["model.embed_tokens.weight"], "bfloat16");
    assert.equal(found["model.layers.0.mlp.up_proj.base_layer.weight"], "bfloat16");
    assert.equal(found["model.layers.0.mlp.up_proj.lora_A.default.weight"], "float32");
    assert.equal(found["model.norm.weight"], "float32");
    const [a, b] = [full.memory().weights, half.memory().weights];
    assert.ok(b < 0.51 * a, `${b} of ${a} bytes`);
    using q = await loadModel(folder, { weights: "random", dtype: "bf16", progress: false }).quantize({ type: "int8" });
    assert.equal(dtypes(q)["model.layers.0.mlp.up_proj.weight"], "int8");
    assert.equal(q.dtype, "bfloat16");
    const [x, y] = [await full.logits([[5, 6, 7]]), await half.logits([[5, 6, 7]])];
    assert.ok(relativeError(y, x) < 0.02);
  }));

test("dtype auto is the config's", async () => {
  for (const key of ["dtype", "torch_dtype"]) {
    using model = await loadModel({ ...smallConfig, [key]: "float16" }, { weights: "random" });
    assert.equal(model.dtype, "float16");
    using full = await loadModel({ ...smallConfig, [key]: "float16" }, { weights: "random", dtype: "float32" });
    assert.equal(full.dtype, "float32");
  }
});

test("16-bit checkpoints keep their bits, whatever dtype they are loaded in", () =>
  withModelFolder(async (folder) => {
    using made = await loadModel(folder, { weights: "random", dtype: "bfloat16", progress: false });
    const tensors: TensorToWrite[] = [];
    for (const [name, p] of made.module.namedParameters()) {
      const bits = (await noGrad(() => p.to("bfloat16")).raw()) as Uint16Array;
      tensors.push({ name, dtype: "BF16", shape: p.shape, data: new Uint8Array(bits.buffer) });
    }
    await writeSafetensors(join(folder, "model.safetensors"), tensors);
    const wanted = await made.logits([[5, 6, 7, 8]]);
    for (const [dtype, bound] of [
      ["bfloat16", 0],
      ["float32", 0.01],
      ["float16", 0.01],
    ] as const) {
      using model = await loadModel(folder, { dtype, progress: false });
      assert.equal(model.dtype, dtype);
      const error = relativeError(await model.logits([[5, 6, 7, 8]]), wanted);
      assert.ok(error <= bound, `${dtype}: ${error}`);
    }
  }));

test("training 16-bit weights themselves is refused, and says what to do", () =>
  withModelFolder(async (folder) => {
    using model = await loadModel(folder, { weights: "random", dtype: "bfloat16", progress: false });
    assert.throws(
      () => model.train(colourRows(4), { steps: 1, progress: false }),
      (e: Error) =>
        e.name === "StateError" && /embed_tokens\.weight is bfloat16.*addLora.*dtype: "float32"/.test(e.message),
    );
  }));

test("an adapter trained over bfloat16 is saved in float32", () =>
  withModelFolder(async (folder) => {
    using model = await loadModel(folder, { weights: "random", dtype: "bfloat16", progress: false }).addLora({
      rank: 4,
    });
    const out = await mkdtemp(join(tmpdir(), "tunebook-adapter-"));
    try {
      await model.save(out);
      const file = await readFile(join(out, "adapter_model.safetensors"));
      const header = JSON.parse(file.toString("utf8", 8, 8 + Number(file.readBigUInt64LE(0))));
      for (const [name, entry] of Object.entries<{ dtype?: string }>(header))
        if (name !== "__metadata__") assert.equal(entry.dtype, "F32", name);
    } finally {
      await rm(out, { recursive: true });
    }
  }));
