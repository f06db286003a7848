import assert from "node:assert/strict";
import { test } from "node:test";
import { bundlesOf, executed, plain, valuesOf } from "./executed.js";

const { notebook, cells } = executed("04-lora-from-scratch-and-vision.ipynb");
const outputs = cells.flatMap((cell) => cell.outputs ?? []);
const bundles = bundlesOf(cells);
const texts = bundles.map((bundle) => plain(bundle["text/plain"]));
const printed = outputs.map((output) => plain(output.text));
const tagged = (tag: string): string => {
  const cell = cells.find(({ metadata }) => metadata.tags?.includes(tag));
  return (cell?.outputs ?? []).map(({ data }) => plain(data?.["text/plain"])).join("\n");
};

const titled = (title: string): string => texts.find((text) => text.startsWith(title)) ?? assert.fail(title);

test("the adapter by hand and the built-in one are the same: as many parameters, the same losses, the same answers", () => {
  const runs = titled("The two runs");
  const [byHand, builtIn] = [valuesOf(runs, "by hand"), valuesOf(runs, "addLora")];
  // r (in + out) of seven matrices in each of five layers.
  const sizes = [[192, 192], [192, 64], [192, 64], [192, 192], [192, 512], [192, 512], [512, 192]] as const; // biome-ignore format: one line
  const trained = 5 * 4 * sizes.reduce((sum, [a, b]) => sum + a + b, 0);
  assert.deepEqual([byHand[0], builtIn[0]], Array(2).fill(trained.toLocaleString("en")));
  const differences = printed.flatMap((text) => /^largest difference .*: (\S+) nats/.exec(text)?.[1] ?? []).map(Number);
  assert.equal(differences.length, 2, "of the small run and of the real one");
  assert.ok(
    differences.every((each) => each < 1e-3),
    String(differences),
  );
  const results = tagged("results");
  for (const metric of ["loss (nats a token)", "ROUGE-L", "passes its tests"]) {
    const [, hand, built] = valuesOf(results, metric).map(Number);
    assert.ok(Math.abs(hand! - built!) <= 0.002, `${metric}: ${hand} and ${built}`);
  }
});

test("U at zero changes nothing, both at random much; after training most functions do what was asked for", () => {
  const starts = titled("Before the first step");
  assert.equal(Number(valuesOf(starts, "U zero")[0]), 0);
  assert.ok(Number(valuesOf(starts, "U and V random")[0]) > 5);
  const results = tagged("results");
  const [before, after] = valuesOf(results, "passes its tests").map(Number);
  assert.ok(before === 0 && after! > 0.7, `${before} → ${after}`);
  const [from, to] = valuesOf(results, "loss (nats a token)").map(Number);
  assert.ok(to! < from! / 20, `${from} → ${to}`);
  assert.match(printed.find((text) => text.startsWith("by hand: ")) ?? "", /its loss is (\d\.\d+) again \(\1\)/);
});

test("StarCoder's parameters come out of its config, and making W + U V costs memory", () => {
  const table = titled("Predicted from the config alone");
  // r (in + out) of c_attn, c_proj, c_fc and c_proj in each of 40 layers.
  const trained = 40 * 4 * (6144 + 6400 + 2 * 6144 + 2 * (6144 + 24576));
  const [byHand, builtIn] = [valuesOf(table, "by hand"), valuesOf(table, "addLora")];
  assert.deepEqual([byHand[0], builtIn[0]], Array(2).fill(trained.toLocaleString("en")));
  assert.ok(Number(byHand.at(-1)) > Number(builtIn.at(-1)) + 1);
});

test("the model that sees learns to count, and a cell asks it by the command", () => {
  const table = tagged("vision");
  const share = (words: string[]): number[] => words.map((word) => Number.parseFloat(word));
  const [before, after, off] = share(valuesOf(table, "how many, all 120"));
  assert.ok(before! < 30 && after! > 75, `${before} % → ${after} %`);
  const [knew, , knows] = share(valuesOf(table, "what it knew, 84 questions"));
  assert.ok(knew! > 50, `${knew} %`);
  assert.deepEqual([off, knows], [before, knew], "with the adapter switched off it is the same model as before");
  const pictures = bundles.filter((bundle) => "image/png" in bundle && !("application/vnd.plotly.v1+json" in bundle));
  assert.ok(pictures.length >= 3, "pictures are shown");
  assert.ok(bundles.some((bundle) => (plain(bundle["text/html"]).match(/data:image\/png/g) ?? []).length >= 6));
  const asked = cells.filter(({ source }) => source.some((line) => line.startsWith("!tunebook chat")));
  assert.equal(asked.length, 2);
  const answers = asked.map(({ outputs }) =>
    outputs!
      .filter(({ name }) => name === "stdout")
      .map(({ text }) => plain(text))
      .join(""),
  );
  assert.match(answers[0]!, /^to \w+ :\w\noutput .*\nend\n$/);
  assert.match(answers[1]!, /^How many .*\?\n(no|one|two|three|four|five)\n$/);
  assert.ok(
    asked.every(({ outputs }) => outputs!.every(({ name }) => name !== "stderr")),
    "no exit code, no warning",
  );
});

test("the figures of real code stand in tables and plots, and hold what they should", () => {
  assert.match(
    notebook,
    /tunebook run 04-lora-from-scratch-and-vision\.ipynb -p modelId=\S+gguf -p trainFile=mbpp\.jsonl /,
  );
  const [before, byHand, builtIn] = valuesOf(titled("HumanEval: "), "loss (nats a token)").map(Number);
  assert.ok(byHand! < before! && builtIn! < before!, `${before} → ${byHand}, ${builtIn}`);
  const runs = texts.find((text) => /^\d+ problems of MBPP/.test(text)) ?? "";
  assert.equal(valuesOf(runs, "by hand")[0], valuesOf(runs, "addLora")[0]);
  assert.ok(bundles.some((b) => "image/png" in b && plain(b["text/plain"]).startsWith("MBPP: training loss")));
});

test("no row of MBPP or HumanEval stands in the notebook", () => {
  assert.doesNotMatch(notebook, /python function|Write a function to|def \w+\(|HumanEval\/\d/);
});
