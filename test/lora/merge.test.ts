import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type LoraOptions, loadModel, type Model, type QuantizeOptions } from "../../src/index.js";
import { stats } from "../../src/tensor/native.js";
import { leakedTensors } from "../../src/tensor/scope.js";
import { colourRows, withModelFolder } from "../facade/small.js";
import { relativeError } from "../golden.js";

const quiet = { progress: false } as const;
const probe = [Array.from({ length: 40 }, (_, i) => (i * 31 + 5) % 340)];
const rows = colourRows(16);
const train = { steps: 6, batch: 8, lr: 2e-2, ...quiet } as const;

async function adapted(folder: string, lora: LoraOptions, quantize?: QuantizeOptions): Promise<Model> {
  const plan = loadModel(folder, { weights: "random", seed: 1, ...quiet });
  const model = await (quantize ? plan.quantize(quantize) : plan).addLora({ seed: 2, ...lora });
  await model.train(rows, train);
  return model;
}

async function inTemporaryFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-export-"));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

test("a merged model has the logits of base and adapter, exports, and loads again with the same", () =>
  withModelFolder(async (folder) => {
    const handles = stats().handles;
    const cases: [LoraOptions, QuantizeOptions | undefined, number][] = [
      [{ rank: 4, target: "all-linear" }, undefined, 0],
      [{ rank: 4, alpha: 16, target: ["q_proj", "down_proj"], rslora: true, dropout: 0.2 }, undefined, 0],
      [{ rank: 4, alpha: 8, target: "all-linear" }, { type: "nf4", doubleQuant: true }, 14],
      [{ rank: 2 }, { type: "nf4" }, 4],
    ];
    for (const [lora, quantize, dequantised] of cases) {
      const model = await adapted(folder, lora, quantize);
      const plain = await model.withoutAdapter(() => model.logits(probe));
      const before = await model.logits(probe);
      assert.ok(relativeError(plain, before) > 1e-2, "the adapter changes nothing, so agreement would say nothing");
      const report = await model.merge();
      assert.ok(report.difference < 1e-4, `${report.difference}`);
      assert.ok(relativeError(await model.logits(probe), before) < 1e-4);
      assert.equal(report.layers.length, lora.target === "all-linear" ? 14 : 4);
      const named = new RegExp(`${dequantised} quantised layers restored`);
      if (dequantised > 0) assert.match(report.base, named);
      assert.match(report.toTable().toText(), /relative change of the logits/);
      assert.ok(!model.parameters().some((p) => p.name.includes("lora_")));
      assert.equal(model.memory().adapters, 0);
      await assert.rejects(model.merge(), /no active adapter/);
      await inTemporaryFolder(async (out) => {
        const merged = await model.logits(probe);
        await model.export(out);
        const again = await loadModel(out, quiet);
        assert.ok(relativeError(await again.logits(probe), merged) < 1e-6);
        assert.equal(await again.generate("The sea"), await model.generate("The sea"));
        again.dispose();
      });
      // It is a model like any other: adapt it again.
      model.addLora({ rank: 2 });
      await model.train(rows, train);
      model.dispose();
    }
    assert.equal(stats().handles, handles, "tensors were left behind");
    assert.equal(leakedTensors(), 0);
  }));

test("export writes shards with their index, and 16-bit weights", () =>
  withModelFolder(async (folder) =>
    inTemporaryFolder(async (out) => {
      const model = await adapted(folder, { rank: 4 });
      await assert.rejects(model.export(out), /merge\(\) first/);
      await model.merge();
      const expected = await model.logits(probe);
      await model.export(join(out, "shards"), { shardBytes: 100_000 });
      const files = await readdir(join(out, "shards"));
      assert.ok(
        files.includes("model-00001-of-00005.safetensors") && files.includes("model.safetensors.index.json"),
        files.join(),
      );
      assert.ok(files.includes("tokenizer.json"));
      const shards = await loadModel(join(out, "shards"), quiet);
      assert.ok(relativeError(await shards.logits(probe), expected) < 1e-6);
      shards.dispose();
      for (const [dtype, limit] of [
        ["float16", 2e-2],
        ["bfloat16", 1e-1],
      ] as const) {
        await model.export(join(out, dtype), { format: "safetensors", dtype });
        const config = JSON.parse(await readFile(join(out, dtype, "config.json"), "utf8"));
        assert.deepEqual([config.torch_dtype, config.architectures], [dtype, ["LlamaForCausalLM"]]);
        const half = await loadModel(join(out, dtype), { dtype: "float32", ...quiet });
        assert.ok(relativeError(await half.logits(probe), expected) < limit);
        half.dispose();
      }
      await assert.rejects(model.export(out, { format: "ggml" as never }), /format must be/);
      await assert.rejects(model.export(out, { dtype: "int8" as never }), /dtype must be/);
      model.dispose();
    }),
  ));

