import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backward, Dataset, loadModel, type Model, nn, type Tensor, type TrainStep } from "../../src/index.js";
import { resetPeak, stats } from "../../src/tensor/native.js";
import { leakedTensors } from "../../src/tensor/scope.js";
import { colourRows, withModelFolder } from "./small.js";

const quiet = { progress: false } as const;
const small = (folder: string): Promise<Model> =>
  Promise.resolve(loadModel(folder, { weights: "random", seed: 1, ...quiet }));

test("full training, then LoRA over NF4: losses fall, the best step is kept, the history is a Dataset", () =>
  withModelFolder(async (folder) => {
    const before = stats().handles;
    const rows = Dataset.from(colourRows(32));
    const model = await small(folder);
    const full = await model.train(rows, { epochs: 6, batch: 8, lr: 5e-3, seed: 3, ...quiet });
    assert.equal(full.steps, 24);
    const first = full.history.at(0) as unknown as TrainStep;
    const last = full.history.at(-1) as unknown as TrainStep;
    assert.ok(last.loss < first.loss / 3, `the loss went from ${first.loss} to ${last.loss}`);
    assert.ok(full.flops > 0 && full.tokensPerSecond > 0 && full.epoch === 6);
    assert.equal((await model.generate("The sea is", { maxNewTokens: 8 })).trim(), "blue");
    const { perplexity, accuracy, f1 } = await model.evaluate(rows, {
      metrics: ["perplexity", "classification"],
      labels: ["red", "blue", "green", "black"],
      ...quiet,
    });
    assert.ok(perplexity! < 2 && accuracy! > 0.9 && f1! > 0.9, `${perplexity} ${accuracy} ${f1}`);
    assert.equal((await model.evaluate(rows, { metrics: ["exactMatch"], maxNewTokens: 8, ...quiet })).exactMatch, 1);

    model.quantize({ type: "nf4", doubleQuant: true }).addLora({ rank: 4, target: "all-linear", seed: 2 });
    const memory = model.memory();
    assert.ok(memory.weights < 340 * 64 * 4 + 100_000 && memory.adapters > 0);
    const swapped = rows.map((r) => ({
      ...r,
      completion: ` ${["one", "two", "three", "four"][["red", "blue", "green", "black"].indexOf(r.completion.trim())]}`,
    }));
    const seen: number[] = [];
    const run = model.train(swapped, {
      validation: swapped.slice(0, 8),
      epochs: 30,
      batch: 8,
      lr: 1e-2,
      evalEvery: 10,
      keepBest: true,
      callbacks: [(s) => seen.push(s.step)],
      ...quiet,
    });
    assert.throws(() => model.train(swapped, quiet), /under way/);
    for await (const step of run) assert.ok(Number.isFinite(step.loss) && Number.isFinite(step.gradNorm));
    const result = await run;
    assert.deepEqual(
      seen,
      Array.from({ length: result.steps }, (_, i) => i + 1),
    );
    assert.ok(result.best && result.best.validationLoss < 1);
    const check = await model.evaluate(swapped.slice(0, 8), { metrics: ["loss"], ...quiet });
    assert.ok(Math.abs(check.loss! - result.best.validationLoss) < 1e-5, "the best parameters were not restored");
    assert.equal((await model.generate("The rose is", { maxNewTokens: 8 })).trim(), "one");
    await model.withoutAdapter(async () =>
      assert.notEqual((await model.generate("The rose is", { maxNewTokens: 8 })).trim(), "one"),
    );
    assert.ok(model.memory().optimizer > 0 && model.memory().peak > model.memory().weights);
    model.dispose();
    assert.equal(stats().handles, before, "tensors were left behind");
    assert.equal(leakedTensors(), 0);
  }));

test("the same seed gives the same run, another seed another one", () =>
  withModelFolder(async (folder) => {
    const runs: Float32Array[] = [];
    for (const seed of [1, 1, 2]) {
      const model = (await small(folder)).addLora({ rank: 4, dropout: 0.2, seed: 9 });
      const { history } = await model.train(colourRows(16), { batch: 4, lr: 1e-2, seed, ...quiet });
      runs.push(Float32Array.from(history.toRows().map((r) => (r as TrainStep).loss)));
      model.dispose();
    }
    assert.deepEqual(runs[0], runs[1]);
    assert.notDeepEqual(runs[0], runs[2]);
  }));

test("live bytes stay flat over 1,000 steps", () =>
  withModelFolder(async (folder) => {
    const model = (await small(folder)).quantize({ type: "nf4" }).addLora({ rank: 4 });
    const run = model.train(colourRows(8), { steps: 1000, batch: 2, lr: 1e-3, ...quiet });
    const bytes: number[] = [];
    for await (const step of run) bytes.push(step.memory);
    assert.equal(new Set(bytes.slice(2)).size, 1, `live bytes took ${new Set(bytes.slice(2)).size} values`);
    model.dispose();
  }));

