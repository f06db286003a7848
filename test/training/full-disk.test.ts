import assert from "node:assert/strict";
import { cp, mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { TrainStep } from "../../src/index.js";
import { damageOf, findCheckpoint } from "../../src/training/checkpoint-files.js";
import { readState } from "../../src/training/checkpoint-state.js";
import { Checkpoints } from "../../src/training/checkpoints.js";
import { type Fault, FaultyDisk } from "./disk.js";
import { adapted, adapterHash, options, rows, withFolders } from "./resumable.js";

/** A small model, its state after some steps, and what a saver is called with. */
async function savable(folder: string, output: string) {
  const model = await adapted(folder, { rank: 1, target: ["q_proj"] });
  await model.train(rows, { ...options, steps: 4, output, saveEvery: 4 });
  const state = await readState(join(output, "checkpoint-4"));
  const parameters = [...model.module.namedParameters()].filter(([, p]) => p.requiresGrad);
  const tensors = new Map(parameters.map(([name, p]) => [`parameter/${name}`, p]));
  return { model, state, tensors };
}

for (const fault of ["full once", "full from then on", "half written", "half lost"] satisfies Fault[]) {
  test(`a disk that is ${fault} at any operation of a save leaves a checkpoint that loads`, () =>
    withFolders(async (folder, output) => {
      const first = join(output, "first");
      const { model, state, tensors } = await savable(folder, first);
      const copy = join(output, "copy");
      let survived = 0;
      let operations = 0;
      for (let at = 1; ; at++) {
        await rm(copy, { recursive: true, force: true });
        await mkdir(copy);
        await cp(join(first, "checkpoint-4"), join(copy, "checkpoint-4"), { recursive: true });
        const checkpoints = new Checkpoints({
          output: copy,
          every: 4,
          saveAdapter: (into) => model.saveTrained(into),
        });
        let struck: boolean;
        {
          using disk = new FaultyDisk(at, fault);
          await checkpoints.save({ ...state, step: 8 }, tensors);
          await checkpoints.settle();
          struck = disk.struck;
          operations = disk.operations;
        }
        const { checkpoint, damaged } = await findCheckpoint(true, copy);
        assert.equal(damaged.size, 0, `operation ${at}: ${[...damaged.values()]}`);
        assert.equal((await readState(checkpoint.folder)).step, checkpoint.step);
        if (checkpoints.problem === undefined) {
          assert.equal(checkpoint.step, 8, `operation ${at}: nothing is said of a save that failed`);
          if (struck) survived++;
        } else {
          assert.ok(struck);
          if (fault !== "half lost") assert.match(checkpoints.problem, /is full; free some space/, `operation ${at}`);
          assert.match(checkpoints.problem, /step 8 was not saved.*Training goes on; the next save tries again/);
          // It is the folder's own name that counts: what fails after it was given is no loss.
          assert.ok(checkpoint.step === 4 || checkpoint.step === 8);
          assert.deepEqual(
            (await readdir(copy)).filter((name) => name.endsWith(".tmp")),
            [],
          );
          await checkpoints.save({ ...state, step: 8 }, tensors);
          await checkpoints.settle();
          assert.equal(checkpoints.problem, undefined, `operation ${at}: the next save did not succeed`);
          assert.equal(checkpoints.last?.step, 8);
          assert.equal(await damageOf(checkpoints.last), undefined);
        }
        if (at >= operations && !struck) break;
      }
      assert.ok(operations > 30, `${operations} operations`);
      // A write that says how little it took is gone on with; nothing else is survived.
      if (fault === "half written") assert.ok(survived > 10, `${survived}`);
      else assert.equal(survived, 0);
      model.dispose();
    }));
}

test("a run on a full disk goes on, says so, saves again when there is room, and resumes exactly", () =>
  withFolders(async (folder, output) => {
    const whole = await adapted(folder);
    await whole.train(rows, { ...options, output: join(output, "whole") });
    whole.dispose();
    const parts = join(output, "parts");
    let disk: FaultyDisk | undefined;
    const warnings: string[][] = [];
    const model = await adapted(folder);
    const run = model.train(rows, {
      ...options,
      output: parts,
      saveEvery: 2,
      callbacks: [
        ({ step }: TrainStep) => {
          if (step === 5) disk = new FaultyDisk(1, "full from then on");
          if (step === 11) disk?.[Symbol.dispose]();
          if (step === 15) run.stop();
        },
      ],
    });
    try {
      const result = await run;
      warnings.push(result.warnings);
      assert.equal(result.checkpoint?.step, 15);
    } finally {
      disk?.[Symbol.dispose]();
    }
    assert.ok(disk?.struck);
    assert.match(warnings[0]!.join(), /[34] checkpoints were not saved.*step 10.*is full/s);
    model.dispose();
    const again = await adapted(folder);
    await again.train(rows, { ...options, output: parts, resume: true });
    again.dispose();
    assert.equal(await adapterHash(parts), await adapterHash(join(output, "whole")));
  }));
