// Weights from files to a device by native threads: the bytes, the order with queued work, damaged files, interrupts, memory.
import assert from "node:assert/strict";
import { mkdir, mkdtemp, open, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { CheckpointError } from "../../src/errors.js";
import { ConfigFields } from "../../src/hub/config.js";
import { float32ToBfloat16, float32ToFloat16 } from "../../src/hub/float16.js";
import { SafetensorsFolder } from "../../src/hub/safetensors-folder.js";
import { writeSafetensors } from "../../src/hub/safetensors-write.js";
import { loadModel } from "../../src/index.js";
import type { CausalLM } from "../../src/models/causal.js";
import { checkpointTargets, loadWeights } from "../../src/models/load.js";
import { createModel } from "../../src/models/registry.js";
import { setWeightDType } from "../../src/nn/dtype.js";
import { QuantizedLinear, quantizeModule, quantizeSettings } from "../../src/quantization/nf4.js";
import { defaultDevice } from "../../src/tensor/device.js";
import type { FloatDType } from "../../src/tensor/dtype.js";
import { FileLoads } from "../../src/tensor/load.js";
import { resetPeak, settle, stats, trim } from "../../src/tensor/native.js";
import { type Nf4Weight, quantizeNf4 } from "../../src/tensor/ops/nf4.js";
import { outsideScope, scope } from "../../src/tensor/scope.js";
import { empty, type Tensor, tensor } from "../../src/tensor/tensor.js";

const device = defaultDevice();
// The embedding has more than one piece of 8 MiB.
const config = {
  model_type: "llama",
  vocab_size: 30011,
  hidden_size: 160,
  intermediate_size: 352,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
};
const PACK = { F32: (x: Float32Array) => x, BF16: float32ToBfloat16, F16: float32ToFloat16 };

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "tunebook-stream-"));
});
after(() => rm(root, { recursive: true, force: true }));

