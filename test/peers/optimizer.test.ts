import assert from "node:assert/strict";
import { test } from "node:test";
import { Parameter } from "../../src/nn/module.js";
import { tensor } from "../../src/tensor/tensor.js";
import { Optimizer } from "../../src/training/optimizer.js";
import { type ScheduleName, scheduleFactor } from "../../src/training/schedule.js";
import { goldenArrays, goldenFloats, goldenValues, relativeError } from "../golden.js";

interface Case {
  kind: "adamw" | "sgd";
  lr: number;
  betas?: [number, number];
  eps?: number;
  momentum?: number;
  weightDecay: number;
  maxNorm: number;
}

const arrays = goldenArrays("optimizer");
const values = goldenValues("optimizer");

for (const [title, options] of Object.entries<Case>(values.cases)) {
  test(`${title} follows torch step by step`, async () => {
    const names = Object.keys(values.shapes);
    const parameters = names.map((name) => {
      // A matrix of one column: weight decay leaves vectors alone, as transformers' Trainer does.
      const data = goldenFloats(arrays, `start.${name}`);
      return new Parameter([data.length, 1]).adopt(tensor(data, [data.length, 1]));
    });
    const optimizer = new Optimizer(parameters, {
      name: options.kind,
      weightDecay: options.weightDecay,
      epsilon: options.eps ?? 1e-8,
      beta1: options.betas?.[0] ?? 0.9,
      beta2: options.betas?.[1] ?? 0.999,
      momentum: options.momentum ?? 0,
    });
    for (let step = 0; step < values.steps; step++) {
      parameters.forEach((p, i) => {
        const all = goldenFloats(arrays, `gradients.${names[i]}`);
        p.grad = tensor(all.slice(step * p.size, (step + 1) * p.size), p.shape);
      });
      const squared = optimizer.step(options.lr, options.maxNorm);
      const norm = Math.sqrt((await squared.data())[0]!);
      assert.ok(Math.abs(norm / values.gradNorms[title][step] - 1) < 1e-5, `norm ${norm} at step ${step}`);
      for (const [i, p] of parameters.entries()) {
        const all = goldenFloats(arrays, `${title}.${names[i]}`);
        const error = relativeError((await p.data()) as Float32Array, all.slice(step * p.size, (step + 1) * p.size));
        assert.ok(error < 1e-5, `${names[i]} at step ${step}: relative error ${error}`);
      }
    }
    optimizer.dispose();
  });
}

for (const { schedule, warmup, steps, lr, rates } of values.schedules) {
  test(`the ${schedule} schedule with ${warmup} warmup steps is transformers'`, () => {
    const got = Array.from(
      { length: steps },
      (_, i) => lr * scheduleFactor(schedule as ScheduleName, i, warmup, steps),
    );
    assert.ok(relativeError(got, rates) < 1e-12, `${got} instead of ${rates}`);
  });
}
