import assert from "node:assert/strict";
import { truncate, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { writeSafetensors } from "../../src/hub/safetensors-write.js";
import { loadModel, type Model } from "../../src/index.js";
import { colourRows, smallConfig, withModelFolder } from "./small.js";

const quiet = { progress: false } as const;
const small = (folder: string): Promise<Model> =>
  Promise.resolve(loadModel(folder, { weights: "random", seed: 1, ...quiet }));

/** Rejects with that class and a message that matches. */
async function fails(work: () => unknown, name: string, message: RegExp): Promise<void> {
  await assert.rejects(
    async () => await work(),
    (error: Error) => {
      assert.equal(error.name, name, error.stack);
      assert.match(error.message, message);
      return true;
    },
  );
}

/** Writes the weights of the small model, changed by `change`. */
async function writeWeights(
  folder: string,
  change: (tensors: Map<string, number[]>) => void = () => {},
): Promise<void> {
  const model = await small(folder);
  const shapes = new Map(model.parameters().map((p) => [p.name, [...p.shape]]));
  change(shapes);
  await writeSafetensors(
    join(folder, "model.safetensors"),
    [...shapes].map(([name, shape]) => ({
      name,
      dtype: "F32",
      shape,
      data: new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)),
    })),
  );
  model.dispose();
}

test("weights: truncated, missing, unexpected, misshapen, absent", () =>
  withModelFolder(async (folder) => {
    await fails(() => loadModel(folder, quiet), "CheckpointError", /safetensors/);
    await writeWeights(folder);
    (await loadModel(folder, quiet)).dispose();
    await truncate(join(folder, "model.safetensors"), 5000);
    await fails(() => loadModel(folder, quiet), "CheckpointError", /./);
    await writeWeights(folder, (t) => t.delete("model.norm.weight"));
    await fails(() => loadModel(folder, quiet), "CheckpointError", /model\.norm\.weight/);
    await writeWeights(folder, (t) => t.set("model.extra.weight", [2]));
    await fails(() => loadModel(folder, quiet), "CheckpointError", /model\.extra\.weight/);
    await writeWeights(folder, (t) => t.set("model.layers.0.self_attn.q_proj.weight", [64, 32]));
    await fails(() => loadModel(folder, quiet), "CheckpointError", /q_proj\.weight should have shape 64x64.*64x32/);
  }));

test("config and paths: no folder, no config, an unknown architecture, wrong values, options that are not there", () =>
  withModelFolder(async (folder) => {
    await fails(() => loadModel(join(folder, "nowhere"), quiet), "ConfigError", /nowhere.*no folder/);
    await fails(() => loadModel(folder, { device: "cuda:99", ...quiet }), "DeviceError", /cuda:99.*was asked for/);
    await fails(
      () => loadModel(folder, { dtype: "float8" as "float16", ...quiet }),
      "ConfigError",
      /dtype must be.*float8/,
    );
    await writeFile(join(folder, "config.json"), JSON.stringify({ ...smallConfig, model_type: "mamba" }));
    await fails(() => small(folder), "ConfigError", /mamba.*llama/);
    await writeFile(join(folder, "config.json"), JSON.stringify({ ...smallConfig, num_attention_heads: 5 }));
    await fails(() => small(folder), "ConfigError", /num_attention_heads/);
    await writeFile(join(folder, "config.json"), JSON.stringify({ ...smallConfig, hidden_size: "big" }));
    await fails(() => small(folder), "ConfigError", /hidden_size/);
    await writeFile(join(folder, "config.json"), "{ not json");
    await fails(() => small(folder), "ConfigError", /config\.json/);
    await unlink(join(folder, "config.json"));
    await fails(() => small(folder), "ConfigError", /config\.json/);
  }));

test("a missing tokenizer is named where text is needed; ids still work", () =>
  withModelFolder(async (folder) => {
    await unlink(join(folder, "tokenizer.json"));
    const model = await small(folder);
    await model.logits([[1, 2]]);
    await fails(() => model.generate("Hello"), "TokenizerError", /tokenizer\.json/);
    await fails(() => model.train(colourRows(2), quiet), "TokenizerError", /tokenizer\.json/);
    model.dispose();
  }));

