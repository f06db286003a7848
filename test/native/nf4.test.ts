import assert from "node:assert/strict";
import { test } from "node:test";
import { dequantizeNf4, quantizeAbsmax, quantizeNf4 } from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { random, read, send } from "./helpers.js";

const CODES = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);
const BORDERS = Float32Array.of(
  -0.8480964004993439,
  -0.6106329262256622,
  -0.4599952697753906,
  -0.33967943489551544,
  -0.23460740596055984,
  -0.13791173323988914,
  -0.045525018125772476,
  0.03979014977812767,
  0.1202552504837513,
  0.2035212516784668,
  0.2920137718319893,
  0.3893125355243683,
  0.5016634166240692,
  0.6427869200706482,
  0.8614784178118011,
);

/** Quantises on the device. */
async function quantize(
  x: Float32Array,
  block = 64,
): Promise<{ q: Uint8Array; absmax: Float32Array; restored: Float32Array }> {
  const blocks = Math.ceil(x.length / block);
  const handles = [
    send(x),
    native.alloc(Math.ceil(x.length / 2), 4),
    native.alloc(blocks * 4, 0),
    native.alloc(x.length * 4, 0),
  ] as [number, number, number, number];
  quantizeNf4(handles[0], handles[1], handles[2], x.length, block, 0);
  dequantizeNf4(handles[1], handles[2], 0, 0, handles[3], x.length, block, 0);
  const q = new Uint8Array(Math.ceil(x.length / 2));
  await native.download(handles[1], q);
  const absmax = await read(handles[2], blocks);
  const restored = await read(handles[3], x.length);
  for (const h of handles) native.free(h);
  return { q, absmax, restored };
}

const code = (q: Uint8Array, i: number): number =>
  i % 2 === 0 ? (q[i >> 1] as number) >> 4 : (q[i >> 1] as number) & 15;

test("codes, scales and restored values follow the definition, also for a short last block", async () => {
  for (const length of [64, 128, 1000, 7, 63, 65, 4096 + 33]) {
    const x = random(length, length);
    const { q, absmax, restored } = await quantize(x);
    for (let b = 0; b * 64 < length; b++) {
      const block = x.subarray(b * 64, Math.min(length, b * 64 + 64));
      const most = Math.max(...block.map(Math.abs));
      assert.equal(absmax[b], most);
      const inverse = Math.fround(1 / most);
      for (const [i, v] of block.entries()) {
        const scaled = Math.fround(v * inverse);
        const expected = BORDERS.filter((border) => scaled > border).length;
        assert.equal(code(q, b * 64 + i), expected, `element ${b * 64 + i} of ${length}`);
        assert.equal(restored[b * 64 + i], Math.fround((CODES[expected] as number) * most));
      }
    }
  }
});

test("a value on a border takes the lower code, and a block of zeros is code 7 with absmax 0", async () => {
  const x = new Float32Array(128);
  x.set(BORDERS);
  x[15] = 1; // absmax 1: the borders stay as they are
  const { q, absmax, restored } = await quantize(x);
  for (let i = 0; i < 15; i++) {
    // Borders 0 and 12 stand halfway between two float32 values: as double they round to the lower one, as float32 literals to the other.
    assert.ok(code(q, i) === i || ((i === 0 || i === 12) && code(q, i) === i + 1), `border ${i}`);
  }
  for (let i = 64; i < 128; i++) assert.equal(code(q, i), 7);
  assert.equal(absmax[1], 0);
  assert.equal(restored[64], 0);
});

test("a NaN stays visible: its whole block restores as NaN", async () => {
  const x = random(192, 5);
  x[70] = Number.NaN;
  const { absmax, restored } = await quantize(x);
  assert.ok(Number.isNaN(absmax[1]));
  assert.ok(restored.subarray(64, 128).every(Number.isNaN));
  assert.ok(!restored.subarray(0, 64).some(Number.isNaN) && !restored.subarray(128).some(Number.isNaN));
});

test("double quantisation restores scales within half a step of the dynamic map", async () => {
  const absmax = random(700, 3).map((v) => 1 + 0.3 * v);
  const n = absmax.length;
  const handles = [send(absmax), native.alloc(n, 4), native.alloc(Math.ceil(n / 256) * 4, 0), native.alloc(4, 0)] as [
    number,
    number,
    number,
    number,
  ];
  quantizeAbsmax(handles[0], handles[1], handles[2], handles[3], n);
  const offset = (await read(handles[3], 1))[0] as number;
  const mean = absmax.reduce((a, b) => a + b, 0) / n;
  assert.ok(Math.abs(offset - mean) < 1e-6);
  // A weight whose every block has one nonzero element restores its scale there.
  const q = send(new Uint8Array((n * 64) / 2).map((_, i) => (i % 32 === 0 ? 0xf7 : 0x77)));
  const y = native.alloc(n * 64 * 4, 0);
  dequantizeNf4(q, handles[1], handles[2], handles[3], y, n * 64, 64, 0);
  const restored = await read(y, n * 64);
  for (let i = 0; i < n; i++)
    assert.ok(Math.abs((restored[i * 64] as number) - (absmax[i] as number)) < 0.3 * 0.0075, `scale ${i}`);
  for (const h of [...handles, q, y]) native.free(h);
});

test("a doubly quantised weight without its second scales is refused", async () => {
  const q = send(new Uint8Array(32));
  const absmax8 = send(new Uint8Array(1));
  const y = send(new Float32Array(64));
  dequantizeNf4(q, absmax8, 0, 0, y, 64, 64, 0);
  await assert.rejects(native.settle(), /dequantize_nf4: absmax is uint8 .* absmax2 and offset must be given/);
  native.recover();
  for (const h of [q, absmax8, y]) native.free(h);
});
