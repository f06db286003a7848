import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { rouge } from "../../src/evaluation/rouge.js";
import { cutAt, StopText } from "../../src/evaluation/stop-text.js";
import { StreamDecoder } from "../../src/hub/stream-decoder.js";
import { loadModel, type Model } from "../../src/index.js";
import { stats } from "../../src/tensor/native.js";
import { colourRows, withModelFolder } from "../facade/small.js";
import { shared } from "../shared.js";

const quiet = { progress: false } as const;
const prompts = ["The sea", "A", "The grass is green and the rose", "coal black", "The sea is", "x", "of the hills"];

async function oneByOne(model: Model, options: object): Promise<string[]> {
  const texts: string[] = [];
  for (const prompt of prompts) texts.push(await model.generate(prompt, options));
  return texts;
}

test("several prompts at once give the greedy texts of one by one, for any batch", () =>
  withModelFolder(async (folder) => {
    const before = stats().handles;
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
    for (const options of [
      { maxNewTokens: 24 },
      { maxNewTokens: 40, stop: ["e", "qu"] },
      { repetitionPenalty: 1.3, maxNewTokens: 12 },
    ]) {
      const expected = await oneByOne(model, options);
      for (const batch of [1, 2, 3, 8])
        assert.deepEqual(await model.generate(prompts, { ...options, batch }), expected);
    }
    assert.deepEqual(await model.generate([]), []);
    const sampled = { temperature: 0.9, topK: 20, seed: 5, maxNewTokens: 16 };
    const first = await model.generate(prompts, { ...sampled, batch: 2 });
    assert.deepEqual(await model.generate(prompts, { ...sampled, batch: 7 }), first, "samples depend on the batch");
    assert.equal(first[0], await model.generate(prompts[0]!, sampled));
    assert.notDeepEqual(await model.generate(prompts, { ...sampled, seed: 6 }), first);
    await assert.rejects(model.generate(prompts, { batch: 0 }), /batch must be a whole number/);
    await assert.rejects(model.generate(["a ".repeat(400)]), /prompt 0 \(from 0\) has .* context is 128/);
    const signal = AbortSignal.abort();
    await assert.rejects(model.generate(prompts, { signal }), { name: "InterruptedError" });
    assert.deepEqual(await model.generate(prompts.slice(0, 2), { maxNewTokens: 3 }), [
      await model.generate(prompts[0]!, { maxNewTokens: 3 }),
      await model.generate(prompts[1]!, { maxNewTokens: 3 }),
    ]);
    model.dispose();
    assert.equal(stats().handles, before, "tensors were left behind");
  }));

test("generation ends at ids as it does at strings, alone and in a batch", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
    const { generateIds, samplingSettings } = await import("../../src/evaluation/generate.js");
    const prompt = model.tokenizer.encode(prompts[0]!, { addSpecialTokens: "before" });
    const ids: number[] = [];
    for await (const id of generateIds(model.module, prompt, samplingSettings({ maxNewTokens: 20 }), new Set()))
      ids.push(id);
    const at = ids.findIndex((id, i) => i > 3 && ids.indexOf(id) === i);
    const stream = model.tokenizer.streamDecoder({ skipSpecialTokens: true, after: prompt });
    const expected =
      ids
        .slice(0, at)
        .map((id) => stream.push(id))
        .join("") + stream.end();
    for (const stop of [ids[at]!, [ids[at]!, "not there"]]) {
      assert.equal(await model.generate(prompts[0]!, { maxNewTokens: 20, stop }), expected);
      assert.equal((await model.generate(prompts, { maxNewTokens: 20, stop }))[0], expected);
    }
    model.dispose();
  }));

test("evaluate generates for every row: exact matches and ROUGE", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
    const rows = colourRows(10);
    await model.train(colourRows(32), { epochs: 6, batch: 8, lr: 5e-3, seed: 3, ...quiet });
    const good = await model.evaluate(rows, { metrics: ["rouge", "exactMatch"], maxNewTokens: 8, batch: 3, ...quiet });
    assert.deepEqual([good.exactMatch, good.rouge1, good.rouge2, good.rougeL, good.rougeLsum], [1, 1, 0, 1, 1]);
    assert.match(good.toTable().toText(), /rougeLsum/);
    assert.deepEqual(good.predictions![0], { prediction: "blue", references: ["blue"] });
    // Against other texts, up to a stop string: the mean of the rows' own scores.
    const format = ({ prompt, completion }: { prompt: string; completion: string }) => ({
      prompt,
      completion: `${completion} ships### End`,
    });
    const half = await model.evaluate(rows, { metrics: ["rouge"], maxNewTokens: 8, stop: "### End", format, ...quiet });
    assert.ok(Math.abs(half.rouge1! - 2 / 3) < 1e-12, `${half.rouge1}`);
    const two = { metrics: ["rouge"], maxNewTokens: 8, ...quiet } as const;
    const best = await model.evaluate(rows, { ...two, references: (row) => ["nothing", row.completion] });
    assert.equal(best.rouge1, 1);
    const stems = await model.evaluate(rows, { ...two, stemmer: true, references: (row) => `${row.completion}s` });
    const words = await model.evaluate(rows, { ...two, references: (row) => `${row.completion}s` });
    assert.deepEqual([stems.rouge1! > 0.7, words.rouge1], [true, 0]);
    const expected = rows.reduce(
      (n, row) => n + rouge(row.completion, `${row.completion}s`, { stemmer: true }).rouge1.f1,
      0,
    );
    assert.ok(Math.abs(stems.rouge1! - expected / rows.length) < 1e-12);
    const chat = rows.slice(0, 2).map(({ prompt, completion }) => ({
      messages: [
        { role: "user", content: prompt },
        { role: "assistant", content: completion },
      ],
    }));
    assert.equal((await model.evaluate(chat, two)).predictions!.length, 2);
    await assert.rejects(model.evaluate([{ text: "plain" }], two), /row 0 must give { prompt, completion }/);
    model.dispose();
  }));

test("a text ends at the first stop string, and only there", () => {
  const characters = (ids: readonly number[]): string => String.fromCharCode(...ids);
  const run = (text: string, stops: string[]): string => {
    const stop = new StopText(new StreamDecoder(characters), stops);
    let out = "";
    for (const c of text) if (!stop.ended) out += stop.push(c.charCodeAt(0));
    return out + stop.end();
  };
  for (const [text, stops] of [
    ["one two### End three", ["### End"]],
    ["one ## ### En two", ["### End"]],
    ["ababac", ["abac", "bb"]],
    ["tail ##", ["### End"]],
    ["xyz", []],
  ] as [string, string[]][])
    assert.equal(run(text, stops), cutAt(text, stops));
});

const stories = join(shared, "models", "stories260K");

test("batches on real weights give the texts of one by one", {
  skip: !existsSync(stories) && `no ${stories}`,
}, async () => {
  const model = await loadModel(stories, quiet);
  const texts = ["", "Once upon a time", "Lily", "The big dog ran to the", "Tom and Sue saw a red ball. It", "One day"];
  const single: string[] = [];
  for (const text of texts) single.push(await model.generate(text, { maxNewTokens: 60 }));
  assert.deepEqual(await model.generate(texts, { maxNewTokens: 60, batch: 4 }), single);
  model.dispose();
});
