import assert from "node:assert/strict";
import { test } from "node:test";
import { collate } from "../../src/data/collate.js";
import { packRows } from "../../src/data/pack.js";
import { Random } from "../../src/data/random.js";
import { ConfigError, DataError } from "../../src/errors.js";

/** Best fit as one would write it down, in quadratic time. */
function slowly(lengths: readonly number[], capacity: number): number[][] {
  const rows: { left: number; since: number; examples: number[] }[] = [];
  const order = lengths.map((_, i) => i).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  for (const [time, i] of order.entries()) {
    const fits = rows.filter((row) => row.left >= lengths[i]!).sort((a, b) => a.left - b.left || a.since - b.since);
    let row = fits[0];
    if (!row) rows.push((row = { left: capacity, since: 0, examples: [] }));
    row.left -= lengths[i]!;
    row.since = time;
    row.examples.push(i);
  }
  return rows.map((row) => row.examples);
}

test("packing is best fit, decreasing: every example once, no row over its capacity", () => {
  const random = new Random(3);
  for (const [count, capacity] of [
    [1, 1],
    [7, 10],
    [300, 64],
    [500, 1000],
    [400, 127],
  ] as const) {
    const lengths = Array.from({ length: count }, () => 1 + random.nextInt(capacity));
    const { rows, tokens, efficiency } = packRows(lengths, capacity);
    assert.deepEqual(
      rows.map((row) => [...row]),
      slowly(lengths, capacity),
    );
    const total = lengths.reduce((a, b) => a + b, 0);
    assert.equal(tokens, total);
    assert.equal(efficiency, total / (rows.length * capacity));
  }
  // Summaries of dialogues: mostly short, some long.
  const lengths = Array.from({ length: 5000 }, () => 40 + random.nextInt(200) + (random.nextInt(5) === 0 ? 300 : 0));
  assert.ok(packRows(lengths, 1024).efficiency > 0.98);
});

test("packing refuses what cannot be", () => {
  assert.throws(() => packRows([3, 9], 8), DataError);
  assert.throws(() => packRows([3], 0), ConfigError);
  assert.deepEqual(packRows([], 8).rows, []);
});

test("without padding, examples stand end to end, each from position 0", () => {
  const example = (ids: number[]) => ({ ids: Int32Array.from(ids), labels: Int32Array.from(ids) });
  const batch = collate([example([5, 6, 7]), example([8]), example([9, 10])], { paddingSide: "none" });
  assert.deepEqual([batch.batch, batch.length, batch.tokens], [1, 6, 3]);
  assert.deepEqual([...batch.inputIds], [5, 6, 7, 8, 9, 10]);
  assert.deepEqual([...batch.labels], [6, 7, -100, -100, 10, -100]);
  assert.deepEqual([...batch.positions], [0, 1, 2, 0, 0, 1]);
  assert.deepEqual([...batch.sequences.begin], [0, 3, 4]);
  assert.deepEqual([...batch.sequences.length], [3, 1, 2]);
});
