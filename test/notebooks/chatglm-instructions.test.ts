import assert from "node:assert/strict";
import { test } from "node:test";
import { type Cell, executed, numbersOf, plain } from "./executed.js";

const { notebook, cells } = executed("05-chatglm3-instructions.ipynb");
const sourceOf = (cell: Cell): string => plain(cell.source);
const shownBy = (cell: Cell | undefined): string =>
  (cell?.outputs ?? []).map(({ text, data }) => plain(text ?? data?.["text/plain"])).join("\n");
const cellWith = (part: string): Cell => {
  const found = cells.find((cell) => cell.cell_type === "code" && sourceOf(cell).includes(part));
  assert.ok(found, `no cell has ${part}`);
  return found;
};

test("the counts of the real shapes come out exactly", () => {
  assert.equal(
    shownBy(cellWith("chatglm3.trainable()")),
    "trainable params: 1,949,696 || all params: 6,245,533,696 || trainable%: 0.0312",
  );
  assert.match(shownBy(cellWith("llama2.trainable()")), /^trainable params: 4,194,304 \|\| all params: 6,742,609,920 /);
  assert.match(shownBy(cellWith("model.trainable()")), /^trainable params: 8,448 \|\| all params: 489,120 /);
});

test("the steps are the document's: prompt, columns, labels, half precision, names, configuration, settings", () => {
  const ids = JSON.parse(shownBy(cellWith("tokenized.at(1).input_ids"))) as string;
  assert.match(ids, /^\[gMASK\]sop<\|user\|> \n [^<]+<\|assistant\|> \n[^<]+<\/s>$/);
  const labels = JSON.parse(shownBy(cellWith("tokenized.at(1).labels"))) as string;
  assert.match(labels, /^\n[^<]+<\/s>$/);
  assert.ok(ids.endsWith(` ${labels}`));
  assert.match(shownBy(cellWith("train.map(processRow)")), /^900 rows × 3 columns\ninput_ids +attention_mask +labels/);
  assert.match(shownBy(cellWith("model.dtype;")), /^'float16'$/);
  const names = shownBy(cellWith("({ name }) => name).join")).trim().split("\n");
  assert.equal(names.length, 3 * 7 + 3);
  assert.ok(names.includes("transformer.encoder.layers.2.self_attention.query_key_value.bias"));
  const config = shownBy(cellWith("model.adapterConfig()"));
  for (const part of ["r: 8", "lora_alpha: 8", "lora_dropout: 0", "target_modules: [ 'query_key_value' ]"])
    assert.ok(config.includes(part), part);
  const parameters = sourceOf(cells.find((cell) => cell.metadata.tags?.includes("parameters"))!);
  for (const part of [
    "maxLength: number = 256",
    "batch: number = 2",
    "accumulate: number = 16",
    "adamEpsilon: number = 1e-4",
  ])
    assert.ok(parameters.includes(part), part);
  assert.ok(sourceOf(cellWith("await model.train(")).includes("logEvery: 10"));
  assert.ok(sourceOf(cellWith("model.eval()")).includes("model.chat("));
});

test("the adapter teaches the small model to do what it is asked", () => {
  const results = shownBy(cells.find((cell) => cell.metadata.tags?.includes("results")));
  const [before, after] = numbersOf(results, "answers right, to the letter");
  assert.ok(before! < 0.4 && after! > 0.7, `${before} → ${after}`);
  const [high, low] = numbersOf(results, "loss (nats a token)");
  assert.ok(low! < high! / 3, `${high} → ${low}`);
  assert.equal(shownBy(cellWith("model.eval()")).trim(), "Dora found a silver ring at the lighthouse.");
});

test("the figures of real instructions stand there, and none of their rows", () => {
  const table = cells.map(shownBy).find((text) => text.startsWith("alpaca_gpt4_zh: "));
  const [before, after] = numbersOf(table ?? "", "loss (nats a token)");
  assert.ok(before! - after! >= 0.15, `${before} → ${after}`);
  assert.match(notebook, /tunebook run 05-chatglm3-instructions\.ipynb -p .*rowsFile=alpaca_zh_demo\.json/);
  assert.match(notebook, /alpaca_gpt4_zh: loss of the answers' tokens/);
  assert.doesNotMatch(notebook, /\p{Script=Han}/u, "the rows are Chinese, and the notebook is not");
});
