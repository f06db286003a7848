// Steps of decoding that are recorded and run again: the same ids as from the model's code, what keeps a model from it, and what is left afterwards.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setReplaying } from "../../src/evaluation/decode.js";
import { loadModel, type Model, nn, type SamplingOptions, type Tensor, tensor } from "../../src/index.js";
import { recover, setInterruptFlag, stats, trim } from "../../src/tensor/native.js";
import { recordings } from "../../src/tensor/recording.js";
import { outsideScope } from "../../src/tensor/scope.js";
import { colourRows, smallConfig, withModelFolder } from "../facade/small.js";

const quiet = { progress: false } as const;
const long = { ...smallConfig, max_position_embeddings: 1024 };
const prompts = ["The sea", "A", "The grass is green and the rose", "coal black"];

/** Runs `fn` with recordings and without, in this order. */
async function both<T>(fn: () => Promise<T>): Promise<[T, T]> {
  const replayed = await fn();
  setReplaying(false);
  try {
    return [replayed, await fn()];
  } finally {
    setReplaying(true);
  }
}

/** The text, and whether a recording was alive while it came. */
async function streamed(
  model: Model,
  prompt: string,
  options: SamplingOptions,
): Promise<{ text: string; recorded: boolean; parts: number }> {
  let text = "";
  let parts = 0;
  let recorded = false;
  for await (const part of model.stream(prompt, options)) {
    text += part;
    parts++;
    recorded ||= recordings(model.device).alive > 0;
  }
  return { text, recorded, parts };
}

test("greedy, sampled and penalised texts are the same with recordings and without, one by one and in batches", () =>
  withModelFolder(async (folder) => {
    const before = stats();
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
    let recorded = 0;
    for (const options of [
      { maxNewTokens: 60 },
      { maxNewTokens: 40, temperature: 0.9, topK: 30, seed: 7 },
      { maxNewTokens: 40, repetitionPenalty: 1.4 },
      { maxNewTokens: 40, temperature: 1.2, repetitionPenalty: 1.2, topP: 0.9, seed: 3 },
      { maxNewTokens: 50, stop: ["e", "qu"] },
    ]) {
      const [replayed, plain] = await both(() => streamed(model, "The sea", options));
      assert.equal(replayed.text, plain.text);
      if (replayed.parts > 8) recorded++;
      assert.deepEqual([replayed.recorded, plain.recorded], [replayed.parts > 8, false]);
      const [batched, plainBatch] = await both(() => model.generate(prompts, { ...options, batch: 3 }));
      assert.deepEqual(batched, plainBatch);
      assert.equal(batched[0], replayed.text);
    }
    assert.ok(recorded >= 3, `${recorded}`);
    model.dispose();
    assert.equal(recordings(model.device).alive, 0);
    assert.equal(stats().handles, before.handles, "tensors were left behind");
    assert.equal(stats().liveBytes, before.liveBytes);
  }));

test("the cache grows past what it had room for, and the text is that of the whole sequence at once", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 2, ...quiet });
    const options = { maxNewTokens: 700, temperature: 0 };
    const ids: number[] = [];
    const prompt = model.tokenizer.encode("The sea", { addSpecialTokens: "before" });
    const { generateIds, samplingSettings } = await import("../../src/evaluation/generate.js");
    for await (const id of generateIds(model.module, prompt, samplingSettings(options), new Set())) ids.push(id);
    assert.equal(ids.length, 700);
    const all = [...prompt, ...ids];
    const logits = await model.logits([all.slice(0, -1)]);
    const vocab = logits.shape[2];
    for (let i = 0; i < ids.length; i++) {
      const row = logits.subarray((prompt.length - 1 + i) * vocab, (prompt.length + i) * vocab);
      const best = row.reduce((most, v) => Math.max(most, v), -Infinity);
      assert.ok(best - row[ids[i]!]! < 1e-3, `token ${i} is not the likeliest`);
    }
    const texts = await both(() => model.generate(prompts, { maxNewTokens: 400, batch: 3 }));
    assert.deepEqual(texts[0], texts[1]);
    assert.equal(texts[0]![1], await model.generate(prompts[1]!, { maxNewTokens: 400 }));
    model.dispose();
  }, long));

test("adapters that are not merged are recorded with the rest", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet })
      .quantize({ type: "nf4", doubleQuant: true })
      .addLora({ rank: 4, dropout: 0.1 });
    const options = { maxNewTokens: 60 };
    const untrained = await model.generate("The sea is", options);
    await model.train(colourRows(16), { steps: 6, batch: 4, lr: 2e-2, ...quiet });
    const [replayed, plain] = await both(() => streamed(model, "The sea is", options));
    assert.equal(replayed.text, plain.text);
    assert.notEqual(replayed.text, untrained);
    assert.ok(replayed.recorded || replayed.text.length < 40);
    model.dispose();
  }));

