import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { close, f32, fails, Numbers, out, read } from "./ops-harness.js";

const SIZES = [1, 17, 1000, 40001];

interface Options {
  lr: number;
  decay: number;
  clip?: number;
}

test("adamw follows torch's AdamW over several steps, clipping by the norm on the device", async () => {
  const r = new Numbers(1);
  const [beta1, beta2, eps] = [0.9, 0.999, 1e-8];
  for (const { lr, decay, clip } of [
    { lr: 1e-3, decay: 0.01 },
    { lr: 5e-2, decay: 0 },
    { lr: 1e-2, decay: 0.1, clip: 1 },
  ] as Options[]) {
    const start = SIZES.map((n) => r.array(n));
    const p = start.map((a) => Float64Array.from(a));
    const m = SIZES.map((n) => new Float64Array(n));
    const v = SIZES.map((n) => new Float64Array(n));
    const hp = start.map((a) => f32(a));
    const hm = SIZES.map((n) => f32(new Float32Array(n)));
    const hv = SIZES.map((n) => f32(new Float32Array(n)));
    const norm = out(1);
    for (let step = 1; step <= 5; step++) {
      const grads = SIZES.map((n) => r.array(n, -0.5, 0.5));
      const hg = grads.map((g) => f32(g));
      if (clip) op.sumSquares(hg, norm);
      op.adamw(hp, hg, hm, hv, clip ? norm : 0, step, lr, beta1, beta2, eps, decay, clip ?? 0);
      let squares = 0;
      for (const g of grads) for (const x of g) squares += x * x;
      const factor = clip ? Math.min(1, clip / (Math.sqrt(squares) + 1e-6)) : 1;
      for (const [t, g] of grads.entries())
        for (let i = 0; i < g.length; i++) {
          const d = g[i]! * factor;
          p[t]![i]! *= 1 - lr * decay;
          m[t]![i] = beta1 * m[t]![i]! + (1 - beta1) * d;
          v[t]![i] = beta2 * v[t]![i]! + (1 - beta2) * d * d;
          const denominator = Math.sqrt(v[t]![i]!) / Math.sqrt(1 - beta2 ** step) + eps;
          p[t]![i]! -= ((lr / (1 - beta1 ** step)) * m[t]![i]!) / denominator;
        }
    }
    for (const t of SIZES.keys()) {
      close(await read(hp[t]!, SIZES[t]!), p[t]!, 2e-6, "param");
      close(await read(hm[t]!, SIZES[t]!), m[t]!, 1e-6, "m");
      close(await read(hv[t]!, SIZES[t]!), v[t]!, 1e-6, "v");
    }
  }
});

test("a gradient norm that is not finite changes nothing", async () => {
  const p = f32([1, 2, 3]);
  const [g, m, v] = [f32([Number.NaN, 1, 1]), f32([0.5, 0.5, 0.5]), f32([1, 1, 1])];
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    op.adamw([p], [g], [m], [v], f32([bad]), 1, 0.1, 0.9, 0.999, 1e-8, 0.1, 1);
    op.sgd([p], [g], [m], f32([bad]), 1, 0.1, 0.9, 0.1, 1);
    assert.deepEqual([...(await read(p, 3))], [1, 2, 3]);
    assert.deepEqual([...(await read(m, 3))], [0.5, 0.5, 0.5]);
  }
});

test("sgd with momentum, decoupled decay and clipping", async () => {
  const r = new Numbers(2);
  const n = 20001;
  const start = r.array(n);
  for (const [momentum, clip] of [
    [0, 0],
    [0.9, 0],
    [0.9, 0.5],
  ] as const) {
    const p = Float64Array.from(start);
    const b = new Float64Array(n);
    const hp = f32(start);
    const hb = f32(new Float32Array(n));
    const norm = out(1);
    for (let step = 1; step <= 3; step++) {
      const g = r.array(n);
      const hg = f32(g);
      op.sumSquares([hg], norm);
      op.sgd([hp], [hg], momentum ? [hb] : [], norm, step, 0.1, momentum, 0.01, clip);
      const squares = g.reduce((s, x) => s + x * x, 0);
      const factor = clip ? Math.min(1, clip / (Math.sqrt(squares) + 1e-6)) : 1;
      for (let i = 0; i < n; i++) {
        b[i] = momentum * b[i]! + g[i]! * factor;
        p[i] = p[i]! * (1 - 0.1 * 0.01) - 0.1 * b[i]!;
      }
    }
    close(await read(hp, n), p, 1e-6);
  }
});

test("optimizers refuse lists that do not fit", async () => {
  const p = f32(new Float32Array(4));
  const q = f32(new Float32Array(3));
  await fails(() => op.adamw([p, q], [p], [p], [p], 0, 1, 1, 0.9, 0.999, 1e-8, 0, 0), /grad lists 1 tensors, param 2/);
  await fails(
    () => op.adamw([p], [q], [p], [p], 0, 1, 1, 0.9, 0.999, 1e-8, 0, 0),
    /grad holds 3 elements, expected at least 4/,
  );
  await fails(() => op.adamw([p], [p], [p], [p], 0, 0, 1, 0.9, 0.999, 1e-8, 0, 0), /step is 0/);
});
