/** Checkpoints that bitsandbytes has quantised, beside transformers' logits of them. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { CheckpointError, ConfigError } from "../../src/errors.js";
import { SafetensorsFile } from "../../src/hub/safetensors.js";
import { type TensorToWrite, writeSafetensors } from "../../src/hub/safetensors-write.js";
import { loadModel } from "../../src/plan.js";
import { QuantizedLinear } from "../../src/quantization/nf4.js";
import type { Nf4Weight } from "../../src/tensor/ops/nf4.js";
import { trainLoop } from "../../src/training/loop.js";
import { trainSettings } from "../../src/training/options.js";
import { goldenArrays, goldenFloats, goldenPath, goldenValues, relativeError } from "../golden.js";

const Q = "model.layers.0.self_attn.q_proj";
const STATE = `${Q}.weight.quant_state.bitsandbytes__nf4`;
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-bnb-"));
});
after(() => rm(folder, { recursive: true, force: true }));

/** A copy of a checkpoint with some of its tensors changed, or left out. */
async function changed(name: string, change: (tensors: Map<string, TensorToWrite>) => void): Promise<string> {
  const copy = join(folder, "changed");
  await rm(copy, { recursive: true, force: true });
  await cp(goldenPath(name), copy, { recursive: true });
  const tensors = new Map<string, TensorToWrite>();
  {
    await using file = await SafetensorsFile.open(join(goldenPath(name), "model.safetensors"));
    for (const key of file.names()) {
      const { dtype, shape } = file.entry(key);
      tensors.set(key, { name: key, dtype, shape, data: await file.read(key) });
    }
  }
  change(tensors);
  await writeSafetensors(join(copy, "model.safetensors"), tensors.values());
  return copy;
}

/** A change of quant_state's JSON. */
function state(edit: (fields: Record<string, unknown>) => unknown): (tensors: Map<string, TensorToWrite>) => void {
  return (tensors) => {
    const fields = JSON.parse(Buffer.from(tensors.get(STATE)!.data as Uint8Array).toString());
    const data = Buffer.from(JSON.stringify(edit(fields) ?? fields));
    tensors.set(STATE, { name: STATE, dtype: "U8", shape: [data.length], data });
  };
}