/** A layer of one's own in the place of the first MLP's. */
class Own extends nn.Module {
  base: { forward(x: Tensor): Tensor };
  calls = 0;
  private readonly change: (y: Tensor, own: Own) => Tensor;
  kept: Tensor | undefined;

  constructor(base: nn.Module, change: (y: Tensor, own: Own) => Tensor) {
    super();
    this.base = base as unknown as Own["base"];
    this.change = change;
  }

  forward(x: Tensor): Tensor {
    this.calls++;
    return this.change(this.base.forward(x), this);
  }
}

test("a model whose step sends values, keeps tensors or counts runs from its code; one that computes alone is recorded", () =>
  withModelFolder(async (folder) => {
    const cases: [string, boolean, (y: Tensor, own: Own) => Tensor][] = [
      ["computes", true, (y) => y.tanh().mul(0.5).add(y)],
      ["counts", false, (y, own) => y.mul(1 + own.calls / 100)],
      ["sends values", false, (y, own) => y.mul(tensor([1 + own.calls / 50], { device: y.device }))],
      [
        "keeps a tensor",
        false,
        (y, own) => {
          const last = own.kept && y.shape[0] === own.kept.shape[0] ? y.add(own.kept.mul(0.5)) : y;
          own.kept?.dispose();
          own.kept = outsideScope(() => last.mul(0.9));
          return last;
        },
      ],
    ];
    for (const [name, replays, change] of cases) {
      const run = async (): Promise<[string, number]> => {
        const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
        const own = new Own(model.module.module("model.layers.0.mlp"), change);
        model.module.replace("model.layers.0.mlp", own);
        const ids = model.tokenizer.encode("The sea", { addSpecialTokens: "before" });
        const { generateIds, samplingSettings } = await import("../../src/evaluation/generate.js");
        const out: number[] = [];
        for await (const id of generateIds(model.module, ids, samplingSettings({ maxNewTokens: 40 }), new Set()))
          out.push(id);
        own.kept?.dispose();
        const { calls } = own;
        model.dispose();
        return [out.join(" "), calls];
      };
      const before = stats().handles;
      const [replayed, plain] = await both(run);
      assert.equal(replayed[0], plain[0], name);
      if (replays) assert.ok(replayed[1] < 10, `${name}: the code ran ${replayed[1]} times`);
      else assert.ok(replayed[1] >= 40, `${name}: the code ran ${replayed[1]} times`);
      assert.equal(stats().handles, before, name);
      assert.equal(recordings("cpu").alive, 0);
    }
  }));

test("an interrupt ends a stream of recorded steps, and its memory comes back", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
    await model.generate("The sea", { maxNewTokens: 900 }); // rope tables grow
    const before = stats();
    const controller = new AbortController();
    let parts = 0;
    const stream = model.stream("The sea", { maxNewTokens: 900, signal: controller.signal });
    await assert.rejects(
      async () => {
        for await (const _ of stream) if (++parts === 30) controller.abort();
      },
      { name: "InterruptedError" },
    );
    assert.ok(parts < 40, `${parts}`);
    const flag = new Int32Array(new SharedArrayBuffer(4));
    setInterruptFlag(flag);
    try {
      parts = 0;
      await assert.rejects(
        async () => {
          for await (const _ of model.stream("The sea", { maxNewTokens: 900 }))
            if (++parts === 30) Atomics.store(flag, 0, 1);
        },
        { name: "InterruptedError" },
      );
    } finally {
      Atomics.store(flag, 0, 0);
      setInterruptFlag(null);
      recover();
    }
    for await (const _ of model.stream("The sea", { maxNewTokens: 900 })) if (++parts === 60) break; // left early
    assert.equal(recordings(model.device).alive, 0);
    assert.equal(stats().handles, before.handles);
    assert.equal(stats().liveBytes, before.liveBytes);
    assert.equal((await model.generate("The sea", { maxNewTokens: 30 })).length > 0, true);
    model.dispose();
  }, long));

test("on a GPU steps are launched as one graph, captured anew when working memory was given back", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
    const options = { maxNewTokens: 100 };
    const start = recordings(model.device).wholeLaunches;
    const whole = await streamed(model, "The sea", options);
    const middle = recordings(model.device).wholeLaunches;
    let text = "";
    let parts = 0;
    for await (const part of model.stream("The sea", options)) {
      text += part;
      if (++parts % 8 === 0) trim();
    }
    assert.equal(text, whole.text);
    const end = recordings(model.device);
    if (process.env.TUNEBOOK_FAKE_CUDA_CAPTURE === "0") {
      assert.equal(end.wholeLaunches, 0);
      assert.match(end.captureError, /cannot be captured/);
    } else if (model.device === "cuda") {
      assert.ok(middle - start > 80, `${middle - start} of 97 steps; ${end.captureError}`);
      assert.ok(end.wholeLaunches - middle > 60, `${end.wholeLaunches - middle} of 97 steps; ${end.captureError}`);
    } else {
      assert.equal(end.wholeLaunches, 0);
    }
    model.dispose();
  }));
