import assert from "node:assert/strict";
import { test } from "node:test";
import type { Example } from "../../src/data/mask.js";
import type { Pair } from "../../src/data/preference.js";
import { pairExamples } from "../../src/evaluation/preference.js";
import type { Model } from "../../src/model.js";
import { loadModel } from "../../src/plan.js";
import { type LoopInput, trainLoop } from "../../src/training/loop.js";
import { type TrainOptions, type TrainStep, trainSettings } from "../../src/training/options.js";
import { PreferenceObjective } from "../../src/training/preference.js";
import { goldenPath, goldenValues } from "../golden.js";

interface Row {
  prompt: number[];
  chosen: number[];
  rejected: number[];
}
const golden = goldenValues("trl");
const rows = golden.rows as Row[];
const cases = Object.keys(golden).filter((name) => golden[name]?.logs);

function example(prompt: readonly number[], answer: readonly number[]): Example {
  return { ids: Int32Array.of(...prompt, ...answer), labels: Int32Array.of(...prompt.map(() => -100), ...answer) };
}
const pairs: Pair[] = rows.map(({ prompt, chosen, rejected }) => ({
  chosen: example(prompt, chosen),
  rejected: example(prompt, rejected),
}));

/** Trains in the order of the rows from the adapter that TRL's runs began with. */
async function train(options: TrainOptions): Promise<TrainStep[]> {
  const plan = loadModel(goldenPath("llama-gqa"), { dtype: "float32", progress: false });
  const model: Model = await plan.loadAdapter(goldenPath("lora/init"));
  const settings = trainSettings({ shuffle: false, progress: false, ...options });
  const base = { model: model.module, settings };
  let input: LoopInput = { ...base, train: pairs.map((p) => p.chosen) };
  if (options.method !== "sft") {
    const without = model.withoutAdapter.bind(model);
    input = {
      ...base,
      train: pairExamples(pairs),
      rows: pairs.map((_, i) => Int32Array.of(2 * i, 2 * i + 1)),
      objective: new PreferenceObjective(model.module, settings, pairs, [], without),
    };
  }
  const steps: TrainStep[] = [];
  for await (const step of trainLoop(input)) steps.push(step);
  model.dispose();
  return steps;
}

test("the golden file has every method, loss and schedule", () => {
  const options = cases.map((name) => golden[name].options);
  for (const method of ["sft", "orpo", "dpo"]) assert.ok(options.some((o) => o.method === method));
  for (const loss of ["sigmoid", "hinge", "ipo"]) assert.ok(options.some((o) => o.loss === loss));
  for (const schedule of ["linear", "cosine", "constant"])
    assert.ok(options.some((o) => o.schedule === schedule && o.warmup > 0));
  assert.ok(options.some((o) => o.labelSmoothing > 0));
});

for (const name of cases) {
  const { options, logs, rates } = golden[name] as {
    options: { loss?: "sigmoid" | "hinge" | "ipo" } & TrainOptions;
    logs: Record<string, number[]>;
    rates: number[];
  };

  test(`${name}: 30 steps give TRL's losses, learning rates and metrics at every step`, async () => {
    const { loss, ...rest } = options;
    const steps = await train({ ...rest, steps: 30, ...(loss ? { lossType: loss } : {}) });
    assert.equal(steps.length, golden.steps);
    const near = (got: number, want: number, what: string): void =>
      assert.ok(Math.abs(got - want) <= 1e-3 * Math.max(1, Math.abs(want)), `${what}: ${got}, TRL has ${want}`);
    for (const [i, step] of steps.entries()) {
      assert.ok(
        Math.abs(step.loss - logs.loss![i]!) < 1e-3,
        `step ${i + 1}: loss ${step.loss}, TRL has ${logs.loss![i]}`,
      );
      assert.ok(Math.abs(step.lr - rates[i]!) < 1e-15, `step ${i + 1}: rate ${step.lr}, TRL has ${rates[i]}`);
      near(step.gradNorm, logs.grad_norm![i]!, `step ${i + 1}: gradient norm`);
      for (const key of Object.keys(logs)) {
        if (key === "loss" || key === "grad_norm") continue;
        // Before the first update policy and reference differ by rounding alone: which answer that favours says nothing.
        if (key === "rewards/accuracies" && logs["rewards/margins"]![i] === 0) continue;
        near(step[key as keyof TrainStep] as number, logs[key]![i]!, `step ${i + 1}: ${key}`);
      }
    }
  });
}
