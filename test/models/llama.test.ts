import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { generateIds, samplingSettings } from "../../src/evaluation/generate.js";
import { loadModel, type Model } from "../../src/index.js";
import { stats } from "../../src/tensor/native.js";
import { goldenPath, goldenValues } from "../golden.js";
import { shared } from "../shared.js";

async function greedy(model: Model, prompt: number[], length: number): Promise<number[]> {
  const out = [...prompt];
  for await (const id of generateIds(model.module, prompt, samplingSettings({ maxNewTokens: length }), new Set()))
    out.push(id);
  return out;
}

for (const name of ["llama-gqa", "llama-scaled", "llama-bias"]) {
  test(`${name}: generation with a key-value cache gives transformers' greedy ids and leaves nothing behind`, async () => {
    const { prompt, ids } = goldenValues(`${name}/golden`).greedy as { prompt: number[]; ids: number[] };
    const before = stats().handles;
    const model = await loadModel(goldenPath(name), { progress: false });
    assert.deepEqual(await greedy(model, prompt, ids.length - prompt.length), ids);
    model.dispose();
    assert.equal(stats().handles, before, "tensors were left behind");
  });
}

test("the names of a model are its checkpoint's, and random and weightless models can be made from a config", async () => {
  const model = await loadModel(goldenPath("llama-gqa"), { weights: "none" });
  assert.ok(
    model.parameters().some((p) => p.name === "model.layers.1.self_attn.q_proj.weight" && p.shape.join() === "32,32"),
  );
  const big = await loadModel(
    {
      model_type: "llama",
      vocab_size: 32000,
      hidden_size: 4096,
      intermediate_size: 11008,
      num_hidden_layers: 32,
      num_attention_heads: 32,
    },
    { weights: "none" },
  );
  assert.equal(big.trainable().total, 6_738_415_616);
  big.addLora({ rank: 8, target: ["q_proj", "v_proj"] });
  assert.equal(big.trainable().trainable, 4_194_304);
  await assert.rejects(async () => big.logits([[1]]), /weights/);
  const a = await loadModel(goldenPath("llama-gqa"), { weights: "random", seed: 5 });
  const b = await loadModel(goldenPath("llama-gqa"), { weights: "random", seed: 5 });
  assert.deepEqual(await a.logits([[1, 2]]), await b.logits([[1, 2]]));
  a.dispose();
  b.dispose();
});

const stories = join(shared, "models", "stories260K");
const absent = existsSync(stories) ? false : `${stories} is absent: the real weights are not part of this repository`;

test("stories260K writes the reference text, through its tokenizer", { skip: absent }, async () => {
  const file = JSON.parse(readFileSync(join(stories, "golden_greedy.json"), "utf8")) as {
    prompt_ids: number[];
    ids: number[];
    text: string;
  };
  const model = await loadModel(stories, { progress: false });
  const length = file.ids.length - file.prompt_ids.length;
  assert.deepEqual(await greedy(model, file.prompt_ids, length), file.ids);
  assert.equal((await model.generate("", { maxNewTokens: length })).trim(), file.text.trim());
  model.dispose();
});
