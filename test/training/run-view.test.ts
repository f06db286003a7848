import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { toBundle } from "../../src/display/bundle.js";
import { loadModel, type Model, type TrainStep } from "../../src/index.js";
import { runPlot } from "../../src/training/dashboard.js";
import { stepsTable } from "../../src/training/live.js";
import { colourRows, withModelFolder } from "../facade/small.js";
import { dashboardSteps } from "./steps.js";

const quiet = { progress: false } as const;
const adapted = (folder: string): Promise<Model> =>
  Promise.resolve(loadModel(folder, { weights: "random", seed: 1, ...quiet }).addLora({ rank: 4, seed: 1 }));

test("callbacks are called at their events, in order, and may end the run", () =>
  withModelFolder(async (folder) => {
    using model = await adapted(folder);
    const seen: string[] = [];
    const out = join(folder, "out");
    const result = await model.train(colourRows(16), {
      validation: colourRows(4),
      steps: 8,
      batch: 4,
      evalEvery: 2,
      output: out,
      callbacks: [
        (step) => seen.push(`f${step.step}`),
        {
          onStep: async (step, run) => {
            await Promise.resolve();
            assert.equal(run.steps.length, step.step - 1);
            seen.push(`s${step.step}`);
          },
          onEvaluate: (step, run) => {
            seen.push(`e${step.step}`);
            assert.ok(step.validationLoss > 0);
            if (step.step === 4) run.stop();
          },
          onSave: (saved) => seen.push(`save ${saved.step} ${saved.folder === out}`),
          onEnd: (end) => seen.push(`end ${end.ended}`),
        },
      ],
      ...quiet,
    });
    assert.equal(result.ended, "stopped");
    assert.deepEqual(seen, [..."f1 s1 f2 s2 e2 f3 s3 f4 s4 e4".split(" "), "save 4 true", "end stopped"]);
    for (const callbacks of [{ onFinish() {} }, [3], {}])
      assert.throws(
        () => model.train(colourRows(4), { callbacks: callbacks as never, ...quiet }),
        /onStep, onEvaluate/,
      );
    await assert.rejects(async () => {
      const failing = () => {
        throw new Error("mine");
      };
      await model.train(colourRows(4), { steps: 2, callbacks: failing, ...quiet });
    }, /mine/);
    await model.train(colourRows(4), { steps: 1, ...quiet });
  }));

test("early stopping: patience and threshold; a lower loss below the threshold is still the best", () =>
  withModelFolder(async (folder) => {
    const run = async (earlyStopping: object | number): Promise<{ ended: string; steps: number; best: number }> => {
      using model = await adapted(folder);
      const options = {
        validation: colourRows(4),
        steps: 12,
        batch: 4,
        evalEvery: 1,
        lr: 1e-4,
        schedule: "constant",
      } as const;
      const { ended, steps, best } = await model.train(colourRows(16), {
        ...options,
        earlyStopping: earlyStopping as number,
        ...quiet,
      });
      return { ended, steps, best: best!.step };
    };
    // Losses fall slowly: never by 100 nats, so that after the first measurement each counts as none.
    assert.deepEqual(await run({ patience: 3, threshold: 100 }), { ended: "early stopping", steps: 4, best: 4 });
    assert.deepEqual(await run({ patience: 3 }), { ended: "finished", steps: 12, best: 12 });
    await assert.rejects(() => run({ patience: 0 }), /patience, threshold/);
    await assert.rejects(() => run(1.5), /earlyStopping must be/);
  }));

test("memory by part adds up to a step's peak, and the run's peak is the largest of them", () =>
  withModelFolder(async (folder) => {
    using model = await adapted(folder);
    const run = model.train(colourRows(16), { steps: 6, batch: 4, ...quiet });
    const { peakMemory } = await run;
    const peaks = run.steps.map((s) => s.peakMemory!);
    assert.equal(peakMemory, Math.max(...peaks));
    const { weights, adapters } = model.memory();
    for (const { memoryParts: parts, peakMemory: peak, memory } of run.steps) {
      assert.equal(parts!.weights, weights);
      assert.equal(parts!.adapters, adapters);
      assert.ok(parts!.gradients > 0 && parts!.optimizer >= 2 * parts!.gradients && parts!.activations > 0);
      assert.ok(peak! >= memory);
      const sum = Object.values(parts!).reduce((a, b) => a + b, 0);
      assert.ok(Math.abs(sum - peak!) < 0.1 * peak!, `${sum} of ${peak}`);
    }
  }));

test("the growing table: means between measurements, the newest rows where there are many", () => {
  const steps = dashboardSteps(100, 2);
  const { columns, rows } = stepsTable(steps);
  assert.deepEqual(columns, ["Step", "Training Loss", "Validation Loss"]);
  assert.equal(rows.length, 30);
  assert.deepEqual(rows.at(-1), [100, (steps[98]!.loss + steps[99]!.loss) / 2, steps[99]!.validationLoss]);
  assert.match(stepsTable(steps).toText(), /20 earlier rows/);
  const plain = stepsTable(dashboardSteps(40, 0), 5);
  assert.deepEqual(plain.columns, ["Step", "Training Loss"]);
  assert.deepEqual(
    plain.rows.map((row) => row[0]),
    [5, 10, 15, 20, 25, 30, 35, 40],
  );
});

test("the charts of a run: five panels in one figure, few points of long runs, a picture and a text", async () => {
  const { figure } = runPlot(dashboardSteps(50, 10));
  const axes = new Set(figure.data.map((trace) => trace.xaxis));
  assert.equal(axes.size, 5);
  assert.deepEqual(
    figure.data.filter((t) => t.stackgroup).map((t) => t.name),
    ["weights", "adapters", "gradients", "optimizer", "activations"],
  );
  const long = runPlot(dashboardSteps(20_000, 100));
  assert.ok(JSON.stringify(long.figure).length < 200_000, `${JSON.stringify(long.figure).length} characters`);
  const bundle = await toBundle(runPlot(dashboardSteps(50, 10)));
  assert.ok(typeof bundle["image/png"] === "string");
  assert.match(String(bundle["text/plain"]), /validation loss.*\n.*learning rate[\s\S]*memory: weights 1.00 MiB/);
  assert.equal(runPlot([]).figure.data.length > 0, true);
  for (const panel of ["loss", "lr", "gradNorm", "tokensPerSecond", "memory"] as const)
    assert.ok(runPlot(dashboardSteps(5, 2), panel).figure.data.length > 0);
  assert.throws(() => runPlot([], "speed" as never), /there are all, loss/);
});

test("run.plot can be asked for before, during and after", () =>
  withModelFolder(async (folder) => {
    using model = await adapted(folder);
    const run = model.train(colourRows(16), { steps: 3, batch: 4, ...quiet });
    run.plot();
    const seen: TrainStep[] = [];
    for await (const step of run) {
      seen.push(step);
      run.plot().toText();
    }
    assert.match(run.plot("lr").toText(), /Learning rate/);
    assert.equal(seen.length, 3);
  }));
