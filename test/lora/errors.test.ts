import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type LoraOptions, loadModel, type Model } from "../../src/index.js";
import { resetPeak, stats } from "../../src/tensor/native.js";
import { withModelFolder } from "../facade/small.js";
import { goldenPath } from "../golden.js";

const quiet = { progress: false } as const;

test("wrong options of addLora say what was expected, what came and what there is", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", ...quiet });
    const cases: [LoraOptions, RegExp][] = [
      [
        { rank: 4, target: ["q_porj"] },
        /no layer is named "q_porj", the nearest are q_proj.*this model has .*down_proj/,
      ],
      [{ rank: 4, target: ["q_proj", "embed_token"] }, /"embed_token", the nearest are embed_tokens/],
      [{ rank: 4, target: ".*\\.query" }, /no layer is named ".*query"/],
      [{ rank: 4, target: "(" + "q_proj" }, /no pattern that can be used/],
      [{ rank: 4, target: ["q_proj"], layers: [7] }, /no layer is left/],
      [{ rank: 4, target: ".*q_proj", layers: [0] }, /layers belongs to a target that is a list/],
      [{ rank: 4, modulesToSave: ["classifier"] }, /modulesToSave names "classifier".*it has .*norm/],
      [{ rank: 4, modulesToSave: ["mlp"] }, /is no linear layer, embedding or norm/],
      [{ rank: 4, target: ["embed_tokens"], init: "pissa" }, /computed from the weights/],
      [{ rank: 4, loraBias: true, dora: true }, /loraBias goes with neither/],
      [{ rank: 4, rankPattern: { q_proj: 0 } }, /rankPattern\["q_proj"\] must be a whole number/],
      [{ rank: 4, lora_alpha: 3 } as never, /unknown option "lora_alpha"/],
      [{ rank: 4, loftq: { iterations: 2 } }, /loftq belongs to init "loftq"/],
      [{ rank: 4, bias: "some" as never }, /bias must be one of "none", "all", "lora_only"/],
    ];
    for (const [options, message] of cases) {
      assert.throws(() => model.addLora(options), message);
      assert.ok(!model.parameters().some((p) => p.name.includes("lora_")), "something was added all the same");
    }
    assert.throws(() => model.addLora({ rank: 4 }).addLora({ rank: 4 }), /adapter named "default" already/);
    model.dispose();
  }));

