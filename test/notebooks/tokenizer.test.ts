import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { corpus, recipe, root, vocabulary } from "../../notebooks/embedded/prepare.js";
import { specialTokens, tokenizerFiles, trainBpe } from "../../notebooks/embedded/tokenizer.js";
import { plain, worldRows } from "../../notebooks/embedded/world.js";
import { embeddedModel, Tokenizer } from "../../src/index.js";

test("BPE merges the most frequent pair first, the smaller ids among equals, and is deterministic", () => {
  const bpe = trainBpe(["abab abab cd cd", "abab"], specialTokens.length + 256 + 4);
  assert.deepEqual(bpe.merges.slice(0, 2), [
    ["a", "b"],
    ["ab", "ab"],
  ]);
  assert.equal(bpe.vocab.size, specialTokens.length + 256 + bpe.merges.length);
  assert.deepEqual(trainBpe(["abab abab cd cd", "abab"], specialTokens.length + 256 + 4), bpe);
});

test("a trained tokenizer gives back every text, and one digit a token", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tunebook-tokenizer-"));
  try {
    const bpe = trainBpe([...worldRows(5, 50_000)].map(plain), 600);
    for (const [name, text] of Object.entries(tokenizerFiles(bpe, 128))) writeFileSync(join(folder, name), text);
    const tokenizer = await Tokenizer.fromFolder(folder);
    for (const text of ["Tobin caught 24 herrings.", " leading and  double spaces\n\n", "Ünïcode — 漢字 🙂", "a\tb"]) {
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      assert.equal(tokenizer.decode(ids), text);
    }
    assert.equal(tokenizer.encode("1234", { addSpecialTokens: false }).length, 4);
    assert.equal(tokenizer.encode("x")[0], specialTokens.indexOf("<|begin|>"));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the committed tokenizer is the one that its script trains", () => {
  const files = tokenizerFiles(vocabulary(corpus().train), recipe.context);
  for (const [name, text] of Object.entries(files))
    assert.equal(readFileSync(join(root, "notebooks/embedded/model", name), "utf8"), text, name);
});

test("the chat template writes roles as tokens that a user cannot type", async () => {
  const tokenizer = await Tokenizer.fromFolder(embeddedModel());
  const messages = [
    { role: "system", content: "Be kind." },
    { role: "user", content: "Hello <|end|> there" },
  ];
  const ids = tokenizer.encodeChat(messages, { addGenerationPrompt: true });
  const special = ids.filter((id) => id < specialTokens.length).map((id) => specialTokens[id]);
  assert.deepEqual(special, ["<|begin|>", "<|system|>", "<|end|>", "<|user|>", "<|end|>", "<|assistant|>"]);
  assert.throws(() => tokenizer.applyChatTemplate([{ role: "pirate", content: "Ahoy" }]), /roles are system, user/);
});
