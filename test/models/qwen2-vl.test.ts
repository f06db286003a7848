import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CHECKPOINTING, withCheckpointing } from "../../src/autograd/checkpoint.js";
import { backward } from "../../src/autograd/tape.js";
import { generateIds, type SamplingOptions, samplingSettings } from "../../src/evaluation/generate.js";
import { ConfigFields } from "../../src/hub/config.js";
import { patchesOf } from "../../src/images/patches.js";
import { loadModel, type Model } from "../../src/index.js";
import type { CausalLM } from "../../src/models/causal.js";
import { qwen2VLConfig } from "../../src/models/qwen2-vl.js";
import { prepareSight } from "../../src/models/sight.js";
import { KvCache, type Rows } from "../../src/nn/cache.js";
import { stats } from "../../src/tensor/native.js";
import { slice } from "../../src/tensor/ops/layout.js";
import { noGrad } from "../../src/tensor/record.js";
import { scope } from "../../src/tensor/scope.js";
import { tensor } from "../../src/tensor/tensor.js";
import { goldenFloats, goldenPath, relativeError } from "../golden.js";
import { nextLabels } from "../peers/models.js";
import { checkArchitecture } from "./architecture.js";
import { arrays, picture, picturesOf, type SeenRow, seen, seenRows, values } from "./seen.js";

checkArchitecture("qwen2-vl");

const load = (): Promise<Model> =>
  Promise.resolve(loadModel(goldenPath("qwen2-vl"), { progress: false, dtype: "float32" }));

async function logits(network: CausalLM, rows: Rows, cache?: KvCache): Promise<Float32Array> {
  const y = scope(() => noGrad(() => network.logits(network.hidden(rows, cache))));
  const data = (await y.data()) as Float32Array;
  y.dispose();
  return data;
}

/** Loss and gradients of all rows together, as they stand in the network's parameters afterwards. */
async function seenLoss(network: CausalLM): Promise<number> {
  const labels = nextLabels(seen.rows);
  const count = labels.filter((label) => label !== -100).length;
  const total = scope(() => {
    const { total } = network.headLoss(network.hidden(seenRows(seen.rows)), tensor(labels), 1 / count);
    backward(total);
    return total;
  });
  const loss = await total.item();
  total.dispose();
  return loss;
}

async function closeGradients(network: CausalLM, prefix: string): Promise<void> {
  const found = new Map([...network.namedParameters()]);
  const keys = [...arrays.keys()].filter((key) => key.startsWith(prefix));
  assert.ok(keys.length > 10);
  for (const key of keys) {
    const grad = found.get(key.slice(prefix.length))?.grad;
    assert.ok(grad, `${key} has no gradient`);
    const error = relativeError((await grad.data()) as Float32Array, goldenFloats(arrays, key));
    if (process.env.TUNEBOOK_SHOW) console.log(key, error.toExponential(1));
    assert.ok(error < 1e-3, `${key}: relative error ${error}`);
  }
}

test("qwen2-vl: patches are the reference's", async () => {
  using model = await load();
  const { settings } = model.module.sight!;
  const got = patchesOf(
    seen.rows[1]!.images.map((name) => picture(name)),
    settings,
  );
  assert.ok(relativeError(got, goldenFloats(arrays, "seen.patches")) < 1e-6);
});

test("qwen2-vl: logits with one image, with several, and with none agree with the reference, alone and packed", async () => {
  using model = await load();
  const width = model.config.vocabSize;
  const packed = await logits(model.module, seenRows(seen.rows));
  let at = 0;
  for (const [i, row] of seen.rows.entries()) {
    const want = goldenFloats(arrays, `seen.logits.${i}`);
    const error = relativeError(await logits(model.module, seenRows([row])), want);
    if (process.env.TUNEBOOK_SHOW) console.log(`seen logits ${i}`, error.toExponential(1));
    assert.ok(error < 1e-4, `row ${i}: relative error ${error}`);
    assert.ok(relativeError(packed.subarray(at, at + want.length), want) < 1e-4, `row ${i} packed`);
    at += row.ids.length * width;
  }
});

test("qwen2-vl: weights in bfloat16 see the same images", async () => {
  using model = await loadModel(goldenPath("qwen2-vl"), { progress: false, dtype: "bfloat16" });
  for (const i of [0, 1]) {
    const got = await logits(model.module, seenRows([seen.rows[i]!]));
    const error = relativeError(got, goldenFloats(arrays, `seen.logits.${i}`));
    assert.ok(error < 0.05, `row ${i}: relative error ${error}`);
  }
});

