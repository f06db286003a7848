import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { checkGradient, close, f32, fails, Numbers, out, read } from "./ops-harness.js";

type Vector = ArrayLike<number>;
const SHAPES = [
  [1, 1],
  [3, 7],
  [5, 64],
  [37, 576],
  [300, 33],
] as const;

function rms(x: Vector, w: Vector, rows: number, cols: number, eps: number): Float64Array {
  const y = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    let s = 0;
    for (let c = 0; c < cols; c++) s += x[r * cols + c]! ** 2;
    const rstd = 1 / Math.sqrt(s / cols + eps);
    for (let c = 0; c < cols; c++) y[r * cols + c] = x[r * cols + c]! * rstd * w[c]!;
  }
  return y;
}

function layer(x: Vector, w: Vector | null, b: Vector | null, rows: number, cols: number, eps: number): Float64Array {
  const y = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    let mean = 0;
    for (let c = 0; c < cols; c++) mean += x[r * cols + c]! / cols;
    let s = 0;
    for (let c = 0; c < cols; c++) s += (x[r * cols + c]! - mean) ** 2;
    const rstd = 1 / Math.sqrt(s / cols + eps);
    for (let c = 0; c < cols; c++)
      y[r * cols + c] = (x[r * cols + c]! - mean) * rstd * (w ? w[c]! : 1) + (b ? b[c]! : 0);
  }
  return y;
}

test("rms_norm with and without residual; gradients of h and weight", async () => {
  const r = new Numbers(1);
  const eps = Math.fround(1e-5);
  for (const [rows, cols] of SHAPES) {
    const n = rows * cols;
    const [x, residual, w, dy, extra, dw0] = [
      r.array(n),
      r.array(n),
      r.array(cols),
      r.array(n),
      r.array(n),
      r.array(cols),
    ];
    const sum = x.map((v, i) => v + residual[i]!);
    for (const mode of ["plain", "residual", "residual without h"]) {
      const [y, h, rstd] = [out(n), out(n), out(rows)];
      const withResidual = mode !== "plain";
      op.rmsNorm(
        f32(x),
        withResidual ? f32(residual) : 0,
        f32(w),
        y,
        mode === "residual" ? h : 0,
        rstd,
        rows,
        cols,
        eps,
      );
      const input = withResidual ? sum : x;
      close(await read(y, n), rms(input, w, rows, cols, eps), 5e-7, mode);
      if (mode === "residual") assert.deepEqual(await read(h, n), sum);
      const [dx, dw] = [out(n), f32(dw0)];
      const useExtra = mode === "residual";
      op.rmsNormBackward(
        f32(dy),
        f32(input),
        f32(w),
        rstd,
        useExtra ? f32(extra) : 0,
        dx,
        mode === "plain" ? 0 : dw,
        rows,
        cols,
      );
      const gx = (await read(dx, n)).map((v, i) => v - (useExtra ? extra[i]! : 0));
      if (cols > 1) checkGradient((at) => rms(at, w, rows, cols, eps), input, dy, gx, { tolerance: 2e-5 });
      const gw = (await read(dw, cols)).map((v, i) => v - dw0[i]!);
      if (mode === "plain") close(gw, new Float64Array(cols), 0);
      else checkGradient((at) => rms(input, at, rows, cols, eps), w, dy, gw, { tolerance: 2e-5 });
    }
  }
});

test("layer_norm with and without weight and bias; all gradients", async () => {
  const r = new Numbers(2);
  const eps = Math.fround(1e-5);
  for (const [rows, cols] of SHAPES) {
    if (cols === 1) continue;
    const n = rows * cols;
    const [x, w, b, dy, dw0, db0] = [
      r.array(n, 2, 5),
      r.array(cols),
      r.array(cols),
      r.array(n),
      r.array(cols),
      r.array(cols),
    ];
    for (const affine of [true, false]) {
      const [y, mean, rstd] = [out(n), out(rows), out(rows)];
      const [hx, hw, hdy] = [f32(x), affine ? f32(w) : 0, f32(dy)];
      op.layerNorm(hx, 0, hw, affine ? f32(b) : 0, y, 0, mean, rstd, rows, cols, 0, 0, eps, 0);
      close(await read(y, n), layer(x, affine ? w : null, affine ? b : null, rows, cols, eps), 2e-6);
      const [dx, dw, db] = [out(n), f32(dw0), f32(db0)];
      op.layerNormBackward(hdy, hx, hw, mean, rstd, 0, dx, 0, affine ? dw : 0, affine ? db : 0, rows, cols, 0, 0, 0);
      checkGradient((at) => layer(at, affine ? w : null, null, rows, cols, eps), x, dy, await read(dx, n), {
        tolerance: 3e-5,
      });
      if (!affine) continue;
      const gw = (await read(dw, cols)).map((v, i) => v - dw0[i]!);
      checkGradient((at) => layer(x, at, b, rows, cols, eps), w, dy, gw, { tolerance: 3e-5 });
      const gb = (await read(db, cols)).map((v, i) => v - db0[i]!);
      checkGradient((at) => layer(x, w, at, rows, cols, eps), b, dy, gb, { tolerance: 3e-5 });
    }
  }
});

