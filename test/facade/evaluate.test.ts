import assert from "node:assert/strict";
import { test } from "node:test";
import { Comparison, Dataset, loadModel, type Model } from "../../src/index.js";
import { colourRows, withModelFolder } from "./small.js";

const quiet = { progress: false } as const;
const LABELS = ["red", "blue", "green", "black"];
const small = (folder: string): Promise<Model> =>
  Promise.resolve(loadModel(folder, { weights: "random", seed: 1, ...quiet }));

/** Sum of the log-probabilities of `completion` after `prompt`, from the model's logits alone, in double precision. */
async function logProbability(
  model: Model,
  prompt: string,
  completion: string,
  eos: boolean,
): Promise<[number, number]> {
  const { tokenizer } = model;
  const before = tokenizer.encode(prompt, { addSpecialTokens: "before" });
  const after = tokenizer.encode(completion, { after: before, addSpecialTokens: false });
  if (eos) after.push(tokenizer.eosId!);
  const ids = [...before, ...after];
  const logits = await model.logits([ids]);
  const vocab = logits.shape[2];
  let sum = 0;
  for (let t = before.length; t < ids.length; t++) {
    const row = logits.subarray((t - 1) * vocab, t * vocab);
    const most = Math.max(...row);
    sum += row[ids[t]!]! - most - Math.log(row.reduce((n, v) => n + Math.exp(v - most), 0));
  }
  return [sum, after.length];
}

test("classification by likelihood chooses what the logits say, and gives a row for each row", () =>
  withModelFolder(async (folder) => {
    using model = await small(folder);
    const rows = Dataset.from(colourRows(12));
    const m = await model.evaluate(rows, { metrics: ["classification"], labels: LABELS, batch: 5, ...quiet });
    assert.deepEqual(m.rows.columns, ["row", "actual", "predicted", "correct", "confidence"]);
    assert.equal(m.rows.length, 12);
    for (const { row, predicted, actual, correct, confidence } of m.rows) {
      const { prompt, completion } = rows.at(row);
      const scores = await Promise.all(
        LABELS.map(async (l) => (await logProbability(model, prompt, ` ${l}`, true))[0]),
      );
      assert.equal(predicted, LABELS[scores.indexOf(Math.max(...scores))]);
      assert.equal(actual, completion.trim());
      assert.equal(correct, predicted === actual);
      const sum = scores.reduce((n, s) => n + Math.exp(s - Math.max(...scores)), 0);
      assert.ok(Math.abs(confidence - 1 / sum) < 1e-4);
    }
    const right = m.rows.filter((r) => r.correct).length;
    assert.equal(m.accuracy, right / 12);
    assert.equal(m.perLabel!.length, 4);
  }));

test("multiple choice: the likeliest choice, by its sum, by token and by byte", () =>
  withModelFolder(async (folder) => {
    using model = await small(folder);
    const choices = [" blue", " a colour of the deep and cold sea in winter", " green as the grass", " red"];
    const rows = ["The sea is", "Grass is", "Once upon"].map((prompt, i) => ({ prompt, choices, answer: i }));
    for (const normalize of ["none", "tokens", "bytes"] as const) {
      const m = await model.evaluate(Dataset.from(rows), {
        metrics: ["multipleChoice"],
        normalize,
        batch: 3,
        ...quiet,
      });
      let right = 0;
      for (const [i, row] of rows.entries()) {
        const scores: number[] = [];
        for (const choice of choices) {
          const [sum, tokens] = await logProbability(model, row.prompt, choice, false);
          scores.push(sum / (normalize === "none" ? 1 : normalize === "tokens" ? tokens : Buffer.byteLength(choice)));
        }
        const found = m.rows.at(i);
        assert.equal(found.predicted, choices[scores.indexOf(Math.max(...scores))]!.trim());
        const got = [...found.scores] as number[];
        got.forEach((s, k) => {
          assert.ok(Math.abs(s - scores[k]!) < 1e-3 * Math.abs(scores[k]!), `${normalize}: ${got} and ${scores}`);
        });
        if (scores.indexOf(Math.max(...scores)) === row.answer) right++;
      }
      assert.equal(m.accuracy, right / 3);
    }
    const byText = await model.evaluate([{ prompt: "The sea is", choices, answer: "red" }], {
      metrics: ["multipleChoice"],
      ...quiet,
    });
    assert.equal(byText.rows.at(0).actual, "red");
    for (const bad of [{ answer: 4 }, { answer: "pink" }, { choices: [" one"] }, { prompt: 3 }])
      await assert.rejects(
        async () =>
          model.evaluate([{ prompt: "x", choices, answer: 0, ...bad }], { metrics: ["multipleChoice"], ...quiet }),
        /row 0 must give \{ prompt, choices, answer \}/,
      );
    await assert.rejects(
      async () => model.evaluate(rows, { metrics: ["multipleChoice"], normalize: "words" as never, ...quiet }),
      /"none", "tokens" or "bytes"/,
    );
  }));

