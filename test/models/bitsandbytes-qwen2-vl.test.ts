/** A Qwen2-VL that bitsandbytes has quantised, under both spellings of its tensors' names (scripts/peers/golden_bnb_qwen2_vl.py). */
import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { SafetensorsFile } from "../../src/hub/safetensors.js";
import { type TensorToWrite, writeSafetensors } from "../../src/hub/safetensors-write.js";
import type { Model } from "../../src/index.js";
import { loadModel } from "../../src/plan.js";
import { QuantizedLinear } from "../../src/quantization/nf4.js";
import type { Nf4Weight } from "../../src/tensor/ops/nf4.js";
import { noGrad } from "../../src/tensor/record.js";
import { scope } from "../../src/tensor/scope.js";
import { goldenArrays, goldenFloats, goldenPath, goldenValues, relativeError } from "../golden.js";
import { seenRows } from "./seen.js";

const NAME = "bnb-qwen2-vl";
const golden = goldenArrays(`${NAME}/golden`);
const values = goldenValues(`${NAME}/golden`);
const file = goldenArrays(`${NAME}/model`);
/** As transformers saves them, and as it calls them since 4.52. */
const newer = (name: string): string =>
  name.replace(/^visual\./, "model.visual.").replace(/^model\.(?!visual\.)/, "model.language_model.");

describe("a Qwen2-VL of bitsandbytes in 4 bits", () => {
  let folder: string;
  let renamed: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "tunebook-bnb-vl-"));
    renamed = join(folder, "renamed");
    await cp(goldenPath(NAME), renamed, { recursive: true });
    const tensors: TensorToWrite[] = [];
    {
      await using source = await SafetensorsFile.open(join(goldenPath(NAME), "model.safetensors"));
      for (const key of source.names()) {
        const { dtype, shape } = source.entry(key);
        tensors.push({ name: newer(key), dtype, shape, data: await source.read(key) });
      }
    }
    await writeSafetensors(join(renamed, "model.safetensors"), tensors);
  });
  after(() => rm(folder, { recursive: true, force: true }));

  async function check(model: Model): Promise<void> {
    let seen = 0;
    for (const [path, module] of model.module.namedModules()) {
      if (!(module instanceof QuantizedLinear)) continue;
      seen++;
      const weight = module.quantized as Nf4Weight;
      const theirs = [...file.keys()].find((key) => newer(key) === `${path}.weight`)!;
      assert.deepEqual(await weight.codes.raw(), file.get(theirs)!.data, path);
      assert.deepEqual(await weight.absmax.raw(), file.get(`${theirs}.absmax`)!.data, path);
    }
    assert.equal(seen, values.matrices);
    for (const [i, row] of values.rows.entries()) {
      const rows = seenRows([row], undefined, golden);
      const y = scope(() => noGrad(() => model.module.logits(model.module.hidden(rows))));
      const error = relativeError((await y.data()) as Float32Array, goldenFloats(golden, `restored.${i}`));
      y.dispose();
      assert.ok(error < 1e-4, `row ${i}: relative error ${error}`);
    }
  }

  it("keeps the file's bytes and gives transformers' logits behind images", async () => {
    using model = await loadModel(goldenPath(NAME), { progress: false });
    await check(model);
  });

  it("does so under the other names", async () => {
    using model = await loadModel(renamed, { progress: false });
    await check(model);
  });

  it("is described without its weights, and trains adapters on top", async () => {
    using planned = await loadModel(goldenPath(NAME), { weights: "none" });
    using model = await loadModel(renamed, { progress: false }).addLora({ rank: 2, target: "all-linear", seed: 1 });
    assert.equal(planned.memory().weights, model.memory().weights);
    assert.ok(model.trainable().trainable > 0);
  });
});
