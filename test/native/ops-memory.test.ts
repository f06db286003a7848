import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { DTYPE_CODE } from "../../src/tensor/dtype.js";
import { close, f32, fails, Numbers, out, raw, read, readInts } from "./ops-harness.js";

const { bfloat16, float16, int32, uint8 } = DTYPE_CODE;

async function bytesOf(h: number, length: number): Promise<Uint8Array> {
  const { download } = await import("../../src/tensor/native.js");
  const into = new Uint8Array(length);
  await download(h, into);
  return into;
}

test("fill writes n elements of every dtype", async () => {
  const y = out(1001);
  op.fill(y, 1001, 2.5);
  assert.deepEqual(await read(y, 1001), new Float32Array(1001).fill(2.5));
  const b = raw(new Uint8Array(9).fill(1), uint8);
  op.fill(b, 7, 300); // saturates
  assert.deepEqual([...(await bytesOf(b, 9))], [255, 255, 255, 255, 255, 255, 255, 1, 1]);
  const h = raw(new Uint16Array(3), float16);
  op.fill(h, 3, -2);
  assert.deepEqual([...new Uint16Array((await bytesOf(h, 6)).buffer)], [0xc000, 0xc000, 0xc000]);
});

test("copy converts bfloat16 both ways, rounding to nearest even", async () => {
  const words = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const x = raw(words, bfloat16);
  const y = out(65536);
  op.copy(x, y, 65536);
  const values = await read(y, 65536);
  const bits = new Uint32Array(values.buffer);
  for (let i = 0; i < 65536; i++) assert.equal(bits[i]! >>> 16, i);
  const back = raw(new Uint16Array(65536), bfloat16);
  op.copy(y, back, 65536);
  const again = new Uint16Array((await bytesOf(back, 131072)).buffer);
  for (let i = 0; i < 65536; i++) {
    if (Number.isNaN(values[i]!)) assert.ok((again[i]! & 0x7f80) === 0x7f80 && (again[i]! & 0x7f) !== 0);
    else assert.equal(again[i], i);
  }
  // 1 + 2^-8 lies halfway: to even (down); 1 + 3 * 2^-8 halfway: to even (up); just above halfway: up
  const halves = f32([1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, 3.4e38]);
  op.copy(halves, back, 4);
  assert.deepEqual([...new Uint16Array((await bytesOf(back, 8)).buffer)], [0x3f80, 0x3f82, 0x3f81, 0x7f80]);
});

/** IEEE half to number. */
function half(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >> 10) & 31;
  const mantissa = h & 1023;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

test("copy converts float16 both ways, subnormals, infinities and NaN too", async () => {
  const words = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const x = raw(words, float16);
  const y = out(65536);
  op.copy(x, y, 65536);
  const values = await read(y, 65536);
  for (let i = 0; i < 65536; i++)
    assert.ok(Object.is(values[i], half(i)) || (Number.isNaN(values[i]!) && Number.isNaN(half(i))), `${i}`);
  const back = raw(new Uint16Array(65536), float16);
  op.copy(y, back, 65536);
  const again = new Uint16Array((await bytesOf(back, 131072)).buffer);
  for (let i = 0; i < 65536; i++) if (!Number.isNaN(values[i]!)) assert.equal(again[i], i);
  // Between neighbours: nearest, ties to even; overflow to infinity.
  const cases: [number, number][] = [];
  for (const i of [0, 1, 2, 511, 1023, 1024, 1025, 0x3c00, 0x3c01, 0x7bfe]) {
    const low = half(i);
    const high = half(i + 1);
    const step = high - low;
    cases.push([low + step * 0.5, i % 2 === 0 ? i : i + 1], [low + step * 0.499, i], [low + step * 0.501, i + 1]);
  }
  cases.push([65519, 0x7bff], [65520, 0x7c00], [1e9, 0x7c00], [-1e9, 0xfc00], [1e-9, 0]);
  op.copy(f32(cases.map((c) => c[0])), back, cases.length);
  assert.deepEqual(
    [...new Uint16Array((await bytesOf(back, cases.length * 2)).buffer)],
    cases.map((c) => c[1]),
  );
});

