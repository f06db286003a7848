import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { classificationResult, type Rates } from "../../src/evaluation/classification.js";
import { labelIn } from "../../src/evaluation/classify.js";
import { Metrics } from "../../src/evaluation/metrics.js";

interface Case {
  labels: number;
  truth: number[];
  predicted: number[];
  matrix: number[][];
  accuracy: number;
  perLabel: [number, number, number][];
  support: number[];
  macro: [number, number, number];
  micro: [number, number, number];
  weighted: [number, number, number];
}

const file = new URL("../../../test/fixtures/golden/classification.json", import.meta.url);
const { versions: _, ...cases } = JSON.parse(await readFile(file, "utf8")) as Record<string, Case>;

const near = (a: readonly number[], b: readonly number[], what: string): void => {
  assert.equal(a.length, b.length, what);
  a.forEach((value, i) => {
    assert.ok(Math.abs(value - b[i]!) < 1e-12, `${what}: ${a} and ${b}`);
  });
};
const list = ({ precision, recall, f1 }: Rates): number[] => [precision, recall, f1];

test("counts, rates and averages are scikit-learn's, also where answers are no label, and where there is nothing to count", () => {
  assert.ok(Object.keys(cases).length >= 8);
  for (const [name, golden] of Object.entries(cases)) {
    const labels = Array.from({ length: golden.labels }, (_, i) => `label ${i}`);
    const got = classificationResult(labels, golden.truth, golden.predicted);
    assert.equal(got.accuracy, golden.accuracy, name);
    // scikit-learn's matrix always has the column of other answers here, ours only where there are some.
    const size = got.labels.length;
    assert.equal(size, golden.labels + (golden.predicted.includes(-1) ? 1 : 0));
    assert.deepEqual(
      got.matrix,
      golden.matrix.slice(0, size).map((row) => row.slice(0, size)),
      name,
    );
    assert.ok(golden.matrix.every((row) => size > golden.labels || row[golden.labels] === 0));
    got.perLabel.forEach((rates, k) => {
      near(list(rates), golden.perLabel[k]!, `${name} ${k}`);
      assert.equal(rates.support, golden.support[k]);
    });
    for (const kind of ["macro", "micro", "weighted"] as const)
      near(list(got.averages[kind]), golden[kind], `${name} ${kind}`);
    near(list(got), golden.labels === 2 ? golden.perLabel[1]! : golden.macro, name);
    if (golden.labels !== 2) continue;
    const count = (t: number, p: number[]): number =>
      golden.truth.filter((x, i) => x === t && p.includes(golden.predicted[i]!)).length;
    assert.deepEqual(
      [got.tn, got.fp, got.fn, got.tp],
      [count(0, [0, -1]), count(0, [1]), count(1, [0, -1]), count(1, [1])],
      name,
    );
  }
});

test("the positive label may be the first", () => {
  const got = classificationResult(["yes", "no"], [0, 0, 1, 1, 1], [0, 1, 0, 0, 1], 0);
  assert.deepEqual([got.tp, got.fn, got.fp, got.tn], [1, 1, 2, 1]);
  near(list(got), [1 / 3, 1 / 2, 2 / 5], "by hand");
});

test("a generated answer is read for the label that it names first", () => {
  const labels = [" ham", " spam", " not spam"];
  for (const [text, k] of [
    [" spam", 1],
    ["Spam.", 1],
    ["It is ham, no spam", 0],
    ["not spam", 2],
    ["What a shame", -1],
    ["", -1],
    ["hamster", -1],
    ["**ham**", 0],
  ] as const)
    assert.equal(labelIn(text, labels), k, text);
  assert.equal(labelIn("这是诈骗电话", ["诈骗", "正常"]), 0);
});

test("metrics show their numbers, the rates of each label and the confusion matrix", async () => {
  const { labels, matrix, ...rates } = classificationResult(["a", "b", "c"], [0, 1, 2, 2], [0, 1, 1, -1]);
  const metrics = new Metrics({ ...rates, confusion: { labels, matrix } }, [{ correct: true }, {}, {}, {}], 1.5);
  assert.deepEqual(metrics.rows.columns, ["row", "correct"]);
  assert.equal(metrics.rows.length, 4);
  const text = metrics.toText();
  assert.match(text, /accuracy +0\.5/);
  assert.match(text, /macro mean/);
  assert.match(text, /\(other\)/);
  const html = metrics.toHtml().toString();
  assert.match(html, /Rows: actual/);
  assert.ok(!html.includes("NaN"));
  assert.equal(metrics.plot().figure.data[0]!.type, "heatmap");
  assert.throws(() => new Metrics({ loss: 1 }, [{}], 1).plot(), /no confusion matrix/);
});
