import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../../notebooks/embedded/prepare.js";
import { bundlesOf, executed, numbersOf, plain } from "./executed.js";

const { notebook, cells } = executed("02-qlora-fraud-classification.ipynb");
const bundles = bundlesOf(cells);
const texts = bundles.map((bundle) => plain(bundle["text/plain"]));
const named = (title: string): string => {
  const found = texts.find((text) => text.startsWith(title));
  assert.ok(found, `no output begins with ${title}`);
  return found;
};

test("bits a parameter, and what double quantisation saves, come out as the arithmetic says", () => {
  const table = texts.find((text) => text.includes("by arithmetic"))!;
  assert.deepEqual(numbersOf(table, "bits a parameter"), [4.5, 4.5]);
  assert.deepEqual(numbersOf(table, "saved"), [0.373, 0.373]);
});

test("Qwen2-1.5B's memory: 16 bits less 4 bits is what the document saw", () => {
  const table = named("Qwen2-1.5B's shape: memory of the weights");
  const [parameters, bits, here, document] = numbersOf(table, "bfloat16");
  const [same, fewer, packed, seen] = numbersOf(table, "nf4 ");
  assert.deepEqual([bits, fewer, document, seen], [16, 4.5, 3.9, 1.9]);
  assert.equal(parameters, same);
  assert.ok(Math.abs(parameters! - 1_543_714_304) < 60_000, `${parameters} parameters`);
  assert.ok(Math.abs(here! - packed! - (document! - seen!)) < 0.15, `${here} - ${packed} GB`);
});

test("the helper file is run, loading is timed, and the recipe is the document's", () => {
  const sources = cells.map((cell) => plain(cell.source));
  assert.ok(sources.some((source) => source.startsWith("%run 02-helpers.ts")));
  const timed = cells.filter(
    (cell) => plain(cell.source).startsWith("%%time") && plain(cell.source).includes("loadModel"),
  );
  assert.equal(timed.length, 3);
  for (const cell of timed) assert.match((cell.outputs ?? []).map((o) => plain(o.text)).join(""), /Wall time:/);
  const helpers = readFileSync(join(root, "notebooks", "02-helpers.ts"), "utf8");
  for (const part of [
    'type: "nf4", compute: "bfloat16", doubleQuant: false',
    'optimizer: "paged_adamw_32bit"',
    "rank: 16",
    "alpha: 32",
    "dropout: 0.2",
    "keepBest: true",
  ])
    assert.ok(helpers.includes(part), part);
});

test("the table of the steps grew with both losses, memory stands in a chart, and the best adapter was loaded anew", () => {
  const steps = named("Step  Training Loss  Validation Loss").split("\n").slice(2);
  assert.ok(steps.length >= 5, `${steps.length} measurements`);
  const losses = steps.map((line) => Number(line.trim().split(/\s+/)[2]));
  assert.ok(losses.at(-1)! < losses[0]!, losses.join(" "));
  assert.ok(bundles.some((b) => "image/png" in b && plain(b["text/plain"]).startsWith("Memory at the peak of a step")));
  assert.match(notebook, /lowest validation loss: \S+ at step \d+/);
});

test("after training the counts are far better, and stand beside the document's", () => {
  const results = cells.find((cell) => cell.metadata.tags?.includes("results"));
  const shown = plain(results?.outputs?.find((output) => output.data)?.data?.["text/plain"]);
  const [before, after, document] = numbersOf(shown, "f1");
  assert.ok(before! < 0.8 && after! > 0.85, `${before} → ${after}`);
  assert.ok(Math.abs(document! - 0.9157) < 1e-4);
  assert.deepEqual(
    ["tn", "fp", "fn", "tp"].map((name) => numbersOf(shown, name)[2]),
    [1145, 20, 167, 1016],
  );
  assert.deepEqual([numbersOf(shown, "precision")[2], numbersOf(shown, "recall")[2]], [0.9807, 0.8588]);
});

test("the figures of real messages stand in tables and a matrix, and none of the messages does", () => {
  const shown = named("SMS Spam Collection: 400 messages that were not trained on");
  const [, after] = numbersOf(shown, "f1");
  assert.ok(after! >= 0.9, `F1 ${after}`);
  const counts = ["tn", "fp", "fn", "tp"].map((name) => numbersOf(shown, name)[1]!);
  assert.equal(
    counts.reduce((a, b) => a + b),
    400,
  );
  assert.match(named("The run"), /rows to train on, to measure on +720, 400 /);
  assert.match(notebook, /tunebook run 02-qlora-fraud-classification\.ipynb -p /);
  for (const title of ["Confusion matrix", "SMS Spam Collection, after training", "The document's"])
    assert.ok(
      bundles.some((b) => "image/png" in b && plain(b["text/plain"]).startsWith(title)),
      title,
    );
  // Words that the collection has in every tenth spam, and no text of the project. Pictures are left out: their letters say nothing.
  const written = [...cells.map((cell) => plain(cell.source)), ...texts, ...bundles.map((b) => plain(b["text/html"]))];
  assert.doesNotMatch(written.join("\n"), /\bgr8\b|\bu r\b|\btxt\b|\bFREE\b|\bwkly\b|£/);
});
