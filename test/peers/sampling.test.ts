// What is drawn, against the distributions that transformers' logits processors leave (scripts/peers/golden_sampling.py).
import assert from "node:assert/strict";
import { test } from "node:test";
import { type SamplingOptions, sampleRows, samplingSettings } from "../../src/evaluation/generate.js";
import * as calls from "../../src/tensor/calls.js";
import { noGrad } from "../../src/tensor/record.js";
import { scope } from "../../src/tensor/scope.js";
import { tensor } from "../../src/tensor/tensor.js";
import { goldenValues } from "../golden.js";

interface Case {
  options: SamplingOptions;
  seen: number[];
  logits: number[];
  probabilities: number[];
}

const ROWS = 20_000;

for (const { options, seen, logits, probabilities } of goldenValues("sampling").cases as Case[])
  test(`sampling by ${JSON.stringify(options)}`, async () => {
    const settings = samplingSettings({ temperature: 1, ...options });
    const vocab = logits.length;
    const many = new Float32Array(ROWS * vocab);
    const before = new Int32Array(ROWS * seen.length);
    for (let r = 0; r < ROWS; r++) {
      many.set(logits, r * vocab);
      before.set(seen, r * seen.length);
    }
    const counts = new Float64Array(vocab);
    const batches = 5;
    for (let batch = 0; batch < batches; batch++) {
      const ids = scope(() =>
        noGrad(() => {
          const rows = tensor(many, { shape: [ROWS, vocab] });
          if (settings.repetitionPenalty !== 1)
            calls.repetitionPenalty(
              tensor(before).handle,
              rows.handle,
              ROWS,
              vocab,
              seen.length,
              settings.repetitionPenalty,
            );
          return sampleRows(rows, settings, 11 + batch, batch * ROWS);
        }),
      );
      for (const id of (await ids.raw()) as Int32Array) counts[id]! += 1 / (batches * ROWS);
      ids.dispose();
    }
    let chi = 0;
    let kinds = 0;
    probabilities.forEach((p, id) => {
      if (p === 0) {
        assert.equal(counts[id], 0, `id ${id} was cut and must not be drawn`);
        return;
      }
      const sigma = Math.sqrt((p * (1 - p)) / (batches * ROWS));
      assert.ok(Math.abs(counts[id]! - p) <= 5 * sigma + 1e-9, `id ${id}: drawn ${counts[id]}, expected ${p}`);
      if (p * batches * ROWS < 10) return;
      chi += (batches * ROWS * (counts[id]! - p) ** 2) / p;
      kinds++;
    });
    // Of a right distribution this is about the number of kinds, with a spread of √(2 · kinds).
    assert.ok(chi <= kinds + 5 * Math.sqrt(2 * kinds) + 5, `chi² ${chi} of ${kinds} kinds`);
  });
