// Frozen layers with their low-rank update on the CPU: beside float64, and bit for bit what their products give one after the other.
import assert from "node:assert/strict";
import { test } from "node:test";
import { dequantizeNf4, gemm, gemmNf4, linearUpdate, quantizeNf4 } from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { random, read, relativeError, send } from "./helpers.js";

/** A weight as numbers, or as codes, and the numbers that it stands for. */
async function weight(rows: number, cols: number, coded: boolean, seed: number) {
  const size = rows * cols;
  const numbers = random(size, seed);
  const w = send(numbers);
  const q = native.alloc(size / 2, 4);
  const absmax = native.alloc(size / 16, 0);
  const restored = native.alloc(size * 4, 0);
  quantizeNf4(w, q, absmax, size, 64, 0);
  dequantizeNf4(q, absmax, 0, 0, restored, size, 64, 0);
  return { rows, w, q, absmax, restored, values: coded ? await read(restored, size) : numbers };
}

const SHAPES: [m: number, rows: number[], cols: number, rank: number, transposed: boolean][] = [
  [1, [64], 128, 16, true],
  [37, [128], 64, 5, true],
  [200, [192], 256, 48, true],
  [1, [64], 128, 16, false],
  [200, [192], 256, 48, false],
  [37, [128, 64, 32], 64, 5, false],
  [70, [64, 64], 192, 24, false],
];

for (const [m, rows, cols, rank, transposed] of SHAPES)
  for (const coded of [false, true])
    test(`${m} rows by ${rows.join("+")} x ${cols}${transposed ? ", transposed" : ""}, rank ${rank}${coded ? ", NF4" : ""}`, async () => {
      const all = rows.reduce((a, b) => a + b, 0);
      const n = transposed ? all : cols;
      const [scale, stride] = [0.75, rank + 3];
      const weights = [];
      for (const [i, height] of rows.entries()) weights.push(await weight(height, cols, coded, 10 + i));
      const as = rows.map((height, i) => random(m * (transposed ? cols : height), 20 + i));
      const [uValues, vValues, bias] = [random(m * stride, 3), random(n * rank, 4), random(n, 5)] as const;
      const [u, v, b] = [send(uValues), send(vValues), send(bias)] as const;
      const a = as.map(send);
      const [y, both] = [
        send(new Float32Array(m * n).fill(Number.NaN)),
        send(new Float32Array(m * n).fill(Number.NaN)),
      ];
      const [w, q, absmax] = coded
        ? [[], weights.map((o) => o.q), weights.map((o) => o.absmax)]
        : [weights.map((o) => o.w), [], []];
      const t = transposed ? 1 : 0;
      linearUpdate(a, w, q, absmax, [], [], b, u, v, y, m, all, cols, rank, t, 64, stride, n, 0, 0, scale);
      gemm(u, v, 0, both, m, n, rank, 0, t, stride, transposed ? rank : n, n, 0, scale, 0);
      const expected = new Float64Array(m * n);
      for (let i = 0; i < m; i++)
        for (let j = 0; j < n; j++) {
          let sum = bias[j]!;
          for (let p = 0; p < rank; p++)
            sum += scale * uValues[i * stride + p]! * vValues[transposed ? j * rank + p : p * n + j]!;
          expected[i * n + j] = sum;
        }
      weights.forEach((o, at) => {
        const k = transposed ? cols : o.rows;
        const added = at === 0 ? b : 0;
        if (coded) gemmNf4(a[at]!, o.q, o.absmax, 0, 0, added, both, m, o.rows, cols, t, 64, k, n, 0, 0, 1, 1);
        else gemm(a[at]!, o.w, added, both, m, n, k, 0, t, k, cols, n, 0, 1, 1);
        for (let i = 0; i < m; i++)
          for (let j = 0; j < n; j++)
            for (let p = 0; p < k; p++)
              expected[i * n + j]! += as[at]![i * k + p]! * o.values[transposed ? j * cols + p : p * cols + j]!;
      });
      const result = await read(y, m * n);
      assert.ok(relativeError(result, expected) < 1e-5);
      assert.deepEqual(result, await read(both, m * n));
      for (const o of weights) for (const h of [o.w, o.q, o.absmax, o.restored]) native.free(h);
      for (const h of [...a, u, v, b, y, both]) native.free(h);
    });

test("says what is missing, and which sizes do not fit", async () => {
  const [x, y] = [send(random(64, 1)), send(random(64, 2))];
  const refused = async (run: () => void, message: RegExp): Promise<void> => {
    run();
    await assert.rejects(native.settle(), message);
    native.recover();
  };
  const call = (a: number[], b: number[], q: number[], rows: number, rank: number, transposed = 0): void =>
    linearUpdate(a, b, q, [], [], [], 0, x, x, y, 4, rows, 4, rank, transposed, 64, 1, 4, 0, 0, 1);
  await refused(() => call([x], [], [], 4, 1), /linear_update: 1 tensors a need as many weights/);
  await refused(() => call([x], [], [x], 4, 1), /1 weights of codes have 0 absmax/);
  await refused(() => call([x, x], [x, x], [], 8, 1, 1), /expected one a, received 2/);
  await refused(() => call([x, x], [x, x], [], 8, 1), /have 32 columns in all, but rows is 8/);
  await refused(() => call([x], [x], [], 4, 0), /rank must be at least 1, but is 0/);
  for (const h of [x, y]) native.free(h);
});
