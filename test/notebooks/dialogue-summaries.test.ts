import assert from "node:assert/strict";
import { test } from "node:test";
import { bundlesOf, executed, numbersOf, plain } from "./executed.js";

const { notebook, cells } = executed("01-qlora-dialogue-summaries.ipynb");
const bundles = bundlesOf(cells);
const texts = bundles.map((bundle) => plain(bundle["text/plain"]));

test("after training, the summaries have far more in common with those written for the rows", () => {
  const results = cells.find((cell) => cell.metadata.tags?.includes("results"));
  const shown = plain(results?.outputs?.find((output) => output.data)?.data?.["text/plain"]);
  const row = (metric: string): number[] => numbersOf(shown, metric);
  for (const metric of ["rouge1", "rougeL", "rougeLsum"]) {
    const [before, after, change] = row(metric);
    assert.ok(after! > before! + 0.4 && Math.abs(after! - before! - change!) < 2e-3, `${metric}: ${before} → ${after}`);
  }
  assert.ok(row("perplexity")[1]! < row("perplexity")[0]! / 10);
});

test("ROUGE stands in a bar chart, shown as a picture too", () => {
  assert.ok(bundles.some((b) => "image/png" in b && plain(b["text/plain"]).startsWith("ROUGE (F1)")));
});

test("the figures of real dialogues stand in tables and plots, and hold what they should", () => {
  const table = texts.find((text) => text.startsWith("DialogSum: 64 dialogues to watch, 32 to measure on"));
  assert.ok(table);
  const [before, after] = numbersOf(table, "validation loss");
  assert.ok(before! - after! >= 0.3, `validation loss ${before} → ${after}`);
  const [low, high] = numbersOf(table, "rougeL ");
  assert.ok(high! > low!, `ROUGE-L ${low} → ${high}`);
  const run = texts.find((text) => text.startsWith("The run"));
  assert.match(run ?? "", /300 to train on, 64 to watch, 32 to measure on/);
  assert.match(notebook, /tunebook run 01-qlora-dialogue-summaries\.ipynb -p .* -p trainRows=300 /);
  const [, minutes] = /whole notebook +(\d+) min/.exec(run ?? "") ?? [];
  assert.ok(Number(minutes) < 15, `${minutes} minutes`);
  const memory = texts.find((text) => text.startsWith("DialogSum: memory by part")) ?? "";
  const [sixteen, here] = numbersOf(memory, "linear layers");
  assert.ok(Math.abs(here! / sixteen! - 4.13 / 16) < 1e-3, `${here} MB of ${sixteen} MB: 4.13 bits a parameter`);
  for (const title of ["DialogSum: loss of", "DialogSum: ROUGE (F1)", "Memory of SmolLM2-135M"])
    assert.ok(
      bundles.some((b) => "image/png" in b && plain(b["text/plain"]).startsWith(title)),
      title,
    );
});

test("no row of DialogSum stands in the notebook", () => {
  // Its speakers are all called so.
  assert.doesNotMatch(notebook, /#Person\d#/);
});
