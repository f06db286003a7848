import assert from "node:assert/strict";
import { test } from "node:test";
import { quantizeInt8 } from "../../src/tensor/ops/int8.js";
import { linearNf4, quantizeNf4 } from "../../src/tensor/ops/nf4.js";
import { tensor } from "../../src/tensor/tensor.js";
import { goldenArrays, goldenFloats, goldenValues, relativeError } from "../golden.js";

const arrays = goldenArrays("quantized");
const shapes: Record<string, number[]> = goldenValues("quantized").shapes;
const code = goldenFloats(arrays, "fp4.code");
const bytesOf = (name: string): Uint8Array => arrays.get(name)!.data as Uint8Array;

for (const [name, shape] of Object.entries(shapes)) {
  test(`FP4 of "${name}" has the bytes of bitsandbytes`, async () => {
    using got = quantizeNf4(tensor(goldenFloats(arrays, `${name}.input`), shape), { kind: "fp4" });
    const [bytes, absmax] = [bytesOf(`${name}.fp4.q`), goldenFloats(arrays, `${name}.fp4.absmax`)];
    assert.deepEqual(await got.codes.raw(), bytes);
    assert.deepEqual(await got.absmax.data(), absmax);
    const restored = await got.restore().data();
    const expected = restored.map((_, i) => {
      const byte = bytes[i >> 1]!;
      return Math.fround(code[i % 2 === 0 ? byte >> 4 : byte & 15]! * absmax[Math.floor(i / 64)]!);
    });
    assert.deepEqual(restored, expected);
  });

  // A row of zeros, and numbers whose products overflow, have no relative error.
  const inputs = goldenFloats(arrays, `${name}.input`);
  const most = inputs.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  if (shape.length === 2 && most > 0 && most < 1e15)
    test(`a linear layer over FP4 of "${name}" computes with the restored weight`, async () => {
      const [rows, cols] = shape as [number, number];
      using weight = quantizeNf4(tensor(inputs, shape), { kind: "fp4" });
      const restored = await weight.restore().data();
      for (const m of [1, 5, 70]) {
        const x = Float32Array.from({ length: m * cols }, (_, i) => Math.sin(i));
        const expected = new Float64Array(m * rows);
        for (let i = 0; i < m; i++)
          for (let j = 0; j < rows; j++)
            for (let k = 0; k < cols; k++) expected[i * rows + j]! += x[i * cols + k]! * restored[j * cols + k]!;
        const error = relativeError(await linearNf4(tensor(x, [m, cols]), weight).data(), expected);
        assert.ok(error < 1e-5, `${m} rows: relative error ${error}`);
      }
    });

  test(`int8 of "${name}" has the bytes of bitsandbytes`, async () => {
    const input = arrays.has(`${name}.int8.input`) ? `${name}.int8.input` : `${name}.input`;
    using got = quantizeInt8(tensor(goldenFloats(arrays, input), shape));
    const codes = (await got.codes.raw()) as Uint8Array;
    assert.deepEqual(codes, bytesOf(`${name}.int8.q`));
    assert.deepEqual(await got.absmax.data(), goldenFloats(arrays, `${name}.int8.absmax`));
    const error = relativeError(await got.restore().data(), goldenFloats(arrays, `${name}.int8.restored`));
    assert.ok(error < 2e-7, `relative error ${error}`);
  });
}

test("a row of zeros is zeros in int8", async () => {
  using got = quantizeInt8(tensor(new Float32Array(24), [2, 12]));
  assert.ok((await got.restore().data()).every((v) => v === 0));
});
