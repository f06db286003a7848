// A different adapter for each row of a batch: the texts of each adapter by itself, with recordings and without.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setReplaying } from "../../src/evaluation/decode.js";
import { loadModel, type Model } from "../../src/index.js";
import { routesOf } from "../../src/nn/routes.js";
import { stats } from "../../src/tensor/native.js";
import { recordings } from "../../src/tensor/recording.js";
import { colourRows, smallConfig, withModelFolder } from "../facade/small.js";

const quiet = { progress: false } as const;
const long = { ...smallConfig, tie_word_embeddings: false, max_position_embeddings: 512 };
const prompts = ["The sea is", "The grass", "coal", "x", "The rose is", "of the hills", "A", "The sea and the rose"];
const adapters = ["plain", null, "dora", "tables", "plain", "tables", null, "dora"];

async function withAdapters(folder: string, quantized: boolean): Promise<Model> {
  const plan = loadModel(folder, { weights: "random", seed: 1, ...quiet });
  const model = await (quantized ? plan.quantize({ type: "nf4" }) : plan);
  const train = async (): Promise<void> => {
    await model.train(colourRows(16), { steps: 5, batch: 4, lr: 3e-2, ...quiet });
  };
  model.addLora({ rank: 4, name: "plain", target: "all-linear", seed: 1, dropout: 0.1 });
  await train();
  model.addLora({ rank: 2, name: "dora", target: ["q_proj", "up_proj"], dora: true, seed: 2 });
  await train();
  model.addLora({
    rank: 3,
    name: "tables",
    target: ["embed_tokens", "v_proj"],
    modulesToSave: ["norm", "lm_head"],
    seed: 3,
  });
  await train();
  return model;
}

for (const quantized of [false, true])
  test(`each row of a batch has its own adapter${quantized ? ", over a quantised model" : ""}`, () =>
    withModelFolder(async (folder) => {
      const model = await withAdapters(folder, quantized);
      await model.generate(prompts, { adapters, maxNewTokens: 8 });
      const before = stats();
      for (const options of [
        { maxNewTokens: 40 },
        { maxNewTokens: 30, temperature: 0.9, topP: 0.9, seed: 5, repetitionPenalty: 1.2 },
        { maxNewTokens: 24, kvCache: "int8" as const },
      ]) {
        const alone: string[] = [];
        for (const [i, name] of adapters.entries()) {
          const run = (): Promise<string[]> => model.generate(prompts, options);
          if (name !== null) model.setAdapter(name);
          alone[i] = (await (name === null ? model.withoutAdapter(run) : run()))[i]!;
        }
        assert.ok(new Set(alone).size > 5, "the adapters make no difference");
        for (const batch of [1, 3, 8]) {
          const together = await model.generate(prompts, { ...options, adapters, batch });
          assert.deepEqual(together, alone, `batch ${batch}, ${JSON.stringify(options)}`);
        }
        setReplaying(false);
        try {
          assert.deepEqual(await model.generate(prompts, { ...options, adapters }), alone);
        } finally {
          setReplaying(true);
        }
      }
      assert.equal(recordings(model.device).alive, 0);
      assert.equal(stats().handles, before.handles, "tensors were left behind");
      model.dispose();
    }, long));

test("adapters of rows are checked", () =>
  withModelFolder(
    async (folder) => {
      const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet }).addLora({ rank: 2, name: "a" });
      await assert.rejects(
        model.generate(["x", "y"], { adapters: ["a"] }),
        /one for each of the 2 prompts.*received 1/,
      );
      await assert.rejects(model.generate(["x"], { adapters: ["b"] }), /"b"/);
      await assert.rejects(model.generate(["x"], { adapters: "aa" as unknown as string[] }), /"a"|received aa/);
      model.dispose();
      const biased = await loadModel(folder, { weights: "random", seed: 1, ...quiet }).addLora({
        rank: 2,
        name: "a",
        target: ["q_proj"],
        bias: "all",
      });
      await assert.rejects(biased.generate(["x"], { adapters: ["a"] }), /"a" has biases of its own/);
      await assert.rejects(biased.generate(["x"], { adapters: [null] }), /active adapter "a" has biases/);
      biased.dispose();
    },
    { ...smallConfig, attention_bias: true },
  ));

test("routes join neighbours of one adapter", () => {
  assert.deepEqual(routesOf([undefined, "a", "a", "b"], [1, 2, 3, 1]), [
    { adapter: undefined, begin: 0, end: 1 },
    { adapter: "a", begin: 1, end: 6 },
    { adapter: "b", begin: 6, end: 7 },
  ]);
});
