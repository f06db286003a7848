import assert from "node:assert/strict";
import { test } from "node:test";
import { Fp8Weight, quantizeFp8 } from "../../src/tensor/ops/fp8.js";
import { tensor } from "../../src/tensor/tensor.js";
import { goldenArrays, goldenFloats, goldenValues } from "../golden.js";

const arrays = goldenArrays("fp8");
const shapes: Record<string, [number, number]> = goldenValues("fp8").shapes;
const bytesOf = (name: string): Uint8Array => arrays.get(name)!.data as Uint8Array;

/** The same numbers; NaN is NaN whatever its bits. */
function same(got: ArrayLike<number>, wanted: ArrayLike<number>): void {
  assert.equal(got.length, wanted.length);
  for (let i = 0; i < wanted.length; i++)
    assert.ok(Object.is(got[i], wanted[i]), `element ${i} is ${got[i]}, not ${wanted[i]}`);
}

test("every code of E4M3 is restored as torch has it", async () => {
  const every = Uint8Array.from({ length: 256 }, (_, i) => i);
  // Rows of every length from 1, so that each code meets each place of a vector and its rest.
  for (const cols of [1, 7, 16, 33, 256]) {
    const rows = Math.ceil(256 / cols);
    const codes = new Uint8Array(rows * cols);
    codes.set(every);
    const scales = tensor(new Float32Array(rows).fill(1));
    using w = new Fp8Weight([rows, cols], tensor(codes, [rows, cols]), scales, false);
    const restored = await w.restore().data();
    same(restored.subarray(0, 256), goldenFloats(arrays, "values"));
  }
});

for (const [name, shape] of Object.entries(shapes)) {
  test(`E4M3 codes and scales of "${name}" are torch's`, async () => {
    using got = quantizeFp8(tensor(goldenFloats(arrays, `${name}.input`), shape));
    same(await got.scale.data(), goldenFloats(arrays, `${name}.scale`));
    assert.deepEqual(await got.codes.raw(), bytesOf(`${name}.q`));
    same(await got.restore().data(), goldenFloats(arrays, `${name}.restored`));
  });
}

test("rows of zeros restore to zeros, rows that are not finite to NaN and no others", async () => {
  const zeros = goldenFloats(arrays, "zeros.restored");
  for (const row of [1, 2, 3]) assert.ok(zeros.subarray(row * 40, (row + 1) * 40).every((v) => v === 0));
  assert.ok(
    zeros.subarray(160, 200).some((v) => v !== 0),
    "a row of small numbers is none of zeros",
  );
  using got = quantizeFp8(tensor(goldenFloats(arrays, "bad.input"), shapes.bad));
  const restored = await got.restore().data();
  for (let i = 0; i < restored.length; i++) assert.equal(Number.isNaN(restored[i]), i < 3 * 33, `element ${i}`);
});
