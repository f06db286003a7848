import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigError, TrainJob } from "../../src/index.js";
import { withSettings } from "../../src/job-config.js";
import { templateFormat } from "../../src/job-format.js";

const rows = "no/such/rows.jsonl";
const job = (changes: object = {}): TrainJob =>
  new TrainJob({ model: "no/such/model", data: { train: rows, split: { test: 5 } }, ...changes });

test("a job's names and values are checked before anything is loaded", () => {
  assert.equal(job().config.model, "no/such/model");
  const refused = (changes: object, message: RegExp): void => {
    assert.throws(
      () => job(changes),
      (error: unknown) => error instanceof ConfigError && message.test(error.message),
      `${JSON.stringify(changes)}: ${message}`,
    );
  };
  refused({ evalute: {} }, /"evalute" is not known\. Did you mean "evaluate"\?/);
  refused({ train: { epoch: 1 } }, /train: "epoch" is not known\. Did you mean "epochs"\?/);
  refused({ train: { format: "x" } }, /train: "format" is not known/);
  refused({ train: [] }, /train must be an object/);
  refused({ train: { lr: "fast" } }, /train: lr must be a number above 0/);
  refused({ train: { keepBest: true } }, /need rows to measure on/);
  assert.ok(job({ train: { keepBest: true }, data: { train: rows, validation: rows } }));
  refused({ model: undefined }, /no section "model"/);
  refused({ model: { dtype: "float16" } }, /model must have an "id"/);
  refused({ model: { id: "x", dtyp: "float16" } }, /model: "dtyp" is not known\. Did you mean "dtype"\?/);
  refused({ addLora: { rank: 4, aplha: 1 } }, /addLora: "aplha" is not known\. Did you mean "alpha"\?/);
  refused({ addLora: { rank: 0 } }, /addLora: rank must be a whole number from 1/);
  refused({ quantize: { type: "nf5" } }, /quantize: type must be "nf4"/);
  refused({ loadAdapter: { name: "x" } }, /loadAdapter must have an "id"/);
  refused({ data: { train: { file: rows } } }, /data\.train: "file" is not known/);
  refused({ data: { train: { format: "csv" } } }, /data\.train must have a "path"/);
  refused({ data: { train: rows, split: { tests: 5 } } }, /data\.split: "tests" is not known\. Did you mean "test"\?/);
  refused({ data: { train: rows, split: { test: 5 }, test: rows } }, /data\.split\.test takes rows out of data\.train/);
  refused({ evaluate: { metrics: [] } }, /evaluate\.metrics must list some of loss/);
  refused({ evaluate: { metrics: ["rogue"] } }, /"rogue" is not known\. Did you mean "rouge"\?/);
  refused({ data: { train: rows }, evaluate: { metrics: ["loss"] } }, /rows that are not trained on/);
  refused({ save: { export: { dtype: "float16" } } }, /save\.export must have a folder/);
  refused({ save: { export: { folder: "x", dtype: "int4" } } }, /export: dtype must be/);
  refused({ save: { adaptor: "x" } }, /save: "adaptor" is not known\. Did you mean "adapter"\?/);
});

test("values are put into sections, and into those that were a name alone", () => {
  const base = { model: "a", data: { train: "b" }, train: { lr: 1 } };
  const made = withSettings(base, [
    "train.lr=1e-4",
    "model.dtype=float16",
    "data.train.split=dev",
    "data.split.test=5",
    "model.id=c",
  ]);
  assert.deepEqual(made, {
    model: { id: "c", dtype: "float16" },
    data: { train: { path: "b", split: "dev" }, split: { test: 5 } },
    train: { lr: 1e-4 },
  });
  assert.deepEqual(base.train, { lr: 1 }, "what was given stays as it was");
  for (const wrong of ["lr", "=1", "a..b=1", "__proto__.x=1", "train.__proto__.x=1"])
    assert.throws(() => withSettings(base, [wrong]), /expected SECTION\.OPTION=VALUE/, wrong);
  assert.throws(() => withSettings(base, ["train.lr.x=1"]), /train\.lr has no options/);
});

test("a template is filled with a row's values", () => {
  const row = { a: "one ", n: 3, none: null, label: 2 };
  assert.equal(templateFormat("{a}and {n}{none}, {not a column}")(row), "one and 3, {not a column}");
  assert.deepEqual(templateFormat({ prompt: "{n}", completion: "{a}" })(row), { prompt: "3", completion: "one " });
  assert.deepEqual(templateFormat([{ role: "user", content: "{a}\n{none}" }])(row), [{ role: "user", content: "one" }]);
  assert.deepEqual(templateFormat({ text: "{a}", label: "{label}" })(row), { text: "one ", label: 2 });
  assert.throws(() => templateFormat("{b}")(row), /names the column \{b\}; the rows have a, n, none, label/);
  assert.throws(() => templateFormat({ prompt: 3 })(row), /must be made of texts, received 3/);
});
