import assert from "node:assert/strict";
import { test } from "node:test";
import { collate } from "../../src/data/collate.js";
import { packRows } from "../../src/data/pack.js";
import { BatchSampler } from "../../src/data/sampler.js";
import { tokenizeRows } from "../../src/data/tokenize.js";
import type { Model } from "../../src/index.js";
import { fill } from "../../src/tensor/ops/elementwise.js";
import { outsideScope } from "../../src/tensor/scope.js";
import { empty } from "../../src/tensor/tensor.js";
import { accumulateGradients } from "../../src/training/loss.js";
import { withModelFolder } from "../facade/small.js";
import { adapted, rows } from "./resumable.js";

type Side = "none" | "right" | "left";

/** Loss and gradients of one optimizer step over groups of examples. */
async function step(
  model: Model,
  groups: readonly ArrayLike<number>[],
  side: Side,
): Promise<Map<string, Float32Array>> {
  const { examples } = await tokenizeRows(rows, model.tokenizer);
  const batches = groups.map((group) =>
    collate(
      Array.from(group, (i) => examples[i]!),
      { paddingSide: side },
    ),
  );
  assert.equal(
    groups.reduce((n, group) => n + group.length, 0),
    examples.length,
  );
  const tokens = batches.reduce((n, batch) => n + batch.tokens, 0);
  const sum = outsideScope(() => fill(empty([1], "float32", model.device), 0));
  for (const batch of batches) accumulateGradients(model.module, batch, tokens, 0.1, sum, "selective");
  const out = new Map([["the loss", await sum.data()]]);
  for (const [name, p] of model.module.namedParameters()) if (p.grad) out.set(name, await p.grad.data());
  model.module.zeroGrad();
  sum.dispose();
  return out;
}

test("loss and every gradient are the same to 1e-5 for each split, padding side, packing and order by length", () =>
  withModelFolder(async (folder) => {
    const model = await adapted(folder, { dropout: 0 });
    // B begins at zero; a step makes A's gradients something to compare.
    await model.train(rows, { steps: 2, batch: 8, lr: 1e-2, progress: false });
    const all = rows.map((_, i) => i);
    const split = (size: number): number[][] =>
      Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));
    const { examples } = await tokenizeRows(rows, model.tokenizer);
    const lengths = examples.map((example) => example.ids.length);
    const sampler = new BatchSampler(lengths, { batch: 4, groupByLength: true });
    const grouped = Array.from({ length: sampler.batches }, () => sampler.next()!);
    const packed = packRows(lengths, Math.max(...lengths) * 3).rows;
    const want = await step(model, split(22), "right");
    assert.equal(want.size, 29);
    const cases: [string, readonly ArrayLike<number>[], Side][] = [
      ["1 by 22", split(1), "right"],
      ["4 by 6, the last short", split(4), "right"],
      ["7 by 4, on the left", split(7), "left"],
      ["all at once, on the left", split(22), "left"],
      ["all at once, end to end", split(22), "none"],
      ["grouped by length", grouped, "right"],
      ["grouped by length, end to end", grouped, "none"],
      ["packed", packed, "none"],
    ];
    for (const [name, groups, side] of cases) {
      const got = await step(model, groups, side);
      assert.deepEqual([...got.keys()], [...want.keys()], name);
      for (const [key, values] of want) {
        const most = values.reduce((n, v) => Math.max(n, Math.abs(v)), 0);
        const error = values.reduce((n, v, i) => Math.max(n, Math.abs(v - got.get(key)![i]!)), 0) / most;
        assert.ok(error < 1e-5, `${name}: ${key} differs by ${error}`);
      }
    }
    model.dispose();
  }));
