import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Batch, collate } from "../../src/data/collate.js";
import type { Example } from "../../src/data/mask.js";
import { ConfigError, DataError } from "../../src/errors.js";

const EOS = 2;
const example = (ids: number[], labels: number[] = ids): Example => ({
  ids: Int32Array.from(ids),
  labels: Int32Array.from(labels),
});
const three: Example[] = [example([1, 5, EOS]), example([1, 6, 7, 8, EOS], [-100, -100, 7, 8, EOS]), example([9])];
const rows = (flat: Int32Array, batch: Batch) =>
  Array.from({ length: batch.batch }, (_, i) => [...flat.subarray(i * batch.length, (i + 1) * batch.length)]);

describe("collating", () => {
  it("pads on the right, with labels of the next token", () => {
    // The pad id is the EOS: the real EOS stays trained, the padding does not.
    const batch = collate(three, { padId: EOS });
    assert.deepEqual([batch.batch, batch.length, batch.tokens], [3, 5, 5]);
    assert.deepEqual(rows(batch.inputIds, batch), [
      [1, 5, EOS, EOS, EOS],
      [1, 6, 7, 8, EOS],
      [9, EOS, EOS, EOS, EOS],
    ]);
    assert.deepEqual(rows(batch.labels, batch), [
      [5, EOS, -100, -100, -100],
      [-100, 7, 8, EOS, -100],
      [-100, -100, -100, -100, -100],
    ]);
    assert.deepEqual(rows(batch.positions, batch), [
      [0, 1, 2, 0, 0],
      [0, 1, 2, 3, 4],
      [0, 0, 0, 0, 0],
    ]);
    assert.deepEqual([...batch.sequences.begin], [0, 5, 10]);
    assert.deepEqual([...batch.sequences.length], [3, 5, 1]);
  });

  it("pads on the left: the same sequences elsewhere", () => {
    const right = collate(three);
    const left = collate(three, { paddingSide: "left", padToMultipleOf: 4 });
    assert.deepEqual([left.length, left.tokens], [8, right.tokens]);
    assert.deepEqual([...left.sequences.begin], [5, 11, 23]);
    for (const name of ["inputIds", "labels", "positions"] as const) {
      three.forEach((_, i) => {
        const cut = (batch: Batch) =>
          batch[name].slice(batch.sequences.begin[i]!, batch.sequences.begin[i]! + batch.sequences.length[i]!);
        assert.deepEqual(cut(left), cut(right), `${name} of row ${i}`);
      });
    }
    assert.equal(left.labels.filter((label) => label !== -100).length, left.tokens);
  });

  it("refuses what is no batch", () => {
    assert.throws(() => collate([]), DataError);
    assert.throws(() => collate([example([])]), DataError);
    assert.throws(() => collate(three, { padToMultipleOf: 0 }), ConfigError);
    assert.throws(() => collate(three, { paddingSide: "top" as never }), ConfigError);
  });
});