test("a quantised model is exported with its weights restored", () =>
  withModelFolder(async (folder) =>
    inTemporaryFolder(async (out) => {
      const plan = loadModel(folder, { weights: "random", seed: 1, ...quiet });
      const model = await plan.quantize({ type: "nf4", doubleQuant: true });
      const expected = await model.logits(probe);
      await model.export(out);
      const dense = await loadModel(out, quiet);
      assert.ok(dense.parameters().every((p) => p.dtype === "float32"));
      assert.ok(relativeError(await dense.logits(probe), expected) < 1e-4);
      dense.dispose();
      model.dispose();
    }),
  ));

test("two adapters on one base: each keeps what it learnt, switching brings it back", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet }).quantize({ type: "nf4" });
    const plain = await model.logits(probe);
    const answers = new Map<string, Awaited<ReturnType<Model["logits"]>>>();
    const sets = {
      first: rows,
      second: rows.map(({ prompt }, i) => ({ prompt, completion: ["one", "two", "three", "four"][i % 4]! })),
    };
    for (const [name, data] of Object.entries(sets)) {
      model.addLora({ rank: 4, target: name === "first" ? "all-linear" : ["q_proj", "up_proj"], name });
      await model.train(data, train);
      answers.set(name, await model.logits(probe));
    }
    for (const name of ["first", "second", "first"]) {
      model.setAdapter(name);
      assert.deepEqual(await model.logits(probe), answers.get(name), `${name} is not what it was`);
      assert.ok(relativeError(answers.get(name)!, plain) > 1e-2);
      await model.withoutAdapter(async () => assert.deepEqual(await model.logits(probe), plain));
      assert.deepEqual(await model.logits(probe), answers.get(name));
    }
    // Training one leaves the other alone.
    await model.train(rows, train);
    model.setAdapter("second");
    assert.deepEqual(await model.logits(probe), answers.get("second"));
    await inSavedFolder(model, answers.get("second")!, folder);
    await assert.rejects(model.merge(), /other adapters \(first\)/);
    assert.throws(() => model.setAdapter("third"), /no adapter "third"; there are first, second/);
    assert.throws(() => model.removeAdapter("third"), /no adapter "third"/);
    model.removeAdapter("first");
    assert.deepEqual(await model.logits(probe), answers.get("second"));
    const { adapter, layers } = await model.merge();
    assert.deepEqual([adapter, layers.length], ["second", 4]);
    assert.ok(relativeError(await model.logits(probe), answers.get("second")!) < 1e-4);
    model.dispose();
  }));

/** The active adapter, saved, loads on a fresh base under another name beside a second one. */
async function inSavedFolder(model: Model, expected: Float32Array, base: string): Promise<void> {
  await inTemporaryFolder(async (out) => {
    await model.save(out);
    const other = await loadModel(base, { weights: "random", seed: 1, ...quiet }).quantize({ type: "nf4" });
    other.addLora({ rank: 2 });
    await other.loadAdapter(out, { name: "loaded" });
    assert.deepEqual(Float32Array.from(await other.logits(probe)), Float32Array.from(expected));
    other.removeAdapter("loaded").removeAdapter("default");
    assert.ok(!other.parameters().some((p) => p.name.includes("base_layer")));
    other.dispose();
  });
}
