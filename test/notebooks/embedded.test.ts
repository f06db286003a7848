import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { corpus, root } from "../../notebooks/embedded/prepare.js";
import { plain, worldRows } from "../../notebooks/embedded/world.js";
import { type EvaluateOptions, embeddedModel, loadModel, type Model } from "../../src/index.js";

interface Golden {
  readonly answers: readonly { readonly ask: string; readonly answer: string }[];
  readonly story: string;
}

const golden = JSON.parse(readFileSync(join(root, "test/fixtures/embedded-greedy.json"), "utf8")) as Golden;
const metrics: EvaluateOptions = { metrics: ["perplexity"], progress: false };
let model: Model;

before(async () => {
  model = await loadModel(embeddedModel(), { progress: false });
});
after(() => model.dispose());

const ask = (content: string, maxNewTokens = 300): Promise<string> =>
  model.chat([{ role: "user", content }], { maxNewTokens });

test("it is small: at most 10 MB of weights, every linear layer made of whole NF4 blocks", () => {
  assert.ok(statSync(join(embeddedModel(), "model.safetensors")).size <= 10_000_000);
  for (const { name, shape } of model.parameters())
    if (name.includes("_proj"))
      assert.ok(
        shape.every((n) => n % 64 === 0),
        `${name} ${shape.join(" x ")}`,
      );
});

test("it answers as it did when it was committed", async () => {
  for (const { ask: question, answer } of golden.answers) assert.equal(await ask(question), answer, question);
});

test("it tells a whole story in words of its village, and ends its turn by itself", async () => {
  const story = await ask("Tell me a story about a storm.");
  // Rounding differs between instruction sets, so a later word may too: the beginning is fixed, the rest must be readable.
  assert.equal(story.slice(0, 60), golden.story.slice(0, 60));
  const known = new Set([...worldRows(20, 1_000_000)].flatMap((row) => plain(row).match(/[A-Za-z]+/g) ?? []));
  const words = story.match(/[A-Za-z]+/g) ?? [];
  const strange = words.filter((word) => !known.has(word));
  assert.ok(words.length > 60, story);
  assert.ok(strange.length <= words.length / 50, `${strange.join(", ")} in: ${story}`);
  assert.match(story, /[.!?"]$/);
  assert.doesNotMatch(story, /<\|/);
});

test("it finds what a passage says about people that it has never met", async () => {
  const passage =
    "Greta hid a silver ring on Gull Hill at noon because it was a surprise for Tom. It was windy that day. Many people saw it.";
  assert.equal(await ask(`${passage}\nWho hid the silver ring?`), "Greta hid the silver ring.");
  assert.equal(await ask(`${passage}\nWhat was the weather like?`), "It was windy.");
});

test("its perplexity on texts that it was not trained on is low, also in 4 bits", async () => {
  const rows = corpus().validation.slice(0, 120) as Iterable<Record<string, unknown>>;
  const whole = (await model.evaluate(rows, metrics)).perplexity!;
  assert.ok(whole < 1.35, `${whole}`);
  const small = await loadModel(embeddedModel(), { progress: false }).quantize({ type: "nf4", doubleQuant: true });
  const packed = (await small.evaluate(rows, metrics)).perplexity!;
  small.dispose();
  assert.ok(packed < whole * 1.2, `${packed} in NF4, ${whole} before`);
});