test("layer_norm of a sum, with dropout before it: what the ops give one by one, and the gradients on both ways", async () => {
  const r = new Numbers(5);
  const eps = Math.fround(1e-5);
  for (const [rows, cols] of SHAPES) {
    const n = rows * cols;
    const [x, residual, dy, dh] = [r.array(n), r.array(n, 1, 3), r.array(n), r.array(n)];
    const [w, b] = [f32(r.array(cols)), f32(r.array(cols))];
    for (const p of [0, 0.3]) {
      const [masked, sum, y, mean, rstd] = [out(n), out(n), out(n), out(rows), out(rows)];
      op.dropout(f32(x), masked, n, 7, 100, p);
      op.binary(masked, f32(residual), sum, 0, 1, 1, 1, n, 0, 0, 0, 1, 0, 0, 0, 1);
      op.layerNorm(sum, 0, w, b, y, 0, mean, rstd, rows, cols, 0, 0, eps, 0);
      const [h, same, mean2, rstd2] = [out(n), out(n), out(rows), out(rows)];
      op.layerNorm(f32(x), f32(residual), w, b, same, h, mean2, rstd2, rows, cols, 7, 100, eps, p);
      assert.deepEqual(await read(h, n), await read(sum, n));
      assert.deepEqual(await read(same, n), await read(y, n));
      if (p === 0) {
        const alone = out(n); // without h
        op.layerNorm(f32(x), f32(residual), w, b, alone, 0, mean2, rstd2, rows, cols, 0, 0, eps, 0);
        assert.deepEqual(await read(alone, n), await read(y, n));
      }

      const [dx, alone, dw, db] = [out(n), out(n), f32(new Float32Array(cols)), f32(new Float32Array(cols))];
      op.layerNormBackward(f32(dy), sum, w, mean, rstd, 0, alone, 0, dw, db, rows, cols, 0, 0, 0);
      op.axpy(f32(dh), alone, n, 1);
      const [dw2, db2, dropped] = [f32(new Float32Array(cols)), f32(new Float32Array(cols)), out(n)];
      op.layerNormBackward(
        f32(dy),
        h,
        w,
        mean2,
        rstd2,
        f32(dh),
        dx,
        p > 0 ? dropped : 0,
        dw2,
        db2,
        rows,
        cols,
        7,
        100,
        p,
      );
      close(await read(dx, n), Float64Array.from(await read(alone, n)), 1e-6);
      assert.deepEqual(await read(dw2, cols), await read(dw, cols));
      assert.deepEqual(await read(db2, cols), await read(db, cols));
      if (p === 0) continue;
      op.dropout(dx, masked, n, 7, 100, p);
      assert.deepEqual(await read(dropped, n), await read(masked, n));
    }
  }
});

test("layer_norm of a row far from zero does not lose its variance", async () => {
  const cols = 1024;
  const x = Float32Array.from({ length: cols }, (_, i) => 10000 + (i % 2));
  const [y, mean, rstd] = [out(cols), out(1), out(1)];
  op.layerNorm(f32(x), 0, 0, 0, y, 0, mean, rstd, 1, cols, 0, 0, 0, 0);
  close(
    await read(y, cols),
    Float64Array.from(x, (v) => (v - 10000.5) * 2),
    1e-6,
  );
});

test("norms refuse wrong sizes", async () => {
  const [x, y, s] = [f32(new Float32Array(12)), out(12), out(3)];
  await fails(() => op.rmsNorm(x, 0, out(3), y, 0, s, 3, 4, 1e-5), /weight holds 3 elements, expected at least 4/);
  await fails(() => op.rmsNorm(x, 0, out(4), y, 0, s, 4, 4, 1e-5), /x holds 12 elements, expected at least 16/);
  await fails(() => op.layerNorm(x, 0, 0, 0, y, 0, s, s, 3, 0, 0, 0, 1e-5, 0), /cols is 0/);
  await fails(
    () => op.layerNorm(x, x, 0, 0, y, 0, s, s, 3, 4, 0, 0, 1e-5, 0.5),
    /a tensor is needed for what dropout makes/,
  );
  await fails(() => op.layerNorm(x, x, 0, 0, y, y, s, s, 3, 4, 0, 0, 1e-5, 1), /p is 1/);
});
