import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { CHECKPOINTING, type Checkpointing } from "../../src/autograd/checkpoint.js";
import { pairExamples } from "../../src/evaluation/preference.js";
import { Dataset, loadModel, type Model, type TrainOptions, type TrainStep } from "../../src/index.js";
import { resetPeak, stats } from "../../src/tensor/native.js";
import { trainLoop } from "../../src/training/loop.js";
import { trainSettings } from "../../src/training/options.js";
import { PreferenceObjective } from "../../src/training/preference.js";
import { smallConfig, withModelFolder } from "../facade/small.js";
import { relativeError } from "../golden.js";

const embedded = fileURLToPath(new URL("../../../notebooks/embedded/model", import.meta.url));
const quiet = { progress: false } as const;
const THINGS = ["sea", "grass", "rose", "coal"];
const COLOURS = ["blue", "green", "red", "black"];

/** The right colour against another one, with answers of unequal length. */
function pairs(count: number): { prompt: string; chosen: string; rejected: string }[] {
  return Array.from({ length: count }, (_, i) => {
    const [thing, wrong] = [i % 4, (i + 1 + (i >> 2)) % 4];
    const other = COLOURS[wrong === thing ? (wrong + 1) % 4 : wrong];
    return { prompt: `The ${THINGS[thing]} is`, chosen: ` ${COLOURS[thing]}`, rejected: ` ${other}, it is said` };
  });
}

async function adapted(folder: string, quantized = false, dropout = 0): Promise<Model> {
  const plan = loadModel(folder, { weights: "random", seed: 1, ...quiet });
  const model = await (quantized ? plan.quantize({ type: "nf4" }) : plan);
  return model.addLora({ rank: 4, target: "all-linear", seed: 9, dropout });
}

async function stepsOf(model: Model, options: TrainOptions, rows = pairs(8)): Promise<TrainStep[]> {
  const run = model.train(rows, { lr: 1e-2, shuffle: false, ...options, ...quiet } as never);
  await run;
  return run.steps;
}

for (const method of ["dpo", "orpo"] as const) {
  test(`${method}: the split of a step, padding and checkpointing leave losses and metrics as they are`, () =>
    withModelFolder(async (folder) => {
      const runs: TrainStep[][] = [];
      const splits: [number, number, "none" | "right" | "left", Checkpointing][] = [
        [4, 1, "none", "selective"],
        [2, 2, "none", "selective"],
        [1, 4, "none", "none"],
        [3, 2, "right", "selective"],
        [2, 2, "left", "full"],
        ...CHECKPOINTING.map((c): [number, number, "none", Checkpointing] => [4, 1, "none", c]),
      ];
      for (const [batch, accumulate, paddingSide, checkpointing] of splits) {
        const model = await adapted(folder);
        const options: TrainOptions = { method, batch, accumulate, paddingSide, checkpointing };
        // Six pairs a step with batch 3: a run of its own, compared with itself in another padding.
        runs.push(await stepsOf(model, { ...options, steps: 6 }, pairs(batch === 3 ? 6 : 8)));
        model.dispose();
      }
      const keys = ["loss", "gradNorm", "rewards/margins", "logps/chosen"] as const;
      const figures = (steps: TrainStep[]): number[] => steps.flatMap((s) => keys.map((key) => s[key]!));
      for (const [i, run] of runs.entries()) {
        if (splits[i]![0] === 3) continue;
        const error = relativeError(figures(run), figures(runs[0]!));
        assert.ok(error < 1e-5, `${splits[i]}: relative error ${error}`);
      }
      const model = await adapted(folder);
      const together = await stepsOf(model, { method, batch: 6, steps: 6 }, pairs(6));
      model.dispose();
      assert.ok(relativeError(figures(runs[3]!), figures(together)) < 1e-5);
    }));

  test(`${method} over NF4: held-out pairs are preferred, the validation is measured, nothing is left behind`, () =>
    withModelFolder(async (folder) => {
      const before = stats().handles;
      const model = await adapted(folder, true);
      const held = pairs(16).slice(8);
      const result = await model.train(pairs(16), {
        method,
        beta: method === "orpo" ? 1 : 0.1,
        validation: held,
        epochs: 10,
        batch: 4,
        lr: 1e-2,
        evalEvery: 10,
        keepBest: true,
        seed: 2,
        ...quiet,
      });
      const last = result.history.at(-1) as unknown as TrainStep;
      assert.equal(last["rewards/accuracies"], 1);
      assert.ok(last["rewards/margins"]! > 0 && last["logps/chosen"]! > last["logps/rejected"]!);
      assert.equal(last.validationAccuracy, 1);
      assert.ok(result.history.columns.includes("validationMargin"));
      assert.equal("nll_loss" in last, method === "orpo");
      assert.equal(result.history.at(0)!.validationAccuracy, null);
      const measured = await model.evaluate(held, { metrics: ["preference"], ...quiet });
      assert.equal(measured.preferenceAccuracy, 1);
      assert.equal(measured.rewardAccuracy, 1);
      assert.ok(measured.preferenceMargin! > 0);
      model.dispose();
      assert.equal(stats().handles, before, "tensors were left behind");
    }));
}

test("dpo begins at ln 2 with dropout too, since the policy equals its reference", () =>
  withModelFolder(async (folder) => {
    const model = await adapted(folder, false, 0.5);
    const [first, second] = await stepsOf(model, { method: "dpo", batch: 4, steps: 2 });
    assert.ok(Math.abs(first!.loss - Math.LN2) < 1e-6, `loss ${first!.loss}`);
    assert.ok(Math.abs(first!["rewards/margins"]!) < 1e-5, `margin ${first!["rewards/margins"]}`);
    assert.ok(Math.abs(second!["rewards/margins"]!) > 1e-3, `margin ${second!["rewards/margins"]}`);
    model.dispose();
  }));

