import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";
import { Dataset, loadModel, type Model, type TrainStep } from "../../src/index.js";
import { colourRows, withModelFolder } from "./small.js";

const quiet = { progress: false } as const;
const small = (folder: string): Promise<Model> =>
  Promise.resolve(loadModel(folder, { weights: "random", seed: 1, ...quiet }));

/** What the library makes of a prompt and its completion, as columns that transformers' data collators know. */
function idsOf({ tokenizer }: Model, { prompt, completion }: { prompt: string; completion: string }, filler = 0) {
  const before = tokenizer.encode(prompt, { addSpecialTokens: "before" });
  const after = [...tokenizer.encode(completion, { after: before }), tokenizer.eosId!];
  const fill = Array<number>(filler);
  return {
    input_ids: [...before, ...after, ...fill.fill(tokenizer.padId ?? 0)],
    labels: [...before.map(() => -100), ...after, ...[...fill].fill(-100)],
    attention_mask: [...before.map(() => 1), ...after.map(() => 1), ...[...fill].fill(0)],
  };
}

test("rows of ids train exactly as the texts that they were made of, filled up or not", () =>
  withModelFolder(async (folder) => {
    const rows = colourRows(16);
    const losses: number[][] = [];
    for (const change of [
      undefined,
      (model: Model) => (row: (typeof rows)[number]) => idsOf(model, row),
      (model: Model) => (row: (typeof rows)[number], i: number) => idsOf(model, row, i % 5),
    ]) {
      const model = await small(folder);
      const data: Dataset<object> = change ? Dataset.from(rows).map(change(model)) : Dataset.from(rows);
      if (change)
        assert.deepEqual(data.columns, ["input_ids", "labels", "attention_mask"], "map leaves the old columns out");
      const seen: number[] = [];
      const { loss } = await model.evaluate(data, { metrics: ["loss"], ...quiet });
      const callbacks = [(step: TrainStep) => void seen.push(step.loss)];
      await model.train(data, { epochs: 2, batch: 4, lr: 1e-3, seed: 5, callbacks, ...quiet });
      losses.push([loss!, ...seen]);
      model.dispose();
    }
    assert.equal(losses[0]!.length, 9);
    assert.deepEqual(losses[1], losses[0]);
    assert.deepEqual(losses[2], losses[0]);
  }));

test("ids of another tokenizer are refused, and generated metrics say what they need", () =>
  withModelFolder(async (folder) => {
    using model = await small(folder);
    const { vocabSize } = model.tokenizer;
    await assert.rejects(
      Promise.resolve(model.train([{ input_ids: [1, vocabSize], labels: [-100, 2] }], quiet)),
      new RegExp(`has the id ${vocabSize}, .* ${vocabSize} ids from 0`),
    );
    await assert.rejects(
      model.evaluate([{ input_ids: [1, 2] }], { metrics: ["rouge"], ...quiet }),
      /row 0 must give \{ prompt, completion \}/,
    );
    const shown = await Dataset.from([idsOf(model, colourRows(1)[0]!)]).preview(model);
    assert.match(shown.toText(), /The sea is⟦ blue/);
  }));

test("adapterConfig is what save writes, the count has PEFT's line, eval switches dropout off", () =>
  withModelFolder(async (folder) => {
    using model = await small(folder);
    assert.throws(() => model.adapterConfig(), /no active adapter; call addLora/);
    model.addLora({ rank: 8, alpha: 8, target: ["q_proj", "v_proj"] });
    const out = await mkdtemp(join(tmpdir(), "tunebook-config-"));
    try {
      await model.save(out);
      const saved = JSON.parse(await readFile(join(out, "adapter_config.json"), "utf8")) as Record<string, unknown>;
      assert.deepEqual(model.adapterConfig(), saved);
      assert.deepEqual([saved.r, saved.lora_alpha, saved.lora_dropout], [8, 8, 0]);
      assert.deepEqual(saved.target_modules, ["q_proj", "v_proj"]);
    } finally {
      await rm(out, { recursive: true });
    }
    const { trainable, total, percent } = model.trainable();
    const line = `trainable params: ${trainable.toLocaleString("en")} || all params: ${total.toLocaleString("en")} || trainable%: ${percent.toFixed(4)}`;
    assert.equal(inspect(model.trainable()), line);
    model.module.train(true);
    assert.equal(model.eval(), model);
    assert.ok(![...model.module.namedModules()].some(([, m]) => m.training));
  }));