let state = 1;
function values(count: number): Float32Array {
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** A folder with random weights in `shards` files. */
async function checkpoint(name: string, dtype: keyof typeof PACK, shards: number): Promise<string> {
  const folder = join(root, name);
  await mkdir(folder);
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  const network = createModel(new ConfigFields(config, "the test"));
  const files = Array.from({ length: shards }, (_, i) => `model-${i + 1}-of-${shards}.safetensors`);
  const map: Record<string, string> = {};
  const all = [...checkpointTargets(network)].map(([key, { shape }], i) => {
    map[key] = files[i % shards]!;
    const data = PACK[dtype](values(shape.reduce((n, size) => n * size, 1)));
    return { name: key, dtype, shape, data: new Uint8Array(data.buffer) };
  });
  if (shards === 1) await writeSafetensors(join(folder, "model.safetensors"), all);
  else {
    for (const file of files)
      await writeSafetensors(
        join(folder, file),
        all.filter((t) => map[t.name] === file),
      );
    await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
  }
  return folder;
}

function network(dtype: FloatDType, quantized = false): CausalLM {
  const model = createModel(new ConfigFields(config, "the test"));
  setWeightDType(model, dtype);
  if (quantized) quantizeModule(model, quantizeSettings({ type: "nf4", doubleQuant: true }), ["lm_head"]);
  model.to(device);
  return model;
}

async function bytesOf(t: Tensor): Promise<Uint8Array> {
  const data = (await t.data()) as unknown as Float32Array;
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

async function same(a: Tensor, b: Tensor, what: string): Promise<void> {
  assert.equal(a.dtype, b.dtype, what);
  assert.ok(Buffer.compare(await bytesOf(a), await bytesOf(b)) === 0, `${what} differs`);
}

/** What must not change by a load that fails, or by one whose model was disposed. */
function held(): { handles: number; live: number; host: number } {
  const s = stats();
  return { handles: s.handles, live: s.liveBytes, host: s.hostBytes };
}

for (const [stored, wanted, shards] of [
  ["BF16", "float32", 1],
  ["BF16", "bfloat16", 3],
  ["BF16", "float16", 1],
  ["F16", "float32", 2],
  ["F16", "float16", 1],
  ["F32", "float32", 1],
  ["F32", "bfloat16", 2],
] as const)
  test(`${stored} in ${shards} file(s) to ${wanted}: the numbers of the file`, async () => {
    const folder = await checkpoint(`${stored}-${wanted}`, stored, shards);
    const none = held();
    await using source = await SafetensorsFolder.open(folder);
    const model = network(wanted);
    const seen: number[] = [];
    await loadWeights(model, source, [], (done) => seen.push(done));
    assert.equal(
      seen.at(-1),
      source.names().reduce((n, name) => n + source.entry(name).bytes, 0),
    );
    assert.deepEqual(
      seen,
      [...seen].sort((a, b) => a - b),
    );
    for (const [name, p] of model.namedParameters()) {
      const full = tensor(await source.readFloat32(name), { shape: p.shape, device });
      const expected = p.dtype === "float32" ? full : full.to(p.dtype);
      await same(p, expected, name);
      expected.dispose();
      full.dispose();
    }
    model.dispose();
    assert.deepEqual(held(), none);
  });

test("quantised while it arrives: the codes and scales of the same numbers in float32, and little memory", async () => {
  for (const stored of ["BF16", "F32"] as const) {
    const folder = await checkpoint(`nf4-${stored}`, stored, 2);
    const none = held();
    await using source = await SafetensorsFolder.open(folder);
    const model = network("bfloat16", true);
    trim();
    resetPeak();
    await loadWeights(model, source, []);
    const peak = stats().peakBytes - none.live;
    const live = held().live - none.live;
    let dense = 0;
    let largest = 0;
    for (const [name, layer] of model.namedModules()) {
      if (!(layer instanceof QuantizedLinear)) continue;
      const { bytes, shape } = source.entry(`${name}.weight`);
      dense += bytes;
      largest = Math.max(largest, bytes);
      const full = tensor(await source.readFloat32(`${name}.weight`), { shape, device });
      const expected = quantizeNf4(full, { doubleQuant: true });
      const got = layer.quantized as Nf4Weight;
      for (const part of ["codes", "absmax", "absmax2", "offset"] as const)
        await same(got[part]!, expected[part]!, `${name} ${part}`);
      expected.dispose();
      full.dispose();
    }
    assert.ok(dense > 12 * largest, "several rounds through the staging memory");
    // Four staged matrices, and one in 32 bits with what is made of it.
    if (stored === "BF16") assert.ok(peak < live + 8 * largest, `${peak} bytes for a model of ${live}`);
    model.dispose();
    assert.deepEqual(held(), none);
  }
});

test("a file that is cut while it is read, or cannot be read, is named with the tensor and a remedy; nothing stays behind", async () => {
  const folder = await checkpoint("cut", "BF16", 1);
  const none = held();
  const path = join(folder, "model.safetensors");
  await using source = await SafetensorsFolder.open(folder);
  const middle = source.locate("model.layers.3.mlp.up_proj.weight")!;
  await truncate(path, middle.offset + 1001);
  const model = network("bfloat16", true);
  await assert.rejects(loadWeights(model, source, []), (error: Error) => {
    assert.ok(error instanceof CheckpointError);
    assert.match(
      error.message,
      /model\.safetensors ended at byte \d+, inside of model\.layers\.3\.mlp\.up_proj\.weight/,
    );
    assert.ok(error.message.includes(`byte ${middle.offset + 1001}`), error.message);
    assert.match(error.message, /Fetch it again/);
    return true;
  });
  model.dispose();
  assert.deepEqual(held(), none);

  const directory = await open(folder, "r");
  const broken = Object.create(source) as SafetensorsFolder;
  broken.locate = (name) => ({ ...source.locate(name)!, fd: directory.fd });
  for (const key of ["names", "has", "entry"] as const)
    Object.defineProperty(broken, key, { value: source[key].bind(source) });
  Object.defineProperty(broken, "where", { value: folder });
  const second = network("bfloat16");
  await assert.rejects(loadWeights(second, broken, []), (error: Error) => {
    assert.ok(error instanceof CheckpointError, String(error));
    assert.match(error.message, /model\..*weight could not be read: EISDIR.*Check the disk/);
    return true;
  });
  await directory.close();
  second.dispose();
  assert.deepEqual(held(), none);
  // The whole facade gives back what had come.
  await assert.rejects(async () => await loadModel(folder, { progress: false, device }), CheckpointError);
  assert.deepEqual(held(), none);
});

test("an interrupt ends a load at once, with its reason, and frees its memory", async () => {
  const folder = await checkpoint("interrupt", "F32", 2);
  const none = held();
  for (const after of [0, 1, 5]) {
    await using source = await SafetensorsFolder.open(folder);
    const model = network("bfloat16", true);
    const stop = new AbortController();
    let taken = 0;
    const loading = loadWeights(
      model,
      source,
      [],
      () => {
        if (++taken === after) {
          stop.abort(new Error("enough"));
        }
      },
      stop.signal,
    );
    if (after === 0) {
      stop.abort(new Error("enough"));
    }
    await assert.rejects(loading, /^Error: enough$/);
    assert.equal(taken, after, "nothing is taken after the interrupt");
    model.dispose();
    assert.deepEqual(held(), none);
  }
  using model = await loadModel(folder, { progress: false, device }); // and the next load works
  assert.equal(model.parameters()[0]!.dtype, "float32");
});

test("a load begins after queued work on its memory, and the memory of a disposed tensor is not given away before it ends", async () => {
  const path = join(root, "numbers.bin");
  const numbers = values(6_000_000); // three pieces
  await writeFile(path, new Uint8Array(numbers.buffer));
  const file = await open(path, "r");
  const stretch = { fd: file.fd, path, offset: 0, bytes: numbers.byteLength };
  const none = held();
  const loads = new FileLoads(device);
  const old = new Float32Array(numbers.length).fill(3);
  const x = tensor(old, { device });
  // Work that reads what stands there before, queued and still running when the load is asked for.
  const sums = Array.from({ length: 8 }, () => scope(() => x.mul(2).sum()));
  const first = loads.load(x, stretch, "x");
  await file.close(); // the load has its own descriptor
  await first;
  for (const sum of sums) assert.equal(await sum.item(), 6 * numbers.length);
  assert.deepEqual(await x.data(), numbers);

  const again = await open(path, "r");
  const lost = outsideScope(() => empty([numbers.length], "float32", device));
  const second = loads.load(lost, { ...stretch, fd: again.fd }, "lost");
  lost.dispose();
  const other = tensor(old, { device }); // would take the block, were it free
  await second;
  assert.deepEqual(await other.data(), old);
  await again.close();

  loads.cancel();
  const late = outsideScope(() => empty([numbers.length], "float32", device));
  const reopened = await open(path, "r");
  await assert.rejects(loads.load(late, { ...stretch, fd: reopened.fd }, "late"), { code: "TUNEBOOK_CANCELLED" });
  assert.throws(() => loads.load(late, { ...stretch, bytes: 4 }, "late"), CheckpointError);
  await reopened.close();
  await loads.end();
  for (const t of [x, other, late, ...sums]) t.dispose();
  await settle(device);
  assert.deepEqual(held(), none);
});