test("dpo of a whole model keeps the weights that it began with as the reference", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
    const steps = await stepsOf(model, { method: "dpo", batch: 4, steps: 12, lr: 2e-3, validation: pairs(4) });
    assert.ok(Math.abs(steps[0]!.loss - Math.LN2) < 1e-6);
    assert.ok(steps.at(-1)!.loss < 0.3, `loss ${steps.at(-1)!.loss}`);
    assert.ok(steps.at(-1)!["rewards/margins"]! > 1 && steps.at(-1)!.validationAccuracy === 1);
    model.dispose();
  }));

test("the gradients of a trained head are those of a head without the fused op", () =>
  withModelFolder(
    async (folder) => {
      const losses: number[][] = [];
      for (const plain of [true, false]) {
        const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
        if (!plain) Object.assign(model.module, { headWeight: () => undefined }); // logits, then cross entropy
        const steps = await stepsOf(model, { method: "orpo", batch: 4, steps: 8, lr: 2e-3 });
        losses.push(steps.flatMap((s) => [s.loss, s.gradNorm]));
        model.dispose();
      }
      assert.ok(relativeError(losses[0]!, losses[1]!) < 1e-4, `${losses}`);
    },
    { ...smallConfig, tie_word_embeddings: false },
  ));

test("label smoothing of dpo: conservative losses do not fall to 0", () =>
  withModelFolder(async (folder) => {
    const model = await adapted(folder);
    const steps = await stepsOf(model, { method: "dpo", batch: 8, steps: 60, labelSmoothing: 0.2 });
    // The least of -(1 - e) log σ(z) - e log σ(-z) is the entropy of e.
    const least = -0.8 * Math.log(0.8) - 0.2 * Math.log(0.2);
    assert.ok(steps.at(-1)!.loss > least - 1e-4 && steps.at(-1)!.loss < least + 0.05, `loss ${steps.at(-1)!.loss}`);
    model.dispose();
  }));

test("messages are read as pairs, and rows that are none are named", () =>
  withModelFolder(async (folder) => {
    const model = await adapted(folder);
    const chat = pairs(8).map(({ prompt, chosen, rejected }) => ({
      prompt: [{ role: "user", content: prompt }],
      chosen: [{ role: "assistant", content: chosen }],
      rejected: [{ role: "assistant", content: rejected }],
    }));
    const { history } = await model.train(Dataset.from(chat), {
      method: "dpo",
      batch: 4,
      epochs: 8,
      lr: 1e-2,
      ...quiet,
    });
    assert.equal(history.at(-1)!["rewards/accuracies"], 1);
    await assert.rejects(
      async () => await model.train([{ prompt: "a", completion: "b" }], { method: "dpo", ...quiet }),
      /Row 0 of the training rows should be \{ prompt, chosen, rejected \}/,
    );
    model.dispose();
  }));

for (const method of ["dpo", "orpo"] as const) {
  test(`${method}: a step takes the memory that was predicted`, async () => {
    const model = await loadModel(embedded, { device: "cpu", ...quiet });
    model.addLora({ rank: 16, target: "all-linear" });
    const [batch, length] = [4, 160];
    for (const checkpointing of ["selective", "full"] as const) {
      const estimate = model.estimate({ method, batch, length, checkpointing });
      const ids = Int32Array.from({ length }, (_, i) => 3 + ((i * 7919) % (model.config.vocabSize - 3)));
      const example = { ids, labels: ids.map((id, i) => (i < length / 2 ? -100 : id)) };
      const pairs = Array.from({ length: batch }, () => ({ chosen: example, rejected: example }));
      const settings = trainSettings({ method, batch, steps: 2, epochs: 2, checkpointing, progress: false });
      const without = model.withoutAdapter.bind(model);
      const objective = new PreferenceObjective(model.module, settings, pairs, [], without);
      const rows = pairs.map((_, i) => Int32Array.of(2 * i, 2 * i + 1));
      const base = { model: model.module, settings, objective };
      resetPeak();
      for await (const step of trainLoop({ ...base, train: pairExamples(pairs), rows })) assert.ok(step.loss > 0);
      const peak = stats("cpu").peakBytes;
      assert.ok(
        Math.abs(estimate.peak / peak - 1) < 0.1,
        `${checkpointing}: ${estimate.peak} predicted, ${peak} measured`,
      );
    }
    model.dispose();
  });
}

test("options of one method are refused with another", () =>
  withModelFolder(async (folder) => {
    const model = await adapted(folder);
    const refused = (options: object, said: RegExp): void => {
      assert.throws(() => model.train(pairs(4), { ...options, ...quiet } as TrainOptions as never), said);
    };
    refused({ method: "sft", beta: 0.1 }, /beta belongs to method "orpo" and "dpo"/);
    refused({ method: "orpo", lossType: "ipo" }, /lossType belongs to method "dpo"/);
    refused({ method: "dpo", lossType: "kto" }, /lossType must be one of sigmoid, hinge, ipo/);
    refused({ method: "dpo", packing: true }, /packing belongs to method "sft"/);
    refused({ method: "dpo", neftune: 5 }, /neftune belongs to method "sft"/);
    refused({ method: "orpo", labelSmoothing: 0.1 }, /labelSmoothing/);
    refused({ method: "dpo", lossType: "hinge", labelSmoothing: 0.1 }, /labelSmoothing/);
    refused({ method: "dpo", beta: 0 }, /beta must be a positive number/);
    refused({ method: "grpo" }, /method must be one of sft, orpo, dpo/);
    model.dispose();
  }));