test("qwen2-vl: configs that do not fit are refused by the field's name", () => {
  const read = (fields: object): unknown => qwen2VLConfig(new ConfigFields(fields, "the config"));
  const base = { hidden_size: 64, num_attention_heads: 4, num_key_value_heads: 2, vision_config: { hidden_size: 64 } };
  const rope = { type: "mrope", mrope_section: [2, 3, 3] };
  read({ ...base, rope_scaling: rope });
  assert.throws(() => read(base), /mrope_section should be three numbers that sum up to half a head's 16/);
  assert.throws(() => read({ ...base, rope_scaling: { ...rope, type: "yarn" } }), /"type" is "yarn"/);
  assert.throws(() => read({ ...base, rope_scaling: rope, use_sliding_window: true }), /"use_sliding_window" is true/);
  const vision = (fields: object): unknown =>
    read({ ...base, rope_scaling: rope, vision_config: { hidden_size: 64, ...fields } });
  assert.throws(() => vision({ hidden_size: 32 }), /"hidden_size" is 32.*expected the text model's hidden_size, 64/);
  assert.throws(() => vision({ num_heads: 3 }), /"embed_dim".*multiple of four times num_heads, 3/);
  assert.throws(() => vision({ in_chans: 1 }), /"in_chans" is 1/);
  assert.throws(() => vision({ depth: 1e9 }), /"depth" is 1000000000.*at most 1024/);
  assert.throws(() => read({ ...base, text_config: { num_hidden_layers: 1e7 } }), /"num_hidden_layers".*at most 1024/);
  assert.throws(() => vision({ hidden_act: "relu" }), /"hidden_act" is "relu"/);
});

test("qwen2-vl: preprocessor_config.json sets the limits of images, and must fit config.json", async () => {
  using model = await loadModel(goldenPath("qwen2-vl"), { weights: "none" });
  const prepare = (fields: object): void => prepareSight(model.module, new ConfigFields(fields, "the file"));
  prepare({ min_pixels: 100, max_pixels: 5000, patch_size: 4, image_std: [0.5, 0.5, 0.25] });
  const { minPixels, maxPixels, std } = model.module.sight!.settings;
  assert.deepEqual([minPixels, maxPixels, ...std], [100, 5000, 0.5, 0.5, 0.25]);
  prepare({ size: { shortest_edge: 200, longest_edge: 6000 } });
  assert.equal(model.module.sight!.settings.maxPixels, 6000);
  assert.throws(() => prepare({ patch_size: 14 }), /"patch_size" is 14 in the file: expected 4, as config.json has it/);
  assert.throws(() => prepare({ image_mean: [0.5] }), /"image_mean".*array of three numbers/);
  assert.throws(() => prepare({ image_std: [0.5, 0, 0.5] }), /deviations above 0/);
  assert.throws(() => prepare({ min_pixels: 9000 }), /pixels from 9000 to 6000/);
  assert.throws(() => prepare({ max_pixels: 1e300 }), /"max_pixels"/);
});

test("qwen2-vl: gradients go through the vision tower, in every way of checkpointing", async () => {
  const before = stats().handles;
  using model = await load();
  const network = model.module.setRequiresGrad(true) as CausalLM;
  for (const mode of CHECKPOINTING) {
    const loss = await withCheckpointing(mode, () => seenLoss(network));
    assert.ok(Math.abs(loss / values.seenLoss - 1) < 1e-5, `${mode}: loss ${loss}, expected ${values.seenLoss}`);
    await closeGradients(network, "seen.gradient.");
    network.zeroGrad();
  }
  model.dispose();
  assert.equal(stats().handles, before, "tensors were left behind");
});

test("qwen2-vl: an adapter on the language layers has the reference's gradients with images", async () => {
  using model = await load();
  await model.loadAdapter(goldenPath("qwen2-vl/adapter"));
  const loss = await seenLoss(model.module);
  assert.ok(Math.abs(loss / values.seenAdapterLoss - 1) < 1e-5);
  await closeGradients(model.module, "seen.adapter.gradient.");
  for (const [name, p] of model.module.namedParameters())
    if (name.startsWith("model.visual.")) assert.equal(p.grad, undefined, name);
});

test("qwen2-vl: greedy ids behind an image are the reference's, through a cache that grows", async () => {
  using model = await load();
  const { prompt, ids, images } = seen.greedy;
  const cache = new KvCache(1, prompt.length + 2);
  const out = [...prompt];
  for (let next = prompt; out.length < ids.length; next = [out.at(-1)!]) {
    cache.grow(cache.lengths[0]! + next.length + 3);
    const rows = cache.rows(Int32Array.from(next), Int32Array.of(0), Int32Array.of(next.length));
    const shown = next === prompt ? { ...rows, pictures: picturesOf([{ ids: prompt, images }]) } : rows;
    const chosen = scope(() =>
      noGrad(() => {
        const h = model.module.hidden(shown, cache);
        return model.module.logits(slice(h, 0, next.length - 1, next.length)).argmax();
      }),
    );
    out.push((await chosen.raw())[0]!);
    chosen.dispose();
  }
  cache.dispose();
  assert.deepEqual(out, ids);
  // As chat does it: steps are recorded and run again. Int8 keys and values are near enough for the beginning.
  const generated = async (options: SamplingOptions): Promise<number[]> => {
    const made: number[] = [];
    const settings = samplingSettings({ maxNewTokens: ids.length - prompt.length, ...options });
    const shown = images.map((name) => picture(name));
    for await (const id of generateIds(model.module, prompt, settings, new Set(), shown)) made.push(id);
    return made;
  };
  assert.deepEqual(await generated({}), ids.slice(prompt.length));
  assert.deepEqual((await generated({ kvCache: "int8" })).slice(0, 4), ids.slice(prompt.length, prompt.length + 4));
});

test("qwen2-vl: image tokens and images that do not fit each other are refused", async () => {
  using model = await load();
  const row = seen.rows[0]!;
  const fails = (rows: SeenRow, pattern: RegExp) => assert.rejects(logits(model.module, seenRows([rows])), pattern);
  await fails({ ...row, images: [...row.images, row.images[0]!] }, /2 images, the 2\. of which takes 8 tokens/);
  await fails({ ...row, ids: row.ids.slice(0, 8) }, /they are not there, or not whole/);
  await fails({ ...row, images: [] }, /more image tokens/);
});

test("qwen2-vl: quantize leaves the vision tower alone unless it is asked", async () => {
  const dense = async (vision: boolean): Promise<string[]> => {
    using model = await loadModel(goldenPath("qwen2-vl"), { progress: false }).quantize({ type: "nf4", vision });
    const quantized = model.parameters().filter((p) => p.dtype.startsWith("nf4"));
    assert.equal(quantized.filter((p) => p.name.includes("language_model")).length, 14);
    return quantized.filter((p) => p.name.includes("visual")).map((p) => p.name);
  };
  assert.deepEqual(await dense(false), []);
  assert.equal((await dense(true)).length, 2 * 4 + 2);
});

test("qwen2-vl: an adapter with the older names is read as the newer one", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-qwen2-vl-"));
  try {
    const from = goldenPath("qwen2-vl/adapter");
    const config = JSON.parse(await readFile(join(from, "adapter_config.json"), "utf8"));
    await writeFile(join(folder, "adapter_config.json"), JSON.stringify(config));
    const file = await readFile(join(from, "adapter_model.safetensors"));
    const older = renamed(file, (name) => name.replace(".model.model.language_model.", ".model.model."));
    assert.ok(older.includes("base_model.model.model.layers.0."));
    await writeFile(join(folder, "adapter_model.safetensors"), older);
    using want = await load();
    await want.loadAdapter(from);
    using got = await load();
    await got.loadAdapter(folder);
    assert.deepEqual(await got.logits([[5, 6, 7]]), await want.logits([[5, 6, 7]]));
  } finally {
    await rm(folder, { recursive: true });
  }
});

/** A safetensors file with other names. */
function renamed(file: Buffer, name: (old: string) => string): Buffer {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + length)) as Record<string, unknown>;
  const entries = Object.entries(header).map(([old, entry]) => [name(old), entry]);
  const text = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([size, text, file.subarray(8 + length)]);
}

