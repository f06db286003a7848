// What every architecture must do, beside a reference in Python (scripts/peers/golden_models.py).
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CHECKPOINTING, withCheckpointing } from "../../src/autograd/checkpoint.js";
import { backward } from "../../src/autograd/tape.js";
import { generateIds, samplingSettings } from "../../src/evaluation/generate.js";
import { loadModel, type Model } from "../../src/index.js";
import { resizeTables } from "../../src/lora/tables.js";
import { KvCache, packedRows, type Rows } from "../../src/nn/cache.js";
import { LayerNorm, RMSNorm } from "../../src/nn/layers.js";
import { stats } from "../../src/tensor/native.js";
import { noGrad } from "../../src/tensor/record.js";
import { scope } from "../../src/tensor/scope.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";
import { goldenArrays, goldenFloats, goldenPath, goldenValues, relativeError } from "../golden.js";
import { flatRows, type LabelledRow, nextLabels } from "../peers/models.js";

const quiet = { progress: false } as const;
// Tables that checkpoints carry though they follow from the config.
const DERIVED = /inv_freq$/;

function close(got: ArrayLike<number>, want: ArrayLike<number>, bound: number, what: string): void {
  const error = relativeError(got, want);
  assert.ok(error <= bound, `${what}: relative error ${error}`);
}

async function rowsLogits(model: Model, rows: Rows, cache?: KvCache): Promise<Float32Array> {
  const y: Tensor = scope(() => noGrad(() => model.module.logits(model.module.hidden(rows, cache))));
  const data = (await y.data()) as Float32Array;
  y.dispose();
  return data;
}

/** The loss of labelled rows, whose gradients are in the parameters afterwards. */
async function trainedLoss(model: Model, rows: readonly LabelledRow[]): Promise<number> {
  const labels = nextLabels(rows);
  const count = labels.filter((label) => label !== -100).length;
  const total = scope(() => {
    const hidden = model.module.hidden(flatRows(rows.map((row) => row.ids)));
    const { total } = model.module.headLoss(hidden, tensor(labels), 1 / count);
    backward(total);
    return total;
  });
  const loss = await total.item();
  total.dispose();
  return loss;
}

async function gradients(model: Model): Promise<Map<string, Float32Array>> {
  const found = new Map<string, Float32Array>();
  for (const [name, p] of model.module.namedParameters())
    if (p.grad) found.set(name, (await p.grad.data()) as Float32Array);
  return found;
}

async function closeGradients(model: Model, arrays: ReturnType<typeof goldenArrays>, prefix: string): Promise<void> {
  const found = await gradients(model);
  const wanted = [...arrays.keys()].filter((key) => key.startsWith(prefix));
  assert.ok(wanted.length > 0);
  for (const key of wanted) {
    const got = found.get(key.slice(prefix.length));
    assert.ok(got, `${key} is missing`);
    const error = relativeError(got, goldenFloats(arrays, key));
    assert.ok(error < 1e-3, `${key}: relative error ${error}`);
  }
}

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-model-"));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function tensorNames(file: string): Promise<string[]> {
  const bytes = await readFile(file);
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + Number(bytes.readBigUInt64LE(0)))) as object;
  return Object.keys(header).filter((key) => key !== "__metadata__" && !DERIVED.test(key)).sort(); // biome-ignore format: one thought
}