describe("checkpoints of bitsandbytes in 4 bits", () => {
  for (const name of ["bnb-nf4", "bnb-nf4-nested", "bnb-fp4-nested"]) {
    it(`${name}: the bytes of the file, and transformers' logits`, async () => {
      using model = await loadModel(goldenPath(name));
      const golden = goldenArrays(`${name}/golden`);
      for (const [i, ids] of goldenValues(`${name}/golden`).sequences.entries()) {
        const logits = await model.logits([ids]);
        // The reference are the weights that bitsandbytes restores, multiplied in float32.
        const restored = goldenFloats(golden, `restored.${i}`);
        const exact = relativeError(logits, restored);
        assert.ok(exact < 5e-6, `sequence ${i}: relative error ${exact} to the restored weights`);
        // Its own kernel for the CPU rounds inputs, scales of blocks and results to bfloat16 (golden_bnb.py checks how far a product is from float64):
        // seven in a row are up to 1.004e-2 away from these very weights, and that far from us, no more.
        const kernel = goldenFloats(golden, `logits.${i}`);
        const [error, own] = [relativeError(logits, kernel), relativeError(restored, kernel)];
        assert.ok(
          own < 1.1e-2 && Math.abs(error - own) < 1e-5,
          `sequence ${i}: relative error ${error}, wanted ${own}`,
        );
      }
      const file = goldenArrays(`${name}/model`);
      let seen = 0;
      for (const [path, module] of model.module.namedModules()) {
        if (!(module instanceof QuantizedLinear)) continue;
        seen++;
        const weight = module.quantized as Nf4Weight;
        assert.deepEqual(await weight.codes.raw(), file.get(`${path}.weight`)!.data);
        const absmax = weight.doubleQuant ? await weight.absmax.raw() : await weight.absmax.data();
        assert.deepEqual(absmax, file.get(`${path}.weight.absmax`)!.data);
      }
      assert.equal(seen, 14);
      assert.equal(model.trainable().trainable, 0);
    });
  }

  it("trains adapters on top", async () => {
    using model = await loadModel(goldenPath("bnb-nf4-nested")).addLora({ rank: 4, target: "all-linear", seed: 1 });
    const ids = Int32Array.from({ length: 24 }, (_, i) => 3 + ((i * 11) % 90));
    const steps = trainLoop({
      model: model.module,
      train: [{ ids, labels: ids }],
      settings: trainSettings({ steps: 8, batch: 1, lr: 1e-2, schedule: "constant" }),
    });
    const losses: number[] = [];
    for await (const step of steps) losses.push(step.loss);
    assert.ok(losses.at(-1)! < losses[0]! - 0.1, `losses ${losses}`);
    const merged = join(folder, "merged");
    await model.merge();
    await model.export(merged);
    using again = await loadModel(merged);
    assert.ok(relativeError(await again.logits([[3, 1, 4]]), await model.logits([[3, 1, 4]])) < 1e-5);
    assert.equal(JSON.parse(await readFile(join(merged, "config.json"), "utf8")).quantization_config, undefined);
  });

  it("is not quantised twice, and is described without its weights", async () => {
    const path = goldenPath("bnb-nf4");
    await assert.rejects(
      async () => loadModel(path).quantize({ type: "nf4" }),
      /in 4 bits already \(nf4, by bitsandbytes\)/,
    );
    using model = await loadModel(path);
    assert.throws(() => model.quantize({ type: "nf4" }), ConfigError);
    using planned = await loadModel(path, { weights: "none" });
    assert.equal(planned.memory().weights, model.memory().weights);
  });

  it("refuses parts that do not fit", async () => {
    const refused = async (
      change: (tensors: Map<string, TensorToWrite>) => void,
      message: RegExp,
      name = "bnb-nf4",
    ) => {
      const path = await changed(name, change);
      await assert.rejects(
        async () => loadModel(path),
        (error: Error) => {
          assert.ok(error instanceof CheckpointError, `${error.name}: ${error.message}`);
          assert.match(error.message, message);
          return true;
        },
      );
    };
    await refused((t) => t.delete(`${Q}.weight.absmax`), /q_proj\.weight\.absmax is missing/);
    await refused((t) => t.delete(`${Q}.weight.quant_map`), /quant_map is missing/);
    await refused((t) => t.delete(`${Q}.weight`), /has a quant_state and no weight/);
    await refused((t) => t.delete(STATE), /q_proj/);
    await refused(
      state((s) => ({ ...s, blocksize: 48 })),
      /blocksize is 48/,
    );
    await refused(
      state((s) => ({ ...s, blocksize: 128 })),
      /absmax has 256 bytes, expected 128/,
    );
    await refused(
      state((s) => ({ ...s, blocksize: 2 ** 40 })),
      /blocksize/,
    );
    await refused(
      state((s) => ({ ...s, shape: [64, -64] })),
      /shape is \[64,-64\]/,
    );
    await refused(
      state((s) => ({ ...s, shape: [32, 128] })),
      /should have shape \[64, 64\].*says \[32, 128\]/,
    );
    await refused(
      state((s) => ({ ...s, shape: [1e9, 1e9] })),
      /expected 500000000000000000|bytes/,
    );
    await refused(
      state((s) => ({ ...s, quant_type: "fp4" })),
      /quant_type is fp4/,
    );
    await refused(
      state(() => []),
      /is no object/,
    );
    await refused(
      state((s) => ({ ...s, nested_offset: "1" })),
      /nested_offset/,
    );
    await refused(
      (t) => t.set(STATE, { ...t.get(STATE)!, data: Buffer.from("{".repeat(t.get(STATE)!.shape[0]!)) }),
      /no JSON/,
    );
    const map = `${Q}.weight.quant_map`;
    await refused(
      (t) => t.set(map, { ...t.get(map)!, data: new Uint8Array(64) }),
      /other numbers than bitsandbytes' own/,
    );
    const nested = `${Q}.weight.nested_quant_map`;
    const nan = new Uint8Array(new Float32Array(256).fill(Number.NaN).buffer);
    await refused((t) => t.set(nested, { ...t.get(nested)!, data: nan }), /NaN/, "bnb-nf4-nested");
    await refused((t) => t.delete(`${Q}.weight.nested_absmax`), /nested_absmax is missing/, "bnb-nf4-nested");
  });

  it("refuses checkpoints that are quantised otherwise", async () => {
    const copy = await changed("bnb-nf4", () => {});
    const config = JSON.parse(await readFile(join(copy, "config.json"), "utf8"));
    for (const [quantization, message] of [
      [{ quant_method: "gptq", bits: 4 }, /quantised by "gptq"/],
      [{ load_in_8bit: true, quant_method: "bitsandbytes" }, /bitsandbytes in 8 bits/],
      [{ load_in_4bit: true, bnb_4bit_quant_type: "nf5" }, /bnb_4bit_quant_type/],
      ["nf4", /"quantization_config" is "nf4"/],
    ] as const) {
      await writeFile(join(copy, "config.json"), JSON.stringify({ ...config, quantization_config: quantization }));
      await assert.rejects(async () => loadModel(copy), message);
    }
  });
});