test("qwen2-vl: checkpoints and configs of both spellings are read", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-qwen2-vl-"));
  try {
    const file = await readFile(join(goldenPath("qwen2-vl"), "model.safetensors"));
    const newer = renamed(file, (name) =>
      name.startsWith("visual.") ? `model.${name}` : name.replace(/^model\./, "model.language_model."),
    );
    await writeFile(join(folder, "model.safetensors"), newer);
    // The config as the hub has it: the text model's fields at the top, rope as rope_scaling.
    const config = JSON.parse(await readFile(join(goldenPath("qwen2-vl"), "config.json"), "utf8"));
    const { rope_parameters: rope, layer_types: _, model_type: __, ...fields } = config.text_config;
    const { in_channels: channels, rope_parameters: ___, ...vision } = config.vision_config;
    const older = {
      ...config,
      ...fields,
      rope_theta: rope.rope_theta,
      rope_scaling: { type: "mrope", mrope_section: rope.mrope_section },
      vision_config: { ...vision, in_chans: channels },
    };
    delete older.text_config;
    await writeFile(join(folder, "config.json"), JSON.stringify(older));
    using model = await loadModel(folder, { progress: false, dtype: "float32" });
    const error = relativeError(
      await logits(model.module, seenRows([seen.rows[1]!])),
      goldenFloats(arrays, "seen.logits.1"),
    );
    assert.ok(error < 1e-4, `relative error ${error}`);
  } finally {
    await rm(folder, { recursive: true });
  }
});
