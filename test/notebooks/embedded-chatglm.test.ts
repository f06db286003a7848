import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { config, corpus, files, recipe } from "../../notebooks/embedded/chatglm/prepare.js";
import { root } from "../../notebooks/embedded/prepare.js";
import { plain } from "../../notebooks/embedded/world.js";
import { embeddedModel, loadDataset, loadModel, Tokenizer } from "../../src/index.js";

const folder = embeddedModel("chatglm");
interface Golden {
  readonly sentencepiece: string;
  readonly texts: readonly (readonly [text: string, ids: readonly number[]])[];
}

test("it is small, and its config and tokenizer are those that its script writes", () => {
  assert.ok(statSync(join(folder, "model.safetensors")).size <= 1_000_000);
  for (const [name, content] of Object.entries(files(corpus().train)))
    assert.deepEqual(readFileSync(join(folder, name)), Buffer.from(content), name);
  assert.equal(config.padded_vocab_size, recipe.vocabulary);
});

test("its tokenizer gives sentencepiece's ids, and behind them the commands", async () => {
  const tokenizer = await Tokenizer.fromFolder(folder);
  const golden = JSON.parse(readFileSync(join(root, "test/fixtures/embedded-chatglm-ids.json"), "utf8")) as Golden;
  assert.ok(golden.texts.length >= 40);
  for (const [text, ids] of golden.texts)
    assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), ids, JSON.stringify(text));
  assert.deepEqual(
    ["[gMASK]", "sop", "<|user|>", "<|assistant|>"].map((token) => tokenizer.idOf(token)),
    [recipe.pieces + 1, recipe.pieces + 3, recipe.pieces + 6, recipe.pieces + 7],
  );
});

test("no input of the instructions stood in what it read, but the words and their meanings", async () => {
  const rows = (await loadDataset(join(root, "notebooks/data/instructions.jsonl"))).toRows();
  const lines = new Set(corpus().train.flatMap((row) => plain(row).split(/\n| = | -> |: /)));
  const asked = rows.filter(({ instruction }) => instruction !== "Which word is meant?");
  assert.deepEqual(
    asked.filter(({ input }) => lines.has(String(input))),
    [],
  );
});

test("it has learnt its exercise books, in half precision too", async () => {
  const rows = corpus().validation as Iterable<Record<string, unknown>>;
  for (const dtype of ["float32", "float16"] as const) {
    using model = await loadModel(folder, { dtype, progress: false });
    const { loss } = await model.evaluate(rows, { metrics: ["loss"], progress: false });
    assert.ok(loss! < 0.45, `${loss} nats a token in ${dtype}`);
  }
  using model = await loadModel(folder, { progress: false });
  const page = await model.generate(
    "Sentences and their questions.\nLena is in the bakery. = Is Lena in the bakery?\nHugo is at the mill. =",
    { maxNewTokens: 12 },
  );
  assert.equal(page.split("\n")[0]!.trim(), "Is Hugo at the mill?");
});
