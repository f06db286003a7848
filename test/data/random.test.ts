import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../src/data/random.js";

test("xoshiro128** gives the sequence of its authors' code", () => {
  // From the state 1, 2, 3, 4: first rotl(2 * 5, 7) * 9.
  const random = new Random(0).restore([1, 2, 3, 4]);
  assert.equal(random.nextUint32(), 11520);
  assert.equal(random.nextUint32(), 0);
  assert.equal(random.nextUint32(), 5927040);
});

test("one seed, one sequence; the state carries on", () => {
  const a = new Random(42);
  const b = new Random(42);
  assert.deepEqual([a.nextFloat(), a.nextInt(10)], [b.nextFloat(), b.nextInt(10)]);
  const c = new Random(1).restore(JSON.parse(JSON.stringify(a.state)));
  assert.equal(a.nextUint32(), c.nextUint32());
  assert.notEqual(new Random(1).nextUint32(), new Random(1 + 2 ** 32).nextUint32());
  assert.notEqual(new Random(1).fork("a").nextUint32(), new Random(1).fork("b").nextUint32());
});

test("uniform integers, floats and normals", () => {
  const random = new Random(7);
  const counts = new Array<number>(6).fill(0);
  for (let i = 0; i < 60_000; i++) counts[random.nextInt(6)]! += 1;
  for (const count of counts) assert.ok(Math.abs(count - 10_000) < 500, String(counts));
  const normals = Array.from({ length: 20_000 }, () => random.nextNormal());
  const mean = normals.reduce((a, b) => a + b, 0) / normals.length;
  const variance = normals.reduce((a, b) => a + (b - mean) ** 2, 0) / normals.length;
  assert.ok(Math.abs(mean) < 0.03 && Math.abs(variance - 1) < 0.05, `${mean} ${variance}`);
  const float = random.nextFloat();
  assert.ok(float >= 0 && float < 1);
});

test("a shuffle is a permutation, and each is about as likely", () => {
  const random = new Random(3);
  assert.deepEqual(
    [...random.permutation(100)].sort((a, b) => a - b),
    Array.from({ length: 100 }, (_, i) => i),
  );
  const seen = new Map<string, number>();
  for (let i = 0; i < 6000; i++) {
    const key = random.shuffle([1, 2, 3]).join("");
    seen.set(key, (seen.get(key) ?? 0) + 1);
  }
  assert.equal(seen.size, 6);
  for (const count of seen.values()) assert.ok(Math.abs(count - 1000) < 150);
});

test("bad seeds, bounds and states", () => {
  for (const seed of [-1, 0.5, Number.NaN, 2 ** 53]) assert.throws(() => new Random(seed), /seed/);
  assert.throws(() => new Random(0).nextInt(0), /bound/);
  for (const state of [[], [0, 0, 0, 0], [1, 2, 3, -1], [1, 2, 3, 2 ** 32]]) {
    assert.throws(() => new Random(0).restore(state), /state/);
  }
});
