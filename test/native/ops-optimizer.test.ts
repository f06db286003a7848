import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { download } from "../../src/tensor/native.js";
import { close, f32, fails, Numbers, out, raw, read } from "./ops-harness.js";

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

/** Ascending values of bitsandbytes' dynamic map: midpoints of 2^i (signed) or 2^(i+1) equal parts of [0.1, 1], times 10^(i-6); 0 and 1. */
function dynamicMap(signed: boolean): number[] {
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const parts = 2 ** (signed ? i : i + 1);
    for (let j = 0; j < parts; j++) {
      const x = (0.1 + (0.9 * (j + 0.5)) / parts) * 10 ** (i - 6);
      values.push(x, ...(signed ? [-x] : []));
    }
  }
  return values.sort((a, b) => a - b);
}

/** Codes and scales of blocks of 256, each code that of the value nearest to the closest of 65,536 grid points. */
function quantized(x: Float64Array<ArrayBuffer>, map: number[]): Float64Array<ArrayBuffer> {
  const y = new Float64Array(x.length);
  for (let b = 0; b < x.length; b += 256) {
    const block = x.subarray(b, b + 256);
    const absmax = block.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    if (absmax === 0) continue;
    block.forEach((v, i) => {
      const grid = (2 * Math.floor((v / absmax + 1) * 32767.5 + 0.5)) / 65535 - 1;
      y[b + i] = absmax * map.reduce((best, m) => (Math.abs(m - grid) < Math.abs(best - grid) ? m : best));
    });
  }
  return y;
}

test("adamw_8bit keeps its moments in 8 bits, a scale for 256 elements", async () => {
  const r = new Numbers(3);
  const sizes = [1, 256, 700, 20000];
  const [beta1, beta2, eps, lr, decay] = [0.9, 0.999, 1e-8, 1e-2, 0.1];
  const [signed, unsigned] = [dynamicMap(true), dynamicMap(false)];
  const start = sizes.map((n) => r.array(n));
  const p = start.map((a) => Float64Array.from(a));
  const m = sizes.map((n) => new Float64Array(n));
  const v = sizes.map((n) => new Float64Array(n));
  const hp = start.map((a) => f32(a));
  const [hm, hv] = [0, 0].map(() => sizes.map((n) => raw(new Uint8Array(n), 4))) as [number[], number[]];
  const [am, av] = [0, 0].map(() => sizes.map((n) => f32(new Float32Array(Math.ceil(n / 256))))) as [
    number[],
    number[],
  ];
  const norm = out(1);
  for (let step = 1; step <= 4; step++) {
    const grads = sizes.map((n) => r.array(n, -0.5, 0.5).fill(0, 5, 90));
    const hg = grads.map((g) => f32(g));
    op.sumSquares(hg, norm);
    op.adamw8bit(hp, hg, hm, hv, am, av, norm, step, lr, beta1, beta2, eps, decay, 1);
    const squares = grads.flatMap((g) => [...g]).reduce((s, x) => s + x * x, 0);
    const factor = Math.min(1, 1 / (Math.sqrt(squares) + 1e-6));
    for (const [t, g] of grads.entries()) {
      for (let i = 0; i < g.length; i++) {
        const d = g[i]! * factor;
        m[t]![i] = beta1 * m[t]![i]! + (1 - beta1) * d;
        v[t]![i] = beta2 * v[t]![i]! + (1 - beta2) * d * d;
        const denominator = Math.sqrt(v[t]![i]!) / Math.sqrt(1 - beta2 ** step) + eps;
        p[t]![i] = p[t]![i]! * (1 - lr * decay) - ((lr / (1 - beta1 ** step)) * m[t]![i]!) / denominator;
      }
      m[t] = quantized(m[t]!, signed);
      v[t] = quantized(v[t]!, unsigned);
    }
  }
  for (const [t, n] of sizes.entries()) {
    // A value between two codes may fall to either side: the parameters differ by a little of one step then.
    const got = await read(hp[t]!, n);
    const far = got.reduce((count, x, i) => count + (Math.abs(x - p[t]![i]!) > 2e-6 ? 1 : 0), 0);
    assert.ok(far <= n / 500, `${far} of ${n} parameters differ`);
    close(got, p[t]!, lr, "param");
    for (const [codes, scales, map, expected] of [
      [hm, am, signed, m],
      [hv, av, unsigned, v],
    ] as const) {
      const q = new Uint8Array(n);
      await download(codes[t]!, q);
      const absmax = await read(scales[t]!, Math.ceil(n / 256));
      const restored = Float64Array.from(q, (c, i) => map[c]! * absmax[i >> 8]!);
      const differ = restored.reduce((count, x, i) => {
        return count + (Math.abs(x - expected[t]![i]!) > 1e-5 * Math.abs(absmax[i >> 8]!) ? 1 : 0);
      }, 0);
      assert.ok(differ <= n / 500, `${differ} of ${n} moments differ`);
    }
  }
});

test("adamw_8bit: what is not finite changes nothing with a norm, and only zeroes its own moments without", async () => {
  const n = 300;
  const p = f32(new Float32Array(n).fill(2));
  const [m, v] = [raw(new Uint8Array(n), 4), raw(new Uint8Array(n), 4)];
  const [am, av] = [f32([0, 0]), f32([0, 0])];
  const gradient = new Float32Array(n).fill(0.5);
  gradient[3] = Number.NaN;
  gradient[280] = Number.POSITIVE_INFINITY;
  const g = f32(gradient);
  op.adamw8bit([p], [g], [m], [v], [am], [av], f32([Number.NaN]), 1, 0.1, 0.9, 0.999, 1e-8, 0.1, 1);
  assert.deepEqual([...(await read(p, n))], new Array(n).fill(2));
  op.adamw8bit([p], [g], [m], [v], [am], [av], 0, 1, 0.1, 0.9, 0.999, 1e-8, 0.1, 0);
  const after = await read(p, n);
  close([after[3]!, after[280]!], [1.98, 1.98], 1e-6);
  close([after[0]!, after[299]!], [1.88, 1.88], 1e-6);
  close(await read(am, 2), [0.05, 0.05], 1e-6);
  await fails(
    () => op.adamw8bit([p], [g], [m], [v], [am], [f32([0])], 0, 1, 1, 0.9, 0.999, 1e-8, 0, 0),
    /absmax_v holds 1 elements, expected at least 2/,
  );
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