test("a module of one's own, put in the place of a layer, trains like a built-in", () =>
  withModelFolder(async (folder) => {
    class LowRankAdapter extends nn.Module {
      base: nn.LinearLike;
      U: nn.Parameter;
      V: nn.Parameter;

      constructor(base: nn.LinearLike, rank: number) {
        super();
        this.base = base;
        base.setRequiresGrad(false);
        this.U = new nn.Parameter([base.outFeatures, rank], nn.zeros);
        this.V = new nn.Parameter([rank, base.inFeatures], nn.normalInit(0.1));
      }

      forward(x: Tensor): Tensor {
        return this.base.forward(x).add(x.linear(this.V).linear(this.U));
      }
    }
    const model = await small(folder);
    model.module.setRequiresGrad(false);
    for (const [name, module] of [...model.module.namedModules()]) {
      if (module instanceof nn.Linear) model.module.replace(name, new LowRankAdapter(module, 4));
    }
    assert.ok(model.parameters().some((p) => p.name === "model.layers.0.mlp.up_proj.U" && p.trainable));
    const { history } = await model.train(colourRows(16), { epochs: 10, batch: 8, lr: 1e-2, ...quiet });
    const losses = history.toRows().map((r) => (r as TrainStep).loss);
    assert.ok(losses.at(-1)! < losses[0]! / 2, `${losses}`);
    model.dispose();
  }));

test("stop() and an abort signal end a run within a step and leave the model usable", () =>
  withModelFolder(async (folder) => {
    const model = (await small(folder)).addLora({ rank: 4 });
    const run = model.train(colourRows(16), { steps: 100_000, batch: 4, ...quiet });
    for await (const step of run) if (step.step === 3) run.stop();
    const result = await run;
    assert.equal(result.ended, "stopped");
    assert.ok(result.steps < 10);
    const controller = new AbortController();
    const aborted = model.train(colourRows(16), { steps: 100_000, batch: 4, signal: controller.signal, ...quiet });
    setTimeout(() => controller.abort(), 50);
    await assert.rejects(async () => aborted, { name: "InterruptedError" });
    await model.train(colourRows(16), { steps: 2, batch: 4, ...quiet });
    model.dispose();
  }));

test("a loss that is no number stops the run and names step, micro-batch and parameter; nothing was changed", () =>
  withModelFolder(async (folder) => {
    const model = (await small(folder)).addLora({ rank: 4, target: "all-linear" });
    const path = "model.layers.1.mlp.down_proj.lora_A.default";
    const broken = [...model.module.namedParameters()].find(([name]) => name.startsWith(path))![1];
    const good = await broken.data();
    broken.set(good.map((v, i) => (i === 3 ? Number.NaN : v)));
    await assert.rejects(
      async () => model.train(colourRows(8), { steps: 3, ...quiet }),
      (error: Error) => {
        assert.equal(error.name, "DivergenceError");
        assert.match(error.message, /Step 1/);
        assert.match(error.message, /model\.layers\.1\.mlp\.down_proj\.lora_A/);
        return true;
      },
    );
    broken.set(good);
    await model.train(colourRows(8), { steps: 2, ...quiet });
    model.dispose();
  }));

test("an adapter saved and loaded again gives the same logits; a full output folder is complete", () =>
  withModelFolder(async (folder) => {
    const out = await mkdtemp(join(tmpdir(), "tunebook-adapter-"));
    try {
      const model = (await small(folder))
        .quantize({ type: "nf4" })
        .addLora({ rank: 4, alpha: 8, target: "all-linear" });
      await model.train(colourRows(8), { steps: 5, lr: 1e-2, output: join(out, "a"), ...quiet });
      const want = await model.logits([[5, 6, 7]]);
      assert.ok((await readdir(join(out, "a"))).includes("adapter_config.json"));
      const again = await loadModel(folder, { weights: "random", seed: 1, ...quiet })
        .quantize({ type: "nf4" })
        .loadAdapter(join(out, "a"));
      assert.deepEqual(await again.logits([[5, 6, 7]]), want);
      model.dispose();
      again.dispose();
    } finally {
      await rm(out, { recursive: true });
    }
  }));

test("chat, stop strings, seeds and streaming", () =>
  withModelFolder(async (folder) => {
    const model = await small(folder);
    const answer = { temperature: 1, seed: 4, maxNewTokens: 24 };
    const messages = [{ role: "user", content: "Hello" }];
    assert.equal(await model.chat(messages, answer), await model.chat(messages, answer));
    const text = await model.generate("Once", { ...answer, repetitionPenalty: 1.3, topK: 50, topP: 0.9 });
    let streamed = "";
    for await (const part of model.stream("Once", { ...answer, repetitionPenalty: 1.3, topK: 50, topP: 0.9 })) {
      assert.ok(!part.includes("\ufffd") || text.includes("\ufffd"));
      streamed += part;
    }
    assert.equal(streamed, text);
    const stop = text.slice(4, 6);
    assert.equal(
      await model.generate("Once", { ...answer, repetitionPenalty: 1.3, topK: 50, topP: 0.9, stop }),
      text.slice(0, text.indexOf(stop)),
    );
    model.dispose();
  }));

test("tensors of one's own: gradients, scopes, and peak memory", async () => {
  resetPeak();
  const { tensor, scope } = await import("../../src/index.js");
  const w = tensor([
    [1, 2],
    [3, 4],
  ]);
  w.requiresGrad = true;
  const loss = scope(() => {
    const y = tensor([[1, 1]])
      .matmul(w)
      .square()
      .sum();
    backward(y);
    return y;
  });
  assert.equal(await loss.item(), 16 + 36);
  assert.deepEqual([...(await w.grad!.data())], [8, 12, 8, 12]);
  loss.dispose();
  w.dispose();
  assert.throws(() => scope(() => Promise.resolve(1)), /synchronous/);
});
