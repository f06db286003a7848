import assert from "node:assert/strict";
import { test } from "node:test";
import { dequantizeNf4, linearNf4, type Nf4Weight, quantizeNf4 } from "../../src/tensor/ops/nf4.js";
import { tensor } from "../../src/tensor/tensor.js";
import { goldenArrays, goldenFloats, goldenValues, relativeError } from "../golden.js";

const arrays = goldenArrays("nf4");
const shapes: Record<string, number[]> = goldenValues("nf4").shapes;
const code = goldenFloats(arrays, "code");

const bytesOf = (name: string): Uint8Array => arrays.get(name)!.data as Uint8Array;

function quantize(name: string, doubleQuant: boolean): Nf4Weight {
  return quantizeNf4(tensor(goldenFloats(arrays, `${name}.input`), shapes[name]!), { doubleQuant });
}

/** The definition: code of each nibble times the absmax of its block, in fp32; the even element is the high nibble. */
function restore(bytes: Uint8Array, absmax: Float32Array, count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => {
    const byte = bytes[i >> 1]!;
    return code[i % 2 === 0 ? byte >> 4 : byte & 15]! * absmax[Math.floor(i / 64)]!;
  });
}

for (const name of Object.keys(shapes)) {
  test(`NF4 of "${name}" has the bytes of bitsandbytes`, async () => {
    const got = quantize(name, false);
    assert.deepEqual(await got.codes.raw(), bytesOf(`${name}.q`));
    assert.deepEqual(await got.absmax.data(), goldenFloats(arrays, `${name}.absmax`));
    const restored = (await dequantizeNf4(got).data()) as Float32Array;
    const count = shapes[name]!.reduce((a, b) => a * b, 1);
    assert.deepEqual(restored, restore(bytesOf(`${name}.q`), goldenFloats(arrays, `${name}.absmax`), count));
  });

  if (!arrays.has(`${name}.nested.q`)) continue;
  test(`double quantisation of "${name}" has the bytes of bitsandbytes`, async () => {
    const got = quantize(name, true);
    assert.deepEqual(await got.codes.raw(), bytesOf(`${name}.q`));
    assert.deepEqual(await got.absmax.raw(), bytesOf(`${name}.nested.q`));
    // A mean in another order of additions: the last bit may differ.
    const offset = goldenFloats(arrays, `${name}.nested.offset`);
    assert.ok(relativeError((await got.offset!.data()) as Float32Array, offset) < 3e-7);
    const scales = goldenFloats(arrays, `${name}.nested.absmax2`);
    assert.ok(relativeError((await got.absmax2!.data()) as Float32Array, scales) < 2e-6);
    const restored = (await dequantizeNf4(got).data()) as Float32Array;
    const expected = restore(bytesOf(`${name}.q`), goldenFloats(arrays, `${name}.nested.absmax`), restored.length);
    assert.ok(relativeError(restored, expected) < 2e-6);
  });
}

for (const name of ["rows64", "rows48", "rows16", "many"]) {
  for (const doubleQuant of [false, true]) {
    test(`a linear layer over "${name}"${doubleQuant ? ", doubly quantised," : ""} computes with the restored weight`, async () => {
      const [rows, cols] = shapes[name] as [number, number];
      const m = 5;
      const x = Float32Array.from({ length: m * cols }, (_, i) => Math.sin(i));
      const absmax = goldenFloats(arrays, doubleQuant ? `${name}.nested.absmax` : `${name}.absmax`);
      const w = restore(bytesOf(`${name}.q`), absmax, rows * cols);
      const expected = new Float64Array(m * rows);
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < rows; j++) {
          for (let k = 0; k < cols; k++) expected[i * rows + j]! += x[i * cols + k]! * w[j * cols + k]!;
        }
      }
      const y = linearNf4(tensor(x, [m, cols]), quantize(name, doubleQuant));
      const error = relativeError((await y.data()) as Float32Array, expected);
      assert.ok(error < 1e-5, `relative error ${error}`);
    });
  }
}
