import assert from "node:assert/strict";
import { appendFile, cp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import {
  type LoraOptions,
  loadModel,
  type Model,
  type TrainOptions,
  type TrainRun,
  type TrainStep,
} from "../../src/index.js";
import { stats } from "../../src/tensor/native.js";
import { Tensor } from "../../src/tensor/tensor.js";
import { Checkpoints } from "../../src/training/checkpoints.js";
import { adapted, adapterHash, options, pairs, rows, withFolders } from "./resumable.js";

const names = async (folder: string): Promise<string[]> => (await readdir(folder)).sort();
const losses = (history: { toRows(): unknown[] }): number[] => history.toRows().map((row) => (row as TrainStep).loss);

/** Starts a run that ends after a step; without one, at its end. */
function start(model: Model, given: TrainOptions, until = Number.POSITIVE_INFINITY): TrainRun {
  const stop = ({ step }: TrainStep): void => {
    if (step >= until) run.stop();
  };
  const inPairs = given.method && given.method !== "sft";
  const own = inPairs ? { validation: pairs.slice(0, 4) } : {};
  const run = model.train(inPairs ? pairs : rows, { ...options, ...own, callbacks: [stop], ...given });
  return run;
}

/** Trains to the end, or until a step has been taken. */
async function train(folder: string, given: TrainOptions, until?: number, lora: Partial<LoraOptions> = {}) {
  const model = await adapted(folder, lora);
  try {
    return await start(model, given, until);
  } finally {
    model.dispose();
  }
}

for (const [name, given] of Object.entries({
  adamw: { optimizer: "adamw" },
  "adamw8bit and packing": { optimizer: "adamw8bit", packing: true, maxLength: 48 },
  "paged-adamw and lengths grouped": { optimizer: "paged-adamw", groupByLength: true },
  "paged-adamw8bit": { optimizer: "paged-adamw8bit", accumulate: 1 },
  "sgd with momentum": { optimizer: "sgd", momentum: 0.9, schedule: "linear" },
  "no shuffling, label smoothing, full checkpointing": {
    shuffle: false,
    labelSmoothing: 0.1,
    checkpointing: "full",
  },
  orpo: { method: "orpo" },
  dpo: { method: "dpo", beta: 0.3 },
  NEFTune: { neftune: 5 },
  "init pissa": {},
  "init loftq and dora": { weightDecay: 0.1 },
} as Record<string, TrainOptions>)) {
  test(`a resumed run ends with the same bytes: ${name}`, () =>
    withFolders(async (folder, output) => {
      const before = stats().handles;
      // Rank 64: matrices of 4,096 elements, of which moments have 8 bits.
      const lora: Partial<LoraOptions> = { rank: name.includes("8bit") ? 64 : 4 };
      if (name.startsWith("init")) Object.assign(lora, { init: name.split(" ")[1], dora: name.includes("dora") });
      const whole = await train(folder, { ...given, output: join(output, "whole") }, undefined, lora);
      const parts = join(output, "parts");
      for (const stop of [1, 5, 11]) {
        const part = await train(folder, { ...given, output: parts, saveEvery: 4, resume: stop > 1 }, stop, lora);
        assert.equal(part.ended, "stopped");
        assert.equal(part.checkpoint?.step, stop);
      }
      const end = await train(folder, { ...given, output: parts, saveEvery: 4, resume: true }, undefined, lora);
      assert.equal(await adapterHash(parts), await adapterHash(join(output, "whole")));
      assert.deepEqual(losses(end.history), losses(whole.history));
      assert.deepEqual(end.best, whole.best);
      assert.equal(end.steps, 17);
      assert.equal((await names(parts)).filter((n) => n.startsWith("checkpoint-")).length, 2);
      assert.equal(stats().handles, before, "tensors were left behind");
    }));
}

test("full training goes on exactly, and ends as a model that loads", () =>
  withFolders(async (folder, output) => {
    const full = async (given: TrainOptions, until?: number) => {
      const model = await loadModel(folder, { weights: "random", seed: 1, progress: false });
      await start(model, given, until);
      const logits = await model.logits([[5, 6, 7]]);
      model.dispose();
      return logits;
    };
    const want = await full({ output: join(output, "whole") });
    await full({ output: join(output, "parts") }, 6);
    assert.deepEqual(await full({ output: join(output, "parts"), resume: true }), want);
    const again = await loadModel(join(output, "parts"), { progress: false });
    assert.deepEqual(await again.logits([[5, 6, 7]]), want);
    again.dispose();
  }));

test("a checkpoint is an adapter in PEFT's layout, its state and a manifest; nothing else is left behind", () =>
  withFolders(async (folder, output) => {
    const run = await train(folder, { output, saveEvery: 6, keepBest: false });
    assert.deepEqual(
      (await names(output)).filter((name) => name.includes("checkpoint")),
      ["checkpoint-12", "checkpoint-6"],
    );
    assert.equal(run.checkpoint?.step, 12);
    const files = await names(join(output, "checkpoint-12"));
    for (const name of ["adapter_config.json", "adapter_model.safetensors", "manifest.json", "state.json"])
      assert.ok(files.includes(name), `${files}`);
    const model = await loadModel(folder, { weights: "random", seed: 1, progress: false });
    await model.loadAdapter(join(output, "checkpoint-12"));
    model.dispose();
  }));

test("saveEvery below 1 is a share of the run; 0 saves nothing; it needs a folder", () =>
  withFolders(async (folder, output) => {
    await train(folder, { output, saveEvery: 0.5, steps: 8 });
    assert.deepEqual(
      (await names(output)).filter((name) => name.includes("checkpoint")),
      ["checkpoint-4", "checkpoint-8"],
    );
    const epoch = join(output, "epoch"); // 22 rows in steps of 3 x 2
    await train(folder, { output: epoch, saveEvery: "epoch", evalEvery: "epoch", steps: 10 });
    assert.deepEqual(
      (await names(epoch)).filter((name) => name.includes("checkpoint")),
      ["checkpoint-4", "checkpoint-8"],
    );
    await train(folder, { output: join(output, "none"), saveEvery: 0, steps: 3 }, 2);
    assert.ok(!(await names(join(output, "none"))).some((name) => name.includes("checkpoint")));
    await assert.rejects(train(folder, { saveEvery: 3 }), /saveEvery needs a folder/);
    await assert.rejects(train(folder, { resume: true }), /looks for checkpoints in output/);
    await assert.rejects(train(folder, { output, saveEvery: 2.5 }), /saveEvery must be/);
  }));

test("a run in a folder with the checkpoints of an older one replaces them, and is the one that is resumed", () =>
  withFolders(async (folder, output) => {
    await train(folder, { output, saveEvery: 4, steps: 16 });
    await train(folder, { output, saveEvery: 4, steps: 17 }, 4);
    const shown = await names(output);
    assert.ok(shown.includes("checkpoint-4") && shown.includes("checkpoint-16"), `${shown}`);
    const run = await train(folder, { output, resume: true });
    assert.equal(run.steps, 17);
    await train(folder, { output: join(output, "whole") });
    assert.equal(await adapterHash(output), await adapterHash(join(output, "whole")));
  }));

test("other options, data or models than the checkpoint's are named before any work", () =>
  withFolders(async (folder, output) => {
    await train(folder, { output, saveEvery: 4 }, 4);
    const refuses = (given: TrainOptions, message: RegExp) =>
      assert.rejects(train(folder, { output, resume: true, ...given }), (error: Error) => {
        assert.equal(error.name, "ConfigError");
        assert.match(error.message, message);
        return true;
      });
    await refuses({ lr: 2e-2 }, /- lr: 0\.01 in the checkpoint, 0\.02 now/);
    await refuses({ seed: 8 }, /- seed: 7 in the checkpoint, 8 now/);
    await refuses({ batch: 2, accumulate: 3 }, /- batch: 3 .*\n- accumulate: 2 in the checkpoint, 3 now/);
    await refuses({ optimizer: "sgd" }, /- optimizer: adamw in the checkpoint, sgd now/);
    await refuses({ maxLength: 64 }, /- maxLength: absent in the checkpoint, 64 now/);
    await refuses({ validation: rows.slice(1, 5) }, /content of the validation data/);
    const other = await adapted(folder, { alpha: 3 });
    const resumed = { ...options, output, resume: true } as const;
    await assert.rejects(async () => other.train(rows, resumed), /adapter's alpha: \d+ in the checkpoint, 3 now/);
    other.dispose();
    const same = await adapted(folder);
    const changed = rows.map((row, i) => (i === 9 ? { ...row, completion: " grey" } : row));
    await assert.rejects(async () => same.train(changed, resumed), /content of the training data/);
    same.dispose();
    const base = await loadModel(folder, { weights: "random", seed: 99, progress: false });
    base.addLora({ rank: 4, dropout: 0.1, target: "all-linear", seed: 2 });
    await assert.rejects(async () => base.train(rows, resumed), /frozen weights of the model/);
    base.dispose();
    // What changes nothing in the result may differ.
    const free = { checkpointing: "full", optimizer: "paged-adamw", saveEvery: 5, logEvery: 3 } as const;
    assert.equal((await train(folder, { output, resume: true, ...free })).steps, 17);
  }));

test("a damaged newest checkpoint is named and the one before is used; with none left, nothing starts anew in silence", () =>
  withFolders(async (folder, output) => {
    await train(folder, { output: join(output, "whole"), saveEvery: 0 });
    const want = await adapterHash(join(output, "whole"));
    await train(folder, { output: join(output, "good"), saveEvery: 4 }, 8);
    const damages: Record<string, (path: string) => Promise<void>> = {
      "state.safetensors cut short": (path) => truncate(join(path, "state.safetensors"), 5000),
      "a bit of state.safetensors changed": async (path) => {
        const bytes = await readFile(join(path, "state.safetensors"));
        bytes[bytes.length - 77]! ^= 4;
        await writeFile(join(path, "state.safetensors"), bytes);
      },
      "state.json with something behind it": (path) => appendFile(join(path, "state.json"), " "),
      "adapter_config.json gone": (path) => rm(join(path, "adapter_config.json")),
      "an empty manifest": (path) => truncate(join(path, "manifest.json")),
      "no manifest": (path) => rm(join(path, "manifest.json")),
      "a manifest with another step": async (path) => {
        const text = await readFile(join(path, "manifest.json"), "utf8");
        await writeFile(join(path, "manifest.json"), text.replace('"step": 8', '"step": 9'));
      },
    };
    for (const [name, damage] of Object.entries(damages)) {
      const copy = join(output, "copy");
      await rm(copy, { recursive: true, force: true });
      await cp(join(output, "good"), copy, { recursive: true });
      await damage(join(copy, "checkpoint-8"));
      await assert.rejects(
        train(folder, { output: join(output, "elsewhere"), resume: join(copy, "checkpoint-8") }),
        (error: Error) => error.name === "CheckpointError" && error.message.includes("checkpoint-8"),
        name,
      );
      const run = await train(folder, { output: copy, resume: true, saveEvery: 4 });
      assert.equal(await adapterHash(copy), want, name);
      assert.equal(run.steps, 17);
      const left = (await names(copy)).filter((n) => n.includes("checkpoint"));
      assert.deepEqual(left, ["checkpoint-12", "checkpoint-16"], name);
    }
    for (const each of ["checkpoint-4", "checkpoint-8"]) await truncate(join(output, "good", each, "state.json"), 3);
    await assert.rejects(
      train(folder, { output: join(output, "good"), resume: true }),
      /every checkpoint in .* is damaged.*\ncheckpoint-8: state\.json has 3 bytes.*\ncheckpoint-4/,
    );
    await assert.rejects(train(folder, { output: join(output, "nothing"), resume: true }), /holds no checkpoint/);
  }));

test("an interrupted run is saved where it stands, says so, and goes on from there", () =>
  withFolders(async (folder, output) => {
    await train(folder, { output: join(output, "whole"), saveEvery: 0 });
    const parts = join(output, "parts");
    const model = await adapted(folder);
    const controller = new AbortController();
    const abort = ({ step }: TrainStep): void => {
      if (step === 7) controller.abort();
    };
    const run = model.train(rows, { ...options, output: parts, signal: controller.signal, callbacks: [abort] });
    await assert.rejects(
      async () => run,
      (error: Error) => {
        assert.equal(error.name, "InterruptedError");
        assert.match(error.message, /Step 7 is saved in .*checkpoint-7: the same call with resume: true/);
        return true;
      },
    );
    // The same model in the same process goes on, as in a notebook.
    await model.train(rows, { ...options, output: parts, resume: true });
    model.dispose();
    assert.equal(await adapterHash(parts), await adapterHash(join(output, "whole")));
  }));

test("a run's steps, iterated after a resume, are those of the whole run", () =>
  withFolders(async (folder, output) => {
    await train(folder, { output, saveEvery: 4 }, 4);
    const model = await adapted(folder);
    const seen: number[] = [];
    for await (const step of model.train(rows, { ...options, output, resume: true })) seen.push(step.step);
    assert.deepEqual(
      seen,
      Array.from({ length: 17 }, (_, i) => i + 1),
    );
    model.dispose();
  }));

test("a state too large for a copy is written tensor by tensor while the run waits", () =>
  withFolders(async (folder, output) => {
    const save = Checkpoints.prototype.save;
    const { raw } = Tensor.prototype;
    const sizes: number[] = [];
    let [saving, reads, most] = [false, 0, 0];
    // Every saver of this test may copy nothing.
    Checkpoints.prototype.save = async function (state, tensors) {
      (this as unknown as { options: { snapshotBytes: number } }).options.snapshotBytes = 0;
      sizes.push(tensors.size);
      saving = true;
      await save.call(this, state, tensors);
      saving = false;
    };
    Tensor.prototype.raw = async function (this: Tensor) {
      if (!saving) return raw.call(this);
      most = Math.max(most, ++reads);
      const read = await raw.call(this);
      reads--;
      return read;
    };
    try {
      await train(folder, { output: join(output, "parts"), saveEvery: 4 }, 8);
    } finally {
      Checkpoints.prototype.save = save;
      Tensor.prototype.raw = raw;
    }
    assert.ok(sizes.length >= 2 && sizes[0]! > 10);
    assert.equal(most, 1, "tensors were read before their turn came");
    await train(folder, { output: join(output, "parts"), resume: true });
    await train(folder, { output: join(output, "whole") });
    assert.equal(await adapterHash(join(output, "parts")), await adapterHash(join(output, "whole")));
  }));