test("order and targets of quantize and addLora", () =>
  withModelFolder(async (folder) => {
    await fails(
      () => loadModel(folder, quiet).addLora({ rank: 4 }).quantize({ type: "nf4" }),
      "ConfigError",
      /before addLora/,
    );
    await fails(
      () => loadModel(folder, quiet).quantize({ type: "int4" as "int8" }),
      "ConfigError",
      /"nf4", "fp4", "int8" or "fp8"/,
    );
    await fails(
      () => loadModel(folder, quiet).quantize({ type: "int8", doubleQuant: true }),
      "ConfigError",
      /doubleQuant/,
    );
    await fails(
      () => loadModel(folder, quiet).quantize({ type: "nf4", compute: "int8" as "fp32" }),
      "ConfigError",
      /compute must be/,
    );
    await fails(() => loadModel(folder, quiet).addLora({ rank: 0 }), "ConfigError", /rank/);
    const model = await small(folder);
    await fails(
      () => model.addLora({ rank: 4, target: ["query_key_value"] }),
      "ConfigError",
      /query_key_value.*q_proj/,
    );
    model.addLora({ rank: 4 });
    await fails(() => model.addLora({ rank: 4 }), "ConfigError", /default/);
    await fails(() => model.quantize({ type: "nf4" }), "StateError", /before addLora/);
    await fails(() => model.setAdapter("other"), "ConfigError", /default/);
    model.dispose();
    const frozen = (await small(folder)).quantize({ type: "nf4" });
    await fails(() => frozen.train(colourRows(2), quiet), "StateError", /addLora/);
    await fails(() => frozen.save(join(folder, "out")), "StateError", /addLora/);
    frozen.dispose();
  }));

test("data: empty, without trained tokens, too long, without the expected fields, wrong options", () =>
  withModelFolder(async (folder) => {
    const model = (await small(folder)).addLora({ rank: 4 });
    await fails(() => model.train([], quiet), "DataError", /no rows/);
    await fails(() => model.evaluate([], { metrics: ["loss"], ...quiet }), "DataError", /empty/);
    await fails(
      () => model.train([{ prompt: "a prompt that fills it", completion: " x" }], { maxLength: 2, ...quiet }),
      "DataError",
      /trained/,
    );
    await fails(
      () => model.train(colourRows(2), { maxLength: 4, overlong: "error", ...quiet }),
      "DataError",
      /maxLength is 4/,
    );
    await fails(() => model.train([{ body: "x" }], quiet), "DataError", /body.*textField/);
    await fails(
      () => model.train(colourRows(2), { learningRate: 1, ...quiet } as never),
      "ConfigError",
      /learningRate/,
    );
    await fails(() => model.train(colourRows(2), { batch: 0, ...quiet }), "ConfigError", /batch/);
    await fails(() => model.train(colourRows(2), { keepBest: true, ...quiet }), "ConfigError", /validation/);
    await fails(() => model.evaluate(colourRows(2), { metrics: ["bleu" as never], ...quiet }), "ConfigError", /bleu/);
    await fails(
      () => model.evaluate(colourRows(2), { metrics: ["classification"], labels: ["yes", "no"], ...quiet }),
      "DataError",
      /none of the labels/,
    );
    await fails(() => model.logits([[1, 400]]), "ConfigError", /400/);
    await fails(() => model.generate("x", { temperature: -1 }), "ConfigError", /temperature/);
    await fails(() => model.generate("word ".repeat(300)), "ConfigError", /context is 128/);
    model.dispose();
  }));

test("adapters: another shape, missing tensors, fields that change the result", () =>
  withModelFolder(async (folder) => {
    const out = join(folder, "adapter");
    const model = (await small(folder)).addLora({ rank: 4 });
    await model.save(out);
    const load = (): unknown => loadModel(folder, { weights: "random", ...quiet }).loadAdapter(out);
    ((await load()) as Model).dispose();
    const { readFile } = await import("node:fs/promises");
    const config = JSON.parse(await readFile(join(out, "adapter_config.json"), "utf8")) as Record<string, unknown>;
    const write = (changes: object): Promise<void> =>
      writeFile(join(out, "adapter_config.json"), JSON.stringify({ ...config, ...changes }));
    await write({ r: 8 });
    await fails(load, "CheckpointError", /lora_A.*8x64.*4x64/);
    await write({ use_dora: true });
    await fails(load, "CheckpointError", /lora_magnitude_vector.*incomplete/);
    await write({ trainable_token_indices: [1] });
    await fails(load, "ConfigError", /trainable_token_indices/);
    await write({ peft_type: "IA3" });
    await fails(load, "ConfigError", /IA3/);
    await write({ target_modules: ["q_proj", "v_proj", "o_proj"] });
    await fails(load, "CheckpointError", /o_proj/);
    await write({});
    await fails(
      () => loadModel({ ...smallConfig, num_hidden_layers: 1 }, { weights: "random", ...quiet }).loadAdapter(out),
      "CheckpointError",
      /no place/,
    );
    await unlink(join(out, "adapter_model.safetensors"));
    await fails(load, "CheckpointError", /adapter_model\.safetensors/);
    model.dispose();
  }));