/** Runs `use` with a copy of a golden adapter whose config is changed. */
async function changed(
  change: (config: Record<string, unknown>) => void,
  use: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-hostile-"));
  try {
    await cp(goldenPath("adapter-dora/adapter"), folder, { recursive: true });
    const path = join(folder, "adapter_config.json");
    const config = JSON.parse(await readFile(path, "utf8"));
    change(config);
    await writeFile(path, JSON.stringify(config));
    await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

test("adapter files that do not fit, or mean harm, are refused and leave the model as it was", async () => {
  const model: Model = await loadModel(goldenPath("llama-gqa"), quiet);
  const probe = [[1, 5, 9]];
  const plain = await model.logits(probe);
  const { handles } = stats();
  resetPeak();
  const cases: [string, (config: Record<string, unknown>) => void, RegExp][] = [
    ["another rank", (c) => { c.r = 8; }, /should have shape 8x\d+.*the file holds 4x/],
    ["a rank that no file holds", (c) => { c.r = 65_536; }, /should have shape 65536x\d+.*the file holds 4x/],
    ["no DoRA", (c) => { c.use_dora = false; }, /have no place in this model .*magnitude/],
    ["another init", (c) => { c.init_lora_weights = "olora"; }, /path_initial_model_for_weight_conversion/],
    ["token indices", (c) => { c.trainable_token_indices = [3]; }, /trainable_token_indices.*not supported/],
    ["a pattern that takes for ever", (c) => { c.rank_pattern = { "(.*.*)*.*.*.*!": 2 }; }, /takes too long/],
    ["a rank without end", (c) => { c.r = 1e15; }, /"r" is .*at most/],
    ["a rank of a pattern", (c) => { c.rank_pattern = { q_proj: 1e15 }; }, /q_proj/],
    ["a rank that is text", (c) => { c.r = "4"; }, /"r" is/],
    ["more layers", (c) => { c.target_modules = ["q_proj", "lm_head"]; }, /have no place|does not hold/],
    ["nothing", (c) => { c.target_modules = []; }, /target_modules/],
    ["a prototype", (c) => { c.modules_to_save = ["__proto__"]; }, /modulesToSave names "__proto__"/],
    ["another kind", (c) => { c.peft_type = "IA3"; }, /peft_type "IA3"/],
  ]; // biome-ignore format: one case a line
  for (const [what, change, message] of cases) {
    await changed(change, async (folder) => {
      await assert.rejects(model.loadAdapter(folder), message, what);
      assert.ok(!model.parameters().some((p) => p.name.includes("lora_")), `${what}: something was added all the same`);
      assert.deepEqual(await model.logits(probe), plain, what);
    });
  }
  assert.equal(stats().handles, handles, "tensors were left behind");
  assert.ok(stats().peakBytes < 64 * 2 ** 20, `${stats().peakBytes} bytes were taken for them`);
  model.dispose();
});

test("unknown fields of adapter_config.json survive, null and empty ones too", async () => {
  const extra = { someone_elses: { a: [1, null] }, peft_version: "99", eva_config: null, inference_mode: false };
  await changed((config) => Object.assign(config, extra), async (folder) => {
    const model = await loadModel(goldenPath("llama-gqa"), quiet).loadAdapter(folder);
    const read = async () => JSON.parse(await readFile(join(folder, "adapter_config.json"), "utf8"));
    const before = await read();
    await model.save(folder);
    assert.deepEqual(await read(), before);
    assert.deepEqual((await read()).someone_elses, extra.someone_elses);
    model.dispose();
  }); // biome-ignore format: one thought
});

test("added tokens: rows for them, found in text, trained, saved and loaded with the adapter", () =>
  withModelFolder(async (folder) => {
    const out = await mkdtemp(join(tmpdir(), "tunebook-tokens-"));
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
    const before = await model.logits([[5, 6]]);
    const ids = model.addTokens(["<call>", "<reply>"], { padTo: 64 });
    const vocab = model.config.vocabSize;
    assert.ok(vocab % 64 === 0 && ids.every((id) => id < vocab), `${vocab}`);
    assert.deepEqual(model.addTokens(["<call>"]), [ids[0]]);
    assert.deepEqual(model.tokenizer.encode("a<call>b<reply>", { addSpecialTokens: false }).filter((id) => ids.includes(id)), ids); // biome-ignore format: one claim a line
    const after = await model.logits([[5, 6]]);
    const first = (logits: Float32Array & { shape: number[] }) => logits.subarray(0, 340);
    assert.deepEqual(first(after), first(before));
    model.addLora({ rank: 4, modulesToSave: ["embed_tokens"] });
    const rows = Array.from({ length: 8 }, (_, i) => ({
      prompt: "<call> sea",
      completion: i % 2 ? "<reply> blue" : " blue",
    }));
    await model.train(rows, { steps: 4, batch: 4, lr: 1e-2, ...quiet });
    assert.throws(() => model.addTokens(["<third>"], { padTo: 1024 }), /while an adapter stands on/);
    try {
      await model.save(out);
      const again = await loadModel(folder, { weights: "random", seed: 1, ...quiet }).loadAdapter(out);
      assert.equal(again.config.vocabSize, vocab);
      assert.deepEqual(again.tokenizer.encode("<reply>"), model.tokenizer.encode("<reply>"));
      assert.deepEqual(await again.logits([[5, ids[0]!, 7]]), await model.logits([[5, ids[0]!, 7]]));
      again.dispose();
    } finally {
      await rm(out, { recursive: true });
      model.dispose();
    }
  }));
