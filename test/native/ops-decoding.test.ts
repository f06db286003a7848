import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { f32, fails, i32, Numbers, out, read, readInts } from "./ops-harness.js";

test("cache_append writes each row to its place, and rows without one nowhere", async () => {
  const [rows, width, places] = [4, 5, 7];
  const k = Array.from({ length: rows * width }, (_, i) => i + 1);
  const v = k.map((x) => -x);
  const [keys, values] = [out(places * width), out(places * width)];
  op.fill(keys, places * width, 100);
  op.fill(values, places * width, 200);
  op.cacheAppend(f32(k), f32(v), i32([6, -1, 0, 3]), keys, values, rows, width, places);
  const want = (from: number[], other: number): number[] =>
    Array.from({ length: places * width }, (_, i) => {
      const row = new Map([[6, 0], [0, 2], [3, 3]]).get(Math.floor(i / width)); // biome-ignore format: pairs
      return row === undefined ? other : from[row * width + (i % width)]!;
    });
  assert.deepEqual([...(await read(keys, places * width))], want(k, 100));
  assert.deepEqual([...(await read(values, places * width))], want(v, 200));
  await fails(
    () => op.cacheAppend(f32(k), f32(v), i32([0, 1, 7, 2]), keys, values, rows, width, places),
    /place 7 in row 2, but the cache has 7/,
  );
  await fails(() => op.cacheAppend(f32(k), f32(v), i32([0]), keys, values, rows, width, places), /slots holds 1/);
});

test("decode_advance goes on with the tokens chosen, stops at the limit, and leaves rows without a place alone", async () => {
  const chosen = i32([50, 51, 52]);
  const [ids, positions, lengths, slots] = [i32([1, 2, 3]), i32([4, 6, 2]), i32([5, 7, 3]), i32([4, 14, -1])];
  const draws = i32([9, 0, 9, 5, 9, 7]);
  const seen = i32(new Array(24).fill(-1));
  op.decodeAdvance(chosen, ids, positions, lengths, slots, draws, seen, 3, 7, 8);
  assert.deepEqual([...(await readInts(ids, 3))], [50, 51, 3]);
  assert.deepEqual([...(await readInts(positions, 3))], [5, 6, 2]);
  assert.deepEqual([...(await readInts(lengths, 3))], [6, 7, 3]);
  assert.deepEqual([...(await readInts(slots, 3))], [5, -1, -1]);
  assert.deepEqual([...(await readInts(draws, 6))], [9, 1, 9, 6, 9, 7]);
  const marks = [...(await readInts(seen, 24))].flatMap((id, i) => (id === -1 ? [] : [[i, id]]));
  assert.deepEqual(marks, [
    [5, 50],
    [15, 51],
  ]);
  op.decodeAdvance(chosen, ids, positions, lengths, slots, 0, 0, 3, 7, 0);
  assert.deepEqual([...(await readInts(positions, 3))], [6, 6, 2]);
});

test("sample with a draw for each row is sample of that row by itself", async () => {
  const [rows, vocab] = [6, 300];
  const numbers = new Numbers(3);
  const logits = Array.from({ length: rows }, () => [...numbers.array(vocab)]);
  const draws = Array.from({ length: rows }, (_, r) => [r * 1000 - 7, r * 3]);
  const ids = i32(new Array(rows).fill(-1));
  op.sample(f32(logits.flat()), i32(draws.flat()), ids, rows, vocab, 50, 1, 1, 1.5, 0.95, 0);
  const together = [...(await readInts(ids, rows))];
  for (let r = 0; r < rows; r++) {
    const one = i32([-1]);
    op.sample(f32(logits[r]!), 0, one, 1, vocab, 50, draws[r]![0]!, draws[r]![1]!, 1.5, 0.95, 0);
    assert.equal((await readInts(one, 1))[0], together[r]);
  }
  assert.ok(new Set(together).size > 1);
});
