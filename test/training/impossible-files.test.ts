// The failures of impossible.test.ts that concern what is saved, loaded, merged and exported.
import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { exampleOf } from "../../src/data/mask.js";
import { SafetensorsFile } from "../../src/hub/safetensors.js";
import { writeSafetensors } from "../../src/hub/safetensors-write.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { loadModel, type Model, type TrainOptions } from "../../src/index.js";
import type { LoraLinear } from "../../src/lora/linear.js";
import { resetPeak, stats } from "../../src/tensor/native.js";
import { Tensor } from "../../src/tensor/tensor.js";
import { smallConfig, withModelFolder } from "../facade/small.js";
import { adapted, rows, withFolders } from "./resumable.js";

const plain: TrainOptions = { batch: 4, lr: 1e-2, schedule: "constant", progress: false };
const talk = [
  { role: "user", content: "the cat?" },
  { role: "assistant", content: "the old cat." },
] as const;

const trained = (model: Model): number => [...model.module.namedParameters()].filter(([, p]) => p.requiresGrad).length;

describe("it is impossible that", () => {
  it("an adapter is saved or loaded without a target", () =>
    withFolders(async (folder, output) => {
      const model = await adapted(folder);
      await model.save(output);
      const path = join(output, "adapter_model.safetensors");
      const parts = [];
      {
        await using file = await SafetensorsFile.open(path);
        assert.equal(file.names().length, trained(model));
        for (const name of file.names()) {
          const { dtype, shape } = file.entry(name);
          parts.push({ name, dtype, shape, data: await file.read(name) });
        }
      }
      model.dispose();
      const fresh = await loadModel(folder, { weights: "random", seed: 1, progress: false });
      const whole = parts.filter(({ name }) => !name.includes("layers.1.mlp.up_proj"));
      assert.equal(whole.length, parts.length - 2);
      await writeSafetensors(path, whole);
      await assert.rejects(async () => fresh.loadAdapter(output), /layers\.1\.mlp\.up_proj.*incomplete/);
      await writeSafetensors(path, parts.slice(1));
      await assert.rejects(async () => fresh.loadAdapter(output), { name: "CheckpointError" });
      await writeSafetensors(path, [...parts, { ...parts[0]!, name: "base_model.model.elsewhere.lora_A.weight" }]);
      await assert.rejects(async () => fresh.loadAdapter(output), /have no place in this model \(.*elsewhere/);
      fresh.dispose();
    }));

  it("a merged model differs unnoticed: logits are compared, and the base is named", () =>
    withModelFolder(async (folder) => {
      const model = await adapted(folder, { dropout: 0 });
      await model.train(rows, { ...plain, steps: 4 });
      const layer = model.module.module("model.layers.0.mlp.up_proj") as LoraLinear;
      const { forward } = layer;
      layer.forward = (x) => forward.call(layer, x).mul(1.1); // what merge() knows nothing of
      await assert.rejects(model.merge(), (error: Error) => {
        assert.equal(error.name, "StateError");
        assert.match(error.message, /^merge: the logits changed by .* when "default" was merged into tunebook-model/);
        return true;
      });
      model.dispose();
    }));

  it("an exported model differs unnoticed: what stands in the folder is read back and compared", () =>
    withFolders(async (folder, output) => {
      const [one, two] = [1, 2].map((seed) => loadModel(folder, { weights: "random", seed, progress: false }));
      const first = await one!;
      await first.export(output);
      first.dispose();
      const second = await two!;
      // A single file goes before an index: the first model's would be loaded.
      await assert.rejects(second.export(output, { shardBytes: 100_000 }), (error: Error) => {
        assert.equal(error.name, "CheckpointError");
        assert.match(error.message, /read back from .*, model\.\S+ is not what was written.*Export to an empty folder/);
        return true;
      });
      await rm(join(output, "model.safetensors"));
      for (const dtype of ["float32", "bfloat16", "float16"] as const)
        await second.export(output, { dtype, shardBytes: 100_000 });
      second.dispose();
    }));

  it("saving or loading needs the whole model in memory once more: one tensor is held at a time", () =>
    withFolders(async (_, output) => {
      setFlagsFromString("--expose-gc");
      const collect = runInNewContext("gc") as () => void;
      const wide = { ...smallConfig, hidden_size: 256, intermediate_size: 512, num_hidden_layers: 8 };
      for (const quantize of [false, true]) {
        const plan = loadModel(wide, { weights: "random", device: "cpu", progress: false });
        const model = await (quantize ? plan.quantize({ type: "nf4" }) : plan);
        await model.logits([[1, 2, 3]]);
        const largest = 4 * wide.hidden_size * wide.intermediate_size;
        const whole = 4 * model.parameters().reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0);
        collect();
        const before = process.memoryUsage().arrayBuffers;
        const held: number[] = [];
        let count = 0;
        const { data } = Tensor.prototype;
        resetPeak();
        const live = stats().liveBytes;
        Tensor.prototype.data = async function (this: Tensor) {
          if (++count % 8 === 0) {
            collect();
            held.push(process.memoryUsage().arrayBuffers - before);
          }
          return data.call(this);
        } as typeof data;
        try {
          await model.export(join(output, String(quantize)));
        } finally {
          Tensor.prototype.data = data;
        }
        assert.ok(count > 140 && whole > 20 * largest, `${count} tensors of ${whole} bytes`);
        assert.ok(Math.max(...held) < whole / 4, `${Math.max(...held)} bytes are held at once`);
        assert.ok(stats().peakBytes - live <= 2 * largest, `${stats().peakBytes - live} bytes of tensors`);
        model.dispose();
        // Quantised as it comes, no more of it stands in its own precision than is being read.
        resetPeak();
        const none = stats().liveBytes;
        const options = { device: "cpu", progress: false } as const;
        const small = await loadModel(join(output, String(quantize)), options).quantize({ type: "nf4" });
        assert.ok(stats().peakBytes - none < whole / 2, `${stats().peakBytes - none} bytes of ${whole} while loading`);
        assert.ok(stats().liveBytes - none < whole / 5);
        small.dispose();
      }
    }));

  it("the chat template differs between training and inference: one template, saved with the adapter", () =>
    withFolders(async (folder, output) => {
      const model = await adapted(folder);
      await model.train([{ messages: [...talk] }], { ...plain, steps: 1, output });
      const saved = await Tokenizer.fromFolder(output);
      const conversation = [...talk.slice(0, 1)];
      const asked = model.tokenizer.encodeChat(conversation, { addGenerationPrompt: true });
      assert.deepEqual(saved.encodeChat(conversation, { addGenerationPrompt: true }), asked);
      assert.deepEqual([...exampleOf([...talk], saved).ids].slice(0, asked.length), asked);
      model.dispose();
    }));

  it("the chat template of the base replaces the one that an adapter was trained with", () =>
    withFolders(async (folder, output) => {
      const asked = (model: Model): string =>
        model.tokenizer.applyChatTemplate([{ role: "user", content: "the cat?" }], { addGenerationPrompt: true });
      const model = await adapted(folder);
      const trainedWith = asked(model);
      await model.save(join(output, "adapter"));
      model.dispose();
      const file = join(folder, "tokenizer_config.json");
      const config = JSON.parse(await readFile(file, "utf8")) as Record<string, string>;
      const other = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}";
      await rm(join(folder, "chat_template.jinja"), { force: true });
      await writeFile(file, JSON.stringify({ ...config, chat_template: other }));
      const again = await loadModel(folder, { weights: "random", seed: 1, progress: false });
      assert.equal(asked(again), "user: the cat?");
      await again.loadAdapter(join(output, "adapter"));
      assert.equal(asked(again), trainedWith);
      again.addLora({ rank: 2, name: "new" });
      assert.equal(asked(again), "user: the cat?");
      again.setAdapter("default");
      await again.save(join(output, "copy"));
      assert.equal((await Tokenizer.fromFolder(join(output, "copy"))).chatTemplate, again.tokenizer.chatTemplate);
      again.removeAdapter("new");
      await again.merge();
      assert.equal(asked(again), trainedWith);
      again.dispose();
    }));
});