test("copy converts integers, saturating and towards zero", async () => {
  const n = raw(new Int32Array(7), int32);
  op.copy(f32([1.9, -1.9, 3e9, -3e9, Number.NaN, 16777217, -0.5]), n, 7);
  assert.deepEqual(
    [...new Int32Array((await bytesOf(n, 28)).buffer)],
    [1, -1, 2147483647, -2147483648, 0, 16777216, 0],
  );
  const b = raw(new Uint8Array(4), uint8);
  op.copy(f32([-1, 254.9, 256, Number.NaN]), b, 4);
  assert.deepEqual([...(await bytesOf(b, 4))], [0, 254, 255, 0]);
});

test("permute agrees with index arithmetic for all 24 orders", async () => {
  const orders: number[][] = [];
  for (let a = 0; a < 4; a++)
    for (let b = 0; b < 4; b++)
      for (let c = 0; c < 4; c++)
        for (let d = 0; d < 4; d++) if (new Set([a, b, c, d]).size === 4) orders.push([a, b, c, d]);
  assert.equal(orders.length, 24);
  for (const dims of [
    [3, 5, 17, 21],
    [1, 33, 1, 19],
    [2, 1, 40, 3],
  ]) {
    const n = dims.reduce((p, q) => p * q, 1);
    const values = Float32Array.from({ length: n }, (_, i) => i);
    const x = f32(values);
    for (const p of orders) {
      const y = out(n);
      op.permute(x, y, dims[0]!, dims[1]!, dims[2]!, dims[3]!, p[0]!, p[1]!, p[2]!, p[3]!);
      const strides = [dims[1]! * dims[2]! * dims[3]!, dims[2]! * dims[3]!, dims[3]!, 1];
      const e = p.map((j) => dims[j]!);
      const s = p.map((j) => strides[j]!);
      const expected: number[] = [];
      for (let i = 0; i < e[0]!; i++)
        for (let j = 0; j < e[1]!; j++)
          for (let k = 0; k < e[2]!; k++)
            for (let l = 0; l < e[3]!; l++) expected.push(values[i * s[0]! + j * s[1]! + k * s[2]! + l * s[3]!]!);
      assert.deepEqual(await read(y, n), Float32Array.from(expected), `${dims} by ${p}`);
    }
  }
});

test("permute moves int32 items unchanged", async () => {
  const items = Int32Array.from({ length: 40 * 40 }, (_, i) => 0x7f800001 + i * 2654435761); // patterns of signalling NaN among them
  const y = raw(new Int32Array(1600), int32);
  op.permute(raw(items, int32), y, 1, 1, 40, 40, 0, 1, 3, 2);
  const moved = await readInts(y, 1600);
  for (let i = 0; i < 40; i++) for (let j = 0; j < 40; j++) assert.equal(moved[i * 40 + j], items[j * 40 + i]);
});

test("copy_2d copies and adds parts of rows", async () => {
  const r = new Numbers(1);
  const x = r.array(200);
  const before = r.array(300);
  for (const accumulate of [0, 1]) {
    const y = f32(before);
    op.copy2d(f32(x), y, 7, 19, 5, 25, 3, 41, accumulate);
    const expected = Float64Array.from(before);
    for (let i = 0; i < 7; i++)
      for (let j = 0; j < 19; j++)
        expected[3 + i * 41 + j] = x[5 + i * 25 + j]! + (accumulate ? before[3 + i * 41 + j]! : 0);
    close(await read(y, 300), expected, 1e-7);
  }
  const broadcast = out(12);
  op.copy2d(f32([1, 2, 3]), broadcast, 4, 3, 0, 0, 0, 3, 0); // a source stride of 0 repeats the row
  assert.deepEqual([...(await read(broadcast, 12))], [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
});

test("memory ops refuse what their tensors do not hold", async () => {
  const x = f32(new Float32Array(10));
  const y = out(10);
  await fails(() => op.fill(y, 11, 0), /y holds 10 elements, expected at least 11/);
  await fails(() => op.copy(x, y, -1), /n is -1/);
  await fails(() => op.permute(x, y, 2, 2, 2, 2, 0, 1, 2, 3), /expected at least 16/);
  await fails(() => op.permute(x, y, 1, 1, 2, 5, 0, 1, 2, 2), /no permutation/);
  await fails(() => op.permute(x, y, 2147483647, 2147483647, 2147483647, 2147483647, 0, 1, 2, 3), /holds 10 elements/);
  await fails(() => op.copy2d(x, y, 2, 5, 1, 5, 0, 5, 0), /x holds 10 elements, expected at least 11/);
  await fails(() => op.copy2d(x, y, 3, 3, 0, 3, 0, 2, 0), /y_stride is 2/);
});
