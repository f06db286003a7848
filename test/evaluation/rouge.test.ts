import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { porterStem } from "../../src/evaluation/porter.js";
import { type RougeName, rouge, rougeTokens } from "../../src/evaluation/rouge.js";
import { goldenValues } from "../golden.js";
import { shared } from "../shared.js";

const golden = goldenValues("rouge") as {
  words: string;
  stems: string;
  pairs: [string, string][];
} & Record<"plain" | "stemmed", number[][][]> &
  Record<"plainMulti" | "stemmedMulti", number[][]>;
const names: RougeName[] = ["rouge1", "rouge2", "rougeL", "rougeLsum"];
const modes = [
  ["plain", false],
  ["stemmed", true],
] as const;

test("stems equal NLTK's on every word of the golden file", () => {
  const words = golden.words.split(" ");
  const stems = golden.stems.split(" ");
  assert.ok(words.length > 5000);
  const wrong = words.flatMap((word, i) => (porterStem(word) === stems[i] ? [] : [`${word}: ${porterStem(word)}`]));
  assert.deepEqual(wrong, []);
});

test("precision, recall and F1 equal rouge_score's, with and without stemming", () => {
  for (const [mode, stemmer] of modes) {
    for (const [i, [reference, prediction]] of golden.pairs.entries()) {
      const scores = rouge(prediction, reference, { stemmer });
      const ours = names.map((name) => [scores[name].precision, scores[name].recall, scores[name].f1]);
      for (const [k, values] of golden[mode][i]!.entries())
        for (const [f, value] of values.entries())
          assert.ok(
            Math.abs(ours[k]![f]! - value) < 1e-12,
            `${mode}, pair ${i}, ${names[k]}: ${ours[k]} and ${values}`,
          );
    }
  }
});

test("with several references the best counts, each kind by itself", () => {
  for (const [mode, stemmer] of modes) {
    for (const [n, expected] of golden[`${mode}Multi`].entries()) {
      const [a, b, c] = golden.pairs.slice(3 * n, 3 * n + 3);
      const scores = rouge(a![1], [a![0], b![0], c![0]], { stemmer });
      for (const [k, name] of names.entries()) assert.ok(Math.abs(scores[name].f1 - expected[k]!) < 1e-12);
    }
  }
});

test("tokens are runs of a-z and 0-9 in lower case", () => {
  assert.deepEqual(rougeTokens("Don't pay £12,500; naïve!"), ["don", "t", "pay", "12", "500", "na", "ve"]);
  assert.deepEqual(rougeTokens("The cities' boats"), ["the", "cities", "boats"]);
  assert.deepEqual(rougeTokens("The cities' boats", { stemmer: true }), ["the", "citi", "boat"]);
});

const folder = join(shared, "data", "dialogsum");

test("BART's summaries of DialogSum score what was computed for them elsewhere", {
  skip: !existsSync(folder) && `no ${folder}`,
}, () => {
  const lines = (name: string): string[] => readFileSync(join(folder, name), "utf8").trimEnd().split("\n");
  const rows = lines("dialogsum.test.jsonl").map((line) => JSON.parse(line) as Record<string, string>);
  const predictions = lines("baseline_bart_test_output.txt");
  const mean = (field: string, name: RougeName): number =>
    (100 * rows.reduce((n, row, i) => n + rouge(predictions[i]!, row[field]!)[name].f1, 0)) / rows.length;
  for (const [field, ...expected] of [
    ["summary1", 43.8518, 20.0804, 37.2377],
    ["summary2", 41.5825, 16.8569, 35.2243],
    ["summary3", 43.3109, 19.2946, 36.5081],
  ] as const) {
    const ours = names.slice(0, 3).map((name) => mean(field, name));
    for (const [k, value] of expected.entries())
      assert.ok(Math.abs(ours[k]! - value) < 5e-5, `${field}: ${ours} and ${expected}`);
  }
});