test("the loss of each row adds up to the whole; rows without a trained token have none", () =>
  withModelFolder(async (folder) => {
    using model = await small(folder);
    const rows = [...colourRows(6), { prompt: "far ".repeat(60), completion: " red" }];
    const m = await model.evaluate(rows, { metrics: ["loss", "perplexity"], maxLength: 30, batch: 4, ...quiet });
    const found = m.rows.toRows();
    assert.equal(found[6]!.loss, null);
    let sum = 0;
    let tokens = 0;
    for (const [i, row] of colourRows(6).entries()) {
      const [log, count] = await logProbability(model, row.prompt, row.completion, true);
      assert.ok(Math.abs(found[i]!.loss + log / count) < 1e-3);
      assert.equal(found[i]!.tokens, count);
      sum -= log;
      tokens += count;
    }
    assert.ok(Math.abs(m.loss! - sum / tokens) < 1e-4);
    assert.ok(Math.abs(m.perplexity! - Math.exp(sum / tokens)) < 1e-3 * m.perplexity!);
  }));

test("several adapters side by side, by likelihood and by generation; the active one is what it was", () =>
  withModelFolder(async (folder) => {
    const rows = colourRows(16);
    using model = await small(folder);
    await model.train(rows, { epochs: 12, batch: 8, lr: 5e-3, seed: 3, ...quiet });
    model.addLora({ rank: 4, name: "wrong", target: "all-linear", seed: 1 });
    const swapped = rows.map((r) => ({
      ...r,
      completion: ` ${LABELS[(LABELS.indexOf(r.completion.trim()) + 1) % 4]}`,
    }));
    await model.train(swapped, { epochs: 20, batch: 8, lr: 1e-2, ...quiet });
    model.addLora({ rank: 2, name: "fresh", seed: 1 });
    for (const by of ["likelihood", "generation"] as const) {
      const found = await model.evaluate(rows, {
        metrics: ["classification"],
        labels: LABELS,
        by,
        adapters: ["base", "wrong", "fresh"],
        ...quiet,
      });
      assert.ok(found instanceof Comparison);
      const { base, wrong, fresh } = found.results;
      assert.ok(base!.accuracy! > 0.9, `${by}: ${base!.accuracy}`);
      assert.ok(wrong!.accuracy! < 0.2, `${by}: ${wrong!.accuracy}`);
      assert.equal(fresh!.accuracy, base!.accuracy, "B is zero");
      assert.deepEqual(found.toTable().columns, ["metric", "base", "wrong", "fresh"]);
      assert.equal(found.rows.length, 48);
      assert.deepEqual(new Set(found.rows.column("adapter")), new Set(["base", "wrong", "fresh"]));
      assert.equal(found.plot().figure.data.length, 3);
    }
    const active = await model.evaluate(rows, { metrics: ["classification"], labels: LABELS, ...quiet });
    assert.ok(active.accuracy! > 0.9, "the adapter added last is active again");
    await assert.rejects(
      async () => model.evaluate(rows, { metrics: ["loss"], adapters: ["nobody"], ...quiet }),
      /no adapter "nobody"/,
    );
  }));

test("messages are classified through the chat template", () =>
  withModelFolder(async (folder) => {
    using model = await small(folder);
    const rows = colourRows(8).map(({ prompt, completion }) => ({
      messages: [
        { role: "user", content: prompt },
        { role: "assistant", content: completion.trim() },
      ],
    }));
    for (const by of ["likelihood", "generation"] as const) {
      const m = await model.evaluate(rows, {
        metrics: ["classification"],
        labels: LABELS,
        by,
        maxNewTokens: 4,
        ...quiet,
      });
      assert.equal(m.rows.length, 8);
      assert.deepEqual(
        m.rows.column("actual"),
        rows.map((r) => r.messages[1]!.content),
      );
    }
    await model.train(rows, { epochs: 20, batch: 8, lr: 5e-3, ...quiet });
    const m = await model.evaluate(rows, { metrics: ["classification"], labels: LABELS, by: "generation", ...quiet });
    assert.ok(m.accuracy! > 0.9, `${m.accuracy}`);
  }));
