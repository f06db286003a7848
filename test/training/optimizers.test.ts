import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigError, loadModel, type TrainStep } from "../../src/index.js";
import { stats } from "../../src/tensor/native.js";
import { type OptimizerOption, optimizerKind, optimizerName } from "../../src/training/optimizer-names.js";
import { colourRows, withModelFolder } from "../facade/small.js";

test("an optimizer goes by its own name and by transformers'", () => {
  for (const [given, name] of [
    ["adamw", "adamw"],
    ["adamw_torch", "adamw"],
    ["adamw_8bit", "adamw8bit"],
    ["paged_adamw_8bit", "paged-adamw8bit"],
    ["paged_adamw_32bit", "paged-adamw"],
    ["sgd", "sgd"],
  ] as [OptimizerOption, string][])
    assert.equal(optimizerName(given), name);
  assert.throws(() => optimizerName("adam" as "adamw"), ConfigError);
  assert.throws(() => optimizerName("toString" as "adamw"), /optimizer must be one of adamw, adamw8bit/);
  assert.deepEqual(optimizerKind("paged-adamw8bit"), { kind: "adamw8bit", paged: true });
  assert.deepEqual(optimizerKind("adamw"), { kind: "adamw", paged: false });
});

test("8-bit moments train like float32 ones in less memory, and the paged optimizer is the plain one on the CPU", () =>
  withModelFolder(async (folder) => {
    const before = stats().handles;
    const losses = new Map<string, number[]>();
    const bytes = new Map<string, number>();
    for (const optimizer of ["adamw", "adamw_8bit", "paged-adamw8bit"] as const) {
      // Rank 64: both matrices of an adapter have 4,096 elements and more.
      const model = await loadModel(folder, { weights: "random", seed: 1, progress: false }).addLora({
        rank: 64,
        target: "all-linear",
        seed: 2,
      });
      const run = await model.train(colourRows(16), { epochs: 8, batch: 8, lr: 5e-3, optimizer, progress: false });
      losses.set(
        optimizer,
        run.history.toRows().map((r) => (r as unknown as TrainStep).loss),
      );
      bytes.set(optimizer, model.memory().optimizer);
      model.dispose();
    }
    const [full, eight, paged] = [...losses.values()] as [number[], number[], number[]];
    assert.deepEqual(paged, eight);
    assert.ok(full.at(-1)! < full[0]! / 2);
    assert.ok(Math.abs(eight.at(-1)! - full.at(-1)!) < 0.1 * full[0]!, `${full.at(-1)} and ${eight.at(-1)}`);
    assert.notDeepEqual(eight, full);
    assert.ok(bytes.get("adamw_8bit")! < 0.5 * bytes.get("adamw")!, `${[...bytes]}`);
    assert.equal(stats().handles, before, "tensors were left behind");
  }));
