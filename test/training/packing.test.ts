import assert from "node:assert/strict";
import { test } from "node:test";
import { loadModel, type TrainOptions, type TrainResult, type TrainStep } from "../../src/index.js";
import { withModelFolder } from "../facade/small.js";

const words = "the sea is blue and grass green a rose red coal black over hills boats sail".split(" ");

/** Rows of very different lengths. */
const rows = Array.from({ length: 20 }, (_, i) => ({
  prompt: `The ${words[i % words.length]} `,
  completion: Array.from({ length: 1 + ((i * 5) % 13) }, (_, k) => words[(i * 3 + k * k) % words.length]).join(" "),
}));

async function run(folder: string, options: TrainOptions): Promise<TrainResult> {
  const model = await loadModel(folder, { weights: "random", seed: 1, progress: false }).addLora({
    rank: 4,
    target: "all-linear",
    seed: 2,
  });
  const result = await model.train(rows, {
    steps: 6,
    lr: 2e-2,
    validation: rows.slice(0, 7),
    progress: false,
    ...options,
  });
  model.dispose();
  return result;
}

const column = (result: TrainResult, name: "loss" | "gradNorm" | "validationLoss"): number[] =>
  result.history.toRows().map((row) => (row as unknown as TrainStep)[name] ?? 0);

test("packed, padded and padding-free rows train alike, however a step is split", () =>
  withModelFolder(async (folder) => {
    // Each optimizer step sees all rows, so that only the layout differs.
    const padded = await run(folder, { batch: 20, paddingSide: "right" });
    const others: [string, TrainOptions][] = [
      ["left", { batch: 5, accumulate: 4, paddingSide: "left" }],
      ["padding-free", { batch: 20 }],
      ["padding-free, 4 by 4", { batch: 4, accumulate: 5 }],
      ["padding-free, uneven", { batch: 3, accumulate: 7 }],
      ["packed, all at once", { batch: 64, packing: true, maxLength: 100 }],
      ["packed, row by row", { batch: 1, accumulate: 64, packing: true, maxLength: 64 }],
      ["packed, two by two", { batch: 2, accumulate: 32, packing: true, maxLength: 100 }],
      ["packed into one row", { batch: 1, packing: true, maxLength: 128, accumulate: 64 }],
    ];
    for (const [name, options] of others) {
      const result = await run(folder, options);
      for (const key of ["loss", "gradNorm", "validationLoss"] as const) {
        const expected = column(padded, key);
        for (const [i, value] of column(result, key).entries())
          assert.ok(
            Math.abs(value - expected[i]!) < 1e-5 * Math.max(1, Math.abs(expected[i]!)),
            `${name}: ${key} of step ${i + 1} is ${value}, padded ${expected[i]}`,
          );
      }
    }
  }));

test("the run says how full the packed rows are; batch counts them", () =>
  withModelFolder(async (folder) => {
    const { packing, steps, samplesPerSecond, seconds, toTable } = await run(folder, {
      batch: 1,
      epochs: 1,
      steps: undefined as never,
      packing: true,
      maxLength: 120,
    });
    assert.ok(packing && packing.examples === 20 && packing.capacity === 120 && packing.rows < 20);
    assert.ok(packing.efficiency > 0.6 && packing.efficiency <= 1, `${packing.efficiency}`);
    assert.equal(steps, packing.rows);
    assert.equal(Math.round(samplesPerSecond * seconds), 20);
    assert.match(toTable().toText(), /20 rows in \d+ of 120 tokens, \d+(\.\d+)?\s?% full/);
    await assert.rejects(async () => run(folder, { packing: true, paddingSide: "left" }), /never padded/);
  }));
