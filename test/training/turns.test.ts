import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { Model, TrainRun } from "../../src/index.js";
import { type Turn, Turns } from "../../src/training/turns.js";
import { adapted, rows, withFolders } from "./resumable.js";

const quiet = { progress: false } as const;

/** A promise that is settled from outside. */
function gate(): { opened: Promise<void>; open: () => void } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Many turns of the event loop: whoever does not wait is done by then. */
async function turns(): Promise<void> {
  for (let i = 0; i < 50; i++) await turn();
}

/** Whether a promise has settled by now. */
function settled(work: PromiseLike<unknown>): () => boolean {
  let is = false;
  const done = (): void => {
    is = true;
  };
  void work.then(done, done);
  return () => is;
}

/** A model with a run that was interrupted after its second step, and whose end is held back where it saves its state. */
async function heldBack(
  use: (model: Model, run: TrainRun, release: () => void, output: string) => Promise<void>,
): Promise<void> {
  await withFolders(async (folder, output) => {
    const model = await adapted(folder);
    const [saving, held] = [gate(), gate()];
    const save = model.saveTrained.bind(model);
    model.saveTrained = async (to) => {
      saving.open();
      await held.opened;
      await save(to);
    };
    const controller = new AbortController();
    const interrupt = ({ step }: { step: number }): void => {
      if (step === 2) controller.abort();
    };
    const run = model.train(rows, {
      steps: 1_000_000,
      output: join(output, "run"),
      callbacks: [interrupt],
      signal: controller.signal,
      ...quiet,
    });
    await saving.opened;
    assert.equal(run.over, false);
    try {
      await use(model, run, held.open, output);
    } finally {
      held.open();
    }
    await assert.rejects(async () => run, /interrupted after step 2\. Step 2 is saved in/);
    model.dispose();
  });
}

test("a run that comes while an interrupted one is ending begins after it; one that comes while one goes on is refused", () =>
  heldBack(async (model, run, release) => {
    let early = 0;
    const next = model.train(rows, { steps: 3, callbacks: [() => void (early += run.over ? 0 : 1)], ...quiet });
    assert.throws(() => model.train(rows, quiet), /train: a training run of this model is under way/);
    await assert.rejects(
      model.evaluate(rows, { metrics: ["loss"], adapters: ["base"], ...quiet }),
      /evaluate: .* is under way/,
    );
    await turns();
    assert.deepEqual([run.over, next.over, next.steps.length], [false, false, 0]);
    release();
    assert.equal((await next).steps, 3);
    assert.equal(early, 0, "steps before the interrupted run had ended");
    // The end of the first run has not taken the second one's place away from it.
    assert.equal((await model.train(rows, { steps: 1, ...quiet })).steps, 1);
  }));

test("what measures, generates and writes waits for an interrupted run to end; what cannot wait says so", () =>
  heldBack(async (model, run, release, output) => {
    assert.throws(() => model.removeAdapter("default"), /removeAdapter: .* is ending, after an interrupt or an error/);
    const calls = [
      model.evaluate(rows, { metrics: ["loss"], ...quiet }),
      model.evaluate(rows, { metrics: ["loss"], adapters: ["base", "default"], ...quiet }),
      model.generate(["The sea", "The rose"], { maxNewTokens: 2 }),
      model.generate("The sea", { maxNewTokens: 2 }),
      model.logits([[1, 2, 3]]),
      model.loss([[1, 2, 3]], [[1, 2, 3]]),
      model.adaptLora({ rank: 2, name: "other", target: ["q_proj"] }),
    ];
    const whole = assert.rejects(model.export(join(output, "whole")), /export: the model has adapters/);
    const done = calls.map(settled);
    await turns();
    assert.equal(run.over, false);
    assert.deepEqual(done.map((is) => is()), calls.map(() => false)); // biome-ignore format: one line
    release();
    await Promise.all(calls);
    await whole;
    assert.equal(run.over, true);
  }));

test("an interrupted run does not wait for a callback, which may wait for its end", () =>
  withFolders(async (folder) => {
    const model = await adapted(folder);
    const controller = new AbortController();
    const texts: string[] = [];
    const never = gate();
    const callback = async (): Promise<void> => {
      controller.abort();
      texts.push(await model.generate("The sea", { maxNewTokens: 2 }));
      never.open();
      await new Promise(() => {});
    };
    const run = model.train(rows, { steps: 5, callbacks: [callback], signal: controller.signal, ...quiet });
    await assert.rejects(async () => run, /Training was interrupted after step 1/);
    await never.opened;
    assert.equal(texts.length, 1);
    model.dispose();
  }));

test("a callback's promise holds a run that is not interrupted, and its error ends the run", () =>
  withFolders(async (folder) => {
    const model = await adapted(folder);
    const held = gate();
    const { signal } = new AbortController();
    const run = model.train(rows, { steps: 2, callbacks: [() => held.opened], signal, ...quiet });
    const done = settled(run);
    await turns();
    assert.equal(done(), false);
    assert.equal(run.steps.length, 0);
    assert.throws(() => model.train(rows, quiet), /is under way/);
    held.open();
    assert.equal((await run).steps, 2);
    const failing = model.train(rows, { callbacks: [() => Promise.reject(new Error("mine"))], signal, ...quiet });
    await assert.rejects(async () => failing, /^Error: mine$/);
    model.dispose();
  }));

test("nobody waits for ever for a run that never ends, and none begins beside it", async () => {
  const all = new Turns<Turn>(1);
  const stuck = { over: false, ending: true, end: new Promise<void>(() => {}) };
  all.begin(() => stuck);
  const begin = (): Promise<void> => {
    let begun: Promise<void> | undefined;
    all.begin((ready, over) => {
      begun = ready();
      const end = begun.then(
        () => {},
        () => void over(),
      );
      return { over: false, ending: false, end };
    });
    return begun!;
  };
  for (let i = 0; i < 2; i++)
    await assert.rejects(begin(), { name: "StateError", message: /^train: .* is ending, .* if it never ends\.$/ });
  await assert.rejects(async () => all.idle("merge"), /^StateError: merge: /);
  await assert.rejects(async () => all.ready("generate"), /^StateError: generate: /);
});
