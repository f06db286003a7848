import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { close, f32, fails, i32, Numbers, out, read, readInts } from "./ops-harness.js";

/** Philox 4x32-10 written plainly. */
function philox(counter: bigint, key: number): number[] {
  const mask = 0xffffffffn;
  let c = [counter & mask, counter >> 32n, 0n, 0n];
  let [k0, k1] = [BigInt(key >>> 0), 0n];
  for (let round = 0; round < 10; round++) {
    const a = c[0]! * 0xd2511f53n;
    const b = c[2]! * 0xcd9e8d57n;
    c = [(b >> 32n) ^ c[1]! ^ k0, b & mask, (a >> 32n) ^ c[3]! ^ k1, a & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return c.map(Number);
}

test("random_uniform is Philox 4x32-10: element i is word i % 4 of counter offset + i / 4", async () => {
  assert.deepEqual(philox(0n, 0), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]); // the authors' known answer
  for (const [n, seed, offset] of [
    [1, 0, 0],
    [1003, 42, 7],
    [50, -5, 2 ** 31 - 10],
  ] as const) {
    const y = out(n);
    op.randomUniform(y, n, seed, offset, 0, 1);
    const expected = Float32Array.from(
      { length: n },
      (_, i) => (philox(BigInt(offset + Math.floor(i / 4)), seed)[i % 4]! >>> 8) / 2 ** 24,
    );
    assert.deepEqual(await read(y, n), expected);
  }
});

const moments = (x: Float32Array): [number, number] => {
  const mean = x.reduce((s, v) => s + v, 0) / x.length;
  return [mean, x.reduce((s, v) => s + (v - mean) ** 2, 0) / x.length];
};

test("random numbers have the moments asked for; one seed gives one sequence", async () => {
  const n = 400_000;
  const [a, b, c] = [out(n), out(n), out(n)];
  op.randomUniform(a, n, 1, 0, -2, 4);
  const uniform = await read(a, n);
  const [um, uv] = moments(uniform);
  assert.ok(Math.abs(um - 1) < 0.02 && Math.abs(uv - 3) < 0.03, `mean ${um}, variance ${uv}`);
  assert.ok(uniform.every((v) => v >= -2 && v < 4));
  op.randomNormal(a, n, 3, 0, 0.5, 2);
  op.randomNormal(b, n, 3, 0, 0.5, 2);
  op.randomNormal(c, n, 4, 0, 0.5, 2);
  const x = await read(a, n);
  assert.deepEqual(x, await read(b, n));
  assert.notDeepEqual(x, await read(c, n));
  const [mean, variance] = moments(x);
  assert.ok(Math.abs(mean - 0.5) < 0.02 && Math.abs(variance - 4) < 0.05, `mean ${mean}, variance ${variance}`);
  const z = x.map((v) => (v - 0.5) / 2);
  const inside = (k: number): number => z.filter((v) => Math.abs(v) < k).length / n;
  assert.ok(
    Math.abs(inside(1) - 0.6827) < 0.005 &&
      Math.abs(inside(2) - 0.9545) < 0.003 &&
      Math.abs(inside(3) - 0.9973) < 0.001,
  );
  let pairs = 0; // the two numbers of a pair are independent
  for (let i = 0; i < n; i += 2) pairs += z[i]! * z[i + 1]!;
  assert.ok(Math.abs(pairs / (n / 2)) < 0.01);
  op.randomNormal(a, 100, 3, 25, 0.5, 2); // continues where element 100 stood
  assert.deepEqual((await read(a, n)).slice(0, 100), x.slice(100, 200));
});

test("dropout keeps 1 - p, scales by 1 / (1 - p), and gives one mask for one seed", async () => {
  const n = 200_001;
  const x = new Float32Array(n).fill(1);
  for (const p of [0, 0.1, 0.5, 0.9]) {
    const y = out(n);
    op.dropout(f32(x), y, n, 9, 100, p);
    const values = await read(y, n);
    const kept = values.filter((v) => v !== 0);
    assert.ok(Math.abs(kept.length / n - (1 - p)) < 0.005, `kept ${kept.length / n} with p ${p}`);
    close(kept, new Float32Array(kept.length).fill(1 / (1 - p)), 1e-6);
    const again = f32(x);
    op.dropout(again, again, n, 9, 100, p); // in place
    assert.deepEqual(await read(again, n), values);
  }
  const y = out(n);
  op.dropout(f32(x), y, n, 9, 100, 1);
  assert.ok((await read(y, n)).every((v) => v === 0));
  await fails(() => op.dropout(y, y, n, 1, 0, 1.5), /p is 1.5/);
});

test("repetition_penalty acts once on each distinct id", async () => {
  const logits = f32([1, -1, 2, 4, 0, -3, 6, 1]);
  op.repetitionPenalty(i32([0, 1, 0, -1, 3, 3, 2, -1]), logits, 2, 4, 4, 2);
  assert.deepEqual([...(await read(logits, 8))], [0.5, -2, 2, 4, 0, -3, 3, 0.5]);
  await fails(
    () => op.repetitionPenalty(i32([4, 0]), logits, 2, 4, 1, 2),
    /id 4 at row 0 is outside the vocabulary of 4/,
  );
});

/** Probabilities after the filters, as transformers applies them. */
function distribution(
  logits: ArrayLike<number>,
  temperature: number,
  topK: number,
  topP: number,
  minP: number,
): number[] {
  let p = Array.from(logits, (l) => Math.exp(l / temperature));
  const normalise = (): void => {
    const sum = p.reduce((s, v) => s + v, 0);
    p = p.map((v) => v / sum);
  };
  normalise();
  if (topK > 0) {
    const kth = [...p].sort((a, b) => b - a)[Math.min(topK, p.length) - 1]!;
    p = p.map((v) => (v < kth ? 0 : v));
    normalise();
  }
  if (topP < 1) {
    const order = [...p.keys()].sort((a, b) => p[b]! - p[a]!);
    let mass = 0;
    const kept = new Set<number>();
    for (const i of order) {
      if (kept.size > 0 && mass >= topP) break;
      kept.add(i);
      mass += p[i]!;
    }
    p = p.map((v, i) => (kept.has(i) ? v : 0));
    normalise();
  }
  const top = Math.max(...p);
  p = p.map((v) => (v < minP * top ? 0 : v));
  normalise();
  return p;
}

test("sample draws from the filtered distribution", async () => {
  const r = new Numbers(8);
  const vocab = 37;
  const rows = 20_000;
  const logits = r.array(vocab, -3, 3);
  const many = new Float32Array(rows * vocab);
  for (let i = 0; i < rows; i++) many.set(logits, i * vocab);
  const h = f32(many);
  for (const [temperature, topK, topP, minP] of [
    [1, 0, 1, 0],
    [0.7, 5, 1, 0],
    [1.5, 0, 0.6, 0],
    [1, 0, 1, 0.2],
    [0.9, 12, 0.8, 0.1],
    [1, 1, 1, 0],
    [1, 0, 0, 0],
    [1, 100, 1, 0],
  ] as const) {
    const ids = i32(new Int32Array(rows));
    op.sample(h, 0, ids, rows, vocab, topK, 5, 77, temperature, topP, minP);
    const counts = new Float64Array(vocab);
    for (const id of await readInts(ids, rows)) counts[id]! += 1 / rows;
    const expected = distribution(logits, temperature, topK, topP, minP);
    for (let i = 0; i < vocab; i++) {
      if (expected[i] === 0) assert.equal(counts[i], 0, `id ${i} was cut and must not be drawn`);
      const sigma = Math.sqrt((expected[i]! * (1 - expected[i]!)) / rows);
      assert.ok(
        Math.abs(counts[i]! - expected[i]!) <= 5 * sigma + 1e-9,
        `id ${i}: drawn ${counts[i]}, expected ${expected[i]}`,
      );
    }
  }
});

test("sample: greedy, one seed one draw, rows independent, a large vocabulary, logits that are not finite", async () => {
  const r = new Numbers(11);
  const vocab = 50_000;
  const logits = r.array(3 * vocab, -10, 10);
  logits[123] = 11;
  logits[777] = 11;
  const ids = i32([0, 0, 0]);
  const h = f32(logits);
  op.sample(h, 0, ids, 3, vocab, 50, 1, 2, 0, 0.9, 0);
  assert.equal((await readInts(ids, 3))[0], 123);
  for (const [topK, topP] of [
    [0, 1],
    [50, 1],
    [0, 0.95],
    [40, 0.5],
  ] as const) {
    op.sample(h, 0, ids, 3, vocab, topK, 1, 2, 1, topP, 0);
    const first = await readInts(ids, 3);
    op.sample(h, 0, ids, 3, vocab, topK, 1, 2, 1, topP, 0);
    assert.deepEqual(await readInts(ids, 3), first);
    assert.ok(first.every((id) => id >= 0 && id < vocab));
    if (topK > 0) {
      for (let row = 0; row < 3; row++) {
        const part = logits.subarray(row * vocab, (row + 1) * vocab);
        const kth = [...part].sort((a, b) => b - a)[topK - 1]!;
        assert.ok(part[first[row]!]! >= kth);
      }
    }
  }
  await fails(() => op.sample(f32([1, Number.NaN]), 0, i32([0]), 1, 2, 0, 1, 0, 1, 1, 0), /logits of row 0 hold NaN/);
  const none = Number.NEGATIVE_INFINITY;
  await fails(() => op.sample(f32([none, none]), 0, i32([0]), 1, 2, 0, 1, 0, 1, 1, 0), /all -infinity/);
});