/** Tests of the architecture whose golden folder this is. */
export function checkArchitecture(name: string): void {
  const folder = goldenPath(name);
  const values = goldenValues(`${name}/golden`);
  const arrays = goldenArrays(`${name}/golden`);
  const [, short, long] = values.sequences as [number[], number[], number[]];
  const load = (): Promise<Model> => Promise.resolve(loadModel(folder, { ...quiet, dtype: "float32" }));
  const withAdapter = async (): Promise<Model> => {
    const model = await load();
    await model.loadAdapter(goldenPath(`${name}/adapter`));
    return model;
  };

  test(`${name}: names and shapes are the checkpoint's, default targets are PEFT's`, async () => {
    using model = await loadModel(folder, { weights: "none" });
    const shapes = Object.fromEntries(model.parameters().map((p) => [p.name, p.shape]));
    assert.deepEqual(shapes, values.parameters);
    assert.deepEqual(model.module.defaultTargets, values.targets);
    model.addLora({ rank: 2 });
    const adapted = model.parameters().filter((p) => p.trainable);
    assert.ok(adapted.length > 0);
    for (const p of adapted)
      assert.ok(
        values.targets.some((t: string) => p.name.includes(`.${t}.lora_`)),
        p.name,
      );
  });

  test(`${name}: logits, loss and gradients agree with the reference`, async () => {
    const before = stats().handles;
    using model = await load();
    for (const [i, ids] of (values.sequences as number[][]).entries())
      close(await model.logits([ids]), goldenFloats(arrays, `logits.${i}`), 1e-4, `${name} logits ${i}`);
    model.module.setRequiresGrad(true);
    const loss = await trainedLoss(model, values.rows);
    assert.ok(Math.abs(loss / values.loss - 1) < 1e-5, `loss ${loss}, expected ${values.loss}`);
    await closeGradients(model, arrays, "gradient.");
    model.module.zeroGrad();
    model.dispose();
    assert.equal(stats().handles, before, "tensors were left behind");
  });

  test(`${name}: 64 greedy ids are the reference's, and logits with a cache are those without`, async () => {
    using model = await load();
    const { prompt, ids } = values.greedy as { prompt: number[]; ids: number[] };
    const out = [...prompt];
    const settings = samplingSettings({ maxNewTokens: ids.length - prompt.length });
    for await (const id of generateIds(model.module, prompt, settings, new Set())) out.push(id);
    assert.deepEqual(out, ids);
    const cache = new KvCache(1, 64);
    const whole = await model.logits([long]);
    const width = model.config.vocabSize;
    let begin = 0;
    for (const length of [9, 1, 1, 17, 1, 11]) {
      const rows = cache.rows(
        Int32Array.from(long.slice(begin, begin + length)),
        Int32Array.of(0),
        Int32Array.of(length),
      );
      const got = await rowsLogits(model, rows, cache);
      close(got, whole.subarray(begin * width, (begin + length) * width), 1e-5, `${name} from ${begin}`);
      begin += length;
    }
    cache.dispose();
  });

  test(`${name}: rows packed, padded or decoded together give what each gives alone`, async () => {
    using model = await load();
    const width = model.config.vocabSize;
    const alone = [await model.logits([long]), await model.logits([short])] as const;
    const packed = await rowsLogits(model, flatRows([long, short, long]));
    const parts = [alone[0], alone[1], alone[0]];
    let at = 0;
    for (const part of parts) {
      close(packed.subarray(at, at + part.length), part, 1e-5, `${name} packed`);
      at += part.length;
    }
    // Padding before the one and behind the other, with ids that would be seen.
    const length = long.length + 6;
    const ids = new Int32Array(2 * length).fill(5);
    ids.set(long, 6);
    ids.set(short, length);
    const positions = new Int32Array(2 * length);
    for (const [from, n] of [[6, long.length], [length, short.length]] as const) // biome-ignore format: one thought
      for (let i = 0; i < n; i++) positions[from + i] = i;
    const rows = packedRows(ids, positions, Int32Array.of(6, length), Int32Array.of(long.length, short.length));
    const padded = await rowsLogits(model, rows);
    close(padded.subarray(6 * width, length * width), alone[0], 1e-5, `${name} padded before`);
    close(padded.subarray(length * width, (length + short.length) * width), alone[1], 1e-5, `${name} padded behind`);
    // Noise on the embeddings, where a training asks for it.
    const noise = (size: number) => tensor(new Float32Array(short.length).fill(size), { shape: [short.length, 1] });
    const still = await rowsLogits(model, { ...flatRows([short]), noise: noise(0) });
    assert.deepEqual([...still], [...alone[1]]);
    const noised = await rowsLogits(model, { ...flatRows([short]), noise: noise(0.5) });
    assert.ok(relativeError(noised, alone[1]) > 1e-3, "the noise is not heard");
    // Dropout of the attention, where a config asks for it.
    if ("attentionDropout" in model.config) {
      Object.assign(model.config, { attentionDropout: 0.5 });
      assert.deepEqual([...(await rowsLogits(model, flatRows([short])))], [...alone[1]]);
      model.module.train(true);
      assert.ok(relativeError(await rowsLogits(model, flatRows([short])), alone[1]) > 1e-3, "nothing was dropped");
      model.module.train(false);
    }
    // Two sequences in one cache: the last token of each is decoded in one step.
    const cache = new KvCache(2, 64);
    const first = [long.slice(0, -1), short.slice(0, -1)];
    const flat = Int32Array.from(first.flat());
    await rowsLogits(
      model,
      cache.rows(
        flat,
        Int32Array.of(0, first[0]!.length),
        Int32Array.from(first, (r) => r.length),
      ),
      cache,
    );
    const last = Int32Array.of(long.at(-1)!, short.at(-1)!);
    const step = await rowsLogits(model, cache.rows(last, Int32Array.of(0, 1), Int32Array.of(1, 1)), cache);
    close(step.subarray(0, width), alone[0].subarray(-width), 1e-5, `${name} decoded`);
    close(step.subarray(width), alone[1].subarray(-width), 1e-5, `${name} decoded`);
    cache.dispose();
  });

  test(`${name}: the model in NF4 is the reference's`, async () => {
    const nf4 = { type: "nf4", compute: "float32" } as const;
    using model = await loadModel(folder, { ...quiet, dtype: "float32" }).quantize(nf4);
    const linears = model.parameters().filter((p) => p.dtype.startsWith("nf4"));
    assert.ok(linears.length >= 4 * model.config.layers && !linears.some((p) => /lm_head|output_layer/.test(p.name)));
    close(await model.logits([long]), goldenFloats(arrays, "nf4.logits"), 1e-4, `${name} NF4`);
  });

  test(`${name}: PEFT's adapter gives PEFT's logits and gradients, in every way of checkpointing`, async () => {
    using model = await withAdapter();
    const rows = values.rows as LabelledRow[];
    close(await model.logits([rows[0]!.ids]), goldenFloats(arrays, "adapter.logits"), 1e-4, `${name} adapter`);
    for (const mode of CHECKPOINTING) {
      const labels = nextLabels(rows);
      const count = labels.filter((label) => label !== -100).length;
      const total = scope(() =>
        withCheckpointing(mode, () => {
          const hidden = model.module.hidden(flatRows(rows.map((row) => row.ids)));
          const { total } = model.module.headLoss(hidden, tensor(labels), 1 / count);
          backward(total);
          return total;
        }),
      );
      assert.ok(Math.abs((await total.item()) / values.adapterLoss - 1) < 1e-5, mode);
      total.dispose();
      await closeGradients(model, arrays, "adapter.gradient.");
      model.module.zeroGrad();
    }
  });

  test(`${name}: an adapter saved, merged and exported comes back under the same names`, async () => {
    const file = (path: string) => join(path, "adapter_model.safetensors");
    await inFolder(async (out) => {
      using model = await withAdapter();
      const ids = [values.rows[0].ids as number[]];
      const adapted = await model.logits(ids);
      await model.save(join(out, "adapter"));
      const golden = goldenPath(`${name}/adapter`);
      assert.deepEqual(await tensorNames(file(join(out, "adapter"))), await tensorNames(file(golden)));
      {
        using again = await load();
        await again.loadAdapter(join(out, "adapter"));
        assert.deepEqual(await again.logits(ids), adapted);
      }
      await model.merge();
      close(await model.logits(ids), adapted, 1e-5, `${name} merged`);
      await model.export(join(out, "merged"));
      const names = await tensorNames(join(out, "merged", "model.safetensors"));
      assert.deepEqual(names, await tensorNames(join(folder, "model.safetensors")));
      using merged = await loadModel(join(out, "merged"), quiet);
      assert.deepEqual(await merged.logits(ids), await model.logits(ids));
    });
  });

  test(`${name}: weights in bfloat16, more tokens, whole copies of the table and the head`, async () => {
    using half = await loadModel(folder, { ...quiet, dtype: "bfloat16" });
    close(await half.logits([short]), goldenFloats(arrays, "logits.1"), 0.05, `${name} bfloat16`);
    using model = await loadModel(folder, { weights: "random", seed: 3, dtype: "float32" });
    const { tableName, vocabField } = model.module;
    const vocab = model.config.vocabSize;
    const positions = model.parameters().find((p) => p.name.includes("wpe"))?.shape;
    resizeTables(model.module, vocab + 3).keep();
    assert.deepEqual((await model.logits([[vocab + 2]])).shape, [1, 1, vocab + 3]);
    assert.equal(model.config.raw[vocabField], vocab + 3);
    assert.deepEqual(model.parameters().find((p) => p.name.includes("wpe"))?.shape, positions);
    const head = model.module.headName || "lm_head";
    model.addLora({ rank: 2, modulesToSave: [head.split(".").at(-1)!, tableName.split(".").at(-1)!] });
    const trained = model.parameters().filter((p) => p.trainable).map((p) => p.name); // biome-ignore format: one thought
    for (const path of [head, tableName])
      assert.ok(
        trained.some((n) => n.startsWith(`${path}.modules_to_save.`)),
        `${path}: ${trained}`,
      );
    await trainedLoss(model, values.rows);
    for (const p of model.module.trainableParameters()) assert.ok(p.grad);
    model.module.zeroGrad();
  });

  test(`${name}: norms that an adapter trains whole begin as they were, and are heard`, async () => {
    using model = await load();
    const isNorm = (m: unknown): m is RMSNorm | LayerNorm => m instanceof RMSNorm || m instanceof LayerNorm;
    const norms = [...model.module.namedModules()].filter(([, m]) => isNorm(m)).map(([path]) => path);
    assert.ok(norms.length >= 2 * model.config.layers + 1);
    model.addLora({ rank: 2, modulesToSave: norms });
    close(await model.logits([short]), goldenFloats(arrays, "logits.1"), 1e-4, `${name} with copies of its norms`);
    await trainedLoss(model, values.rows);
    for (const path of norms) {
      const copies = [...model.module.namedParameters()].filter(([n]) => n.startsWith(`${path}.modules_to_save.`));
      assert.ok(copies.length > 0);
      for (const [n, p] of copies) {
        const key = `gradient.${n.replace(/modules_to_save\.default\./, "")}`;
        close((await p.grad!.data()) as Float32Array, goldenFloats(arrays, key), 1e-3, key);
      }
    }
    model.module.zeroGrad();
  });
}
