import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { loadDataset } from "../../src/data/dataset.js";
import { shared } from "../shared.js";

const data = join(shared, "data");
const skip = existsSync(data) ? false : `no data sets in ${data}`;

test("DialogSum: 12,460 rows", { skip }, async () => {
  const rows = await loadDataset(join(data, "dialogsum", "dialogsum.train.jsonl.gz"));
  assert.equal(rows.length, 12_460);
  assert.deepEqual(rows.columns, ["fname", "dialogue", "summary", "topic"]);
});

test("public files of other shapes", { skip }, async () => {
  const counts: [string, number, Parameters<typeof loadDataset>[1]?][] = [
    ["fraud_telecom5/telecom_fraud_5.jsonl.gz", 0],
    ["alpaca_gpt4_zh/alpaca_zh_demo.json", 0],
    ["code_toy/HumanEval.jsonl.gz", 164],
    ["code_toy/mbpp.jsonl", 974],
    ["sms_spam/SMSSpamCollection.tsv", 5574, { columns: ["label", "text"], quote: false }],
  ];
  for (const [path, count, options] of counts) {
    const rows = await loadDataset(join(data, path), options);
    assert.ok(count === 0 ? rows.length > 100 : rows.length === count, `${path}: ${rows.length}`);
  }
});
