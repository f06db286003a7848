import assert from "node:assert/strict";
import { test } from "node:test";
import { Parameter } from "../../src/nn/module.js";
import { stats } from "../../src/tensor/native.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";
import { Optimizer } from "../../src/training/optimizer.js";
import { goldenArrays, goldenFloats, goldenValues, relativeError } from "../golden.js";

interface Case {
  lr: number;
  betas: [number, number];
  eps: number;
  weightDecay: number;
}

const arrays = goldenArrays("optimizer8");
const values = goldenValues("optimizer8");

/** The gradient of a step, made from one that is stored: turned round and doubled or halved (scripts/peers/golden_optimizer.py). */
function gradient(base: Float32Array, step: number): Float32Array {
  const n = base.length;
  return base.map((_, i) => base[(((i - 131 * step) % n) + n) % n]! * 2 ** ((step % 3) - 1));
}

for (const [title, options] of Object.entries<Case>(values.cases)) {
  test(`${title} has bitsandbytes' parameters, codes and scales after ${values.steps} steps`, async () => {
    const names = Object.keys(values.shapes);
    const parameters = names.map((name) => {
      const data = goldenFloats(arrays, `start.${name}`);
      return new Parameter([data.length, 1]).adopt(tensor(data, [data.length, 1]));
    });
    const optimizer = new Optimizer(parameters, {
      name: "adamw8bit",
      weightDecay: options.weightDecay,
      epsilon: options.eps,
      beta1: options.betas[0],
      beta2: options.betas[1],
      momentum: 0,
    });
    for (let step = 0; step < values.steps; step++) {
      parameters.forEach((p, i) => {
        p.grad = tensor(gradient(goldenFloats(arrays, `base.${names[i]}`), step), p.shape);
      });
      optimizer.step(options.lr, 0).dispose();
    }
    for (const [i, p] of parameters.entries()) {
      const error = relativeError(await p.data(), goldenFloats(arrays, `${title}.${names[i]}`));
      assert.ok(error < (stats().isa === "portable" ? 1e-3 : 1e-6), `${names[i]}: relative error ${error}`);
      const state = optimizer.state(p);
      assert.equal(state.m.dtype, p.size >= 4096 ? "uint8" : "float32");
      for (const [ours, theirs] of [
        [state.m, "state1"],
        [state.v, "state2"],
        [state.absmaxM, "absmax1"],
        [state.absmaxV, "absmax2"],
      ] as [Tensor | undefined, string][]) {
        if (!ours) continue;
        const expected = arrays.get(`${title}.${names[i]}.${theirs}`)!.data as ArrayLike<number>;
        const got = await ours.data();
        // Without fused products (portable code) a value on the border of two codes may fall to the other side.
        const differ = got.reduce((n, code, k) => n + (code === expected[k] ? 0 : 1), 0);
        if (ours.dtype === "uint8" && stats().isa !== "portable") assert.equal(differ, 0, `${names[i]}.${theirs}`);
        else assert.ok(relativeError(got, expected) < 0.02, `${names[i]}.${theirs}`);
      }
      p.dispose();
    }
    optimizer.dispose();
  });
}
