import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { dataSets, jsonl } from "../../notebooks/embedded/data.js";
import { root } from "../../notebooks/embedded/prepare.js";
import { capitalise, plural, render, withArticle } from "../../notebooks/embedded/world/render.js";
import { plain, worldRows } from "../../notebooks/embedded/world.js";
import { Random } from "../../src/data/random.js";

const digest = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 16);

test("the same seed writes the same village, another seed another one", () => {
  const texts = (seed: number): string => [...worldRows(seed, 300_000)].map((row) => JSON.stringify(row)).join("\n");
  assert.equal(digest(texts(20)), "a48c5b00c18729c6");
  assert.notEqual(digest(texts(21)), digest(texts(20)));
});

test("its sentences are whole: capitals, articles, no template left", () => {
  const rows = [...worldRows(3, 200_000)];
  for (const row of rows) {
    const text = plain(row);
    assert.doesNotMatch(text, /[{}[\]|]|undefined|\bnull\b|\ba [aeio]\w+ | {2}|\.\./, text);
  }
  const longer = rows.map(plain).filter((text) => text.length > 160);
  assert.equal(new Set(longer).size, longer.length, "no longer text comes twice");
});

test("templates: nested choices, fields, articles, plurals, sentence starts", () => {
  const random = new Random(1);
  const seen = new Set(
    Array.from({ length: 60 }, () =>
      render(random, "[a [red|blue]|no] {thing}. {p.he} saw {an thing}.", { thing: "oar", p: { he: "she" } }),
    ),
  );
  assert.deepEqual([...seen].sort(), [
    "A blue oar. She saw an oar.",
    "A red oar. She saw an oar.",
    "No oar. She saw an oar.",
  ]);
  assert.deepEqual(["oar", "hour", "uniform", "net"].map(withArticle), ["an oar", "an hour", "a uniform", "a net"]);
  assert.deepEqual(["net", "box", "knife", "compass"].map(plural), ["nets", "boxes", "knives", "compasses"]);
  assert.equal(
    capitalise('he came. "stop!" she said. "go." they went.'),
    'He came. "stop!" she said. "go." They went.',
  );
  assert.throws(() => render(random, "{nobody}"), /names \{nobody\}, which is not given/);
});

test("the bundled data sets are what the generator writes, small, balanced, and unknown to the model's own texts", () => {
  const folder = join(root, "notebooks", "data");
  const sets = dataSets();
  // The pictures, in Arrow files, are the matter of vision.test.ts.
  const texts = readdirSync(folder).filter((name) => !name.endsWith(".arrow"));
  assert.deepEqual(texts.sort(), Object.keys(sets).sort());
  for (const [name, rows] of Object.entries(sets)) {
    const text = readFileSync(join(folder, name), "utf8");
    assert.equal(digest(text), digest(jsonl(rows)), `${name} differs: run node dist/notebooks/embedded/data.js`);
    assert.ok(text.length < 300_000, `${name} has ${text.length} bytes`);
    const labels = rows.map((row) => (row as { label?: string }).label).filter((label) => label !== undefined);
    for (const label of new Set(labels)) {
      const share = labels.filter((one) => one === label).length / labels.length;
      assert.ok(share > 0.4 && share < 0.6, `${name}: ${label} has a share of ${share}`);
    }
  }
  const text = [...worldRows(20, 500_000)].map(plain).join("\n");
  assert.doesNotMatch(text, /urgent|routine|fraud|radio|summar/i);
});

test("a third of the radio messages of the test is worded as no training message is", () => {
  const sets = dataSets();
  const texts = (name: string): string[] => (sets[name] as { text: string }[]).map((row) => row.text);
  const unseen =
    /made a hole|in the sea and cannot|near the oil|broken a leg|rocks all around|onto the beach\.|would like to know|sold all our fish|so warm|closed by|a letter from us|baking bread on board|found the pier|of them\./;
  const count = texts("radio-test.jsonl").filter((text) => unseen.test(text)).length;
  assert.ok(count > 240 * 0.25 && count < 240 * 0.42, `${count}`);
  const known = texts("radio-train.jsonl").filter((text) =>
    /made a hole|near the oil|broken a leg|rocks all around|would like to know|sold all our fish|baking bread on board/.test(
      text,
    ),
  );
  assert.deepEqual(known, []);
});

test("the talks at the door: both labels, all kinds, scenes that only the test has, nothing that gives the label away alone", () => {
  const sets = dataSets();
  const rows = (name: string): { content: string; label: number; label_name: string }[] => sets[name] as never;
  const [train, held] = [rows("visits-train.jsonl"), rows("visits-test.jsonl")];
  for (const part of [train, held]) {
    const frauds = part.filter((row) => row.label === 1);
    assert.ok(frauds.length > 0.4 * part.length && frauds.length < 0.6 * part.length, `${frauds.length}`);
    assert.equal(new Set(part.map((row) => row.label_name)).size, 5);
    for (const row of part) assert.equal(row.label === 0, row.label_name === "normal");
  }
  const fresh =
    /new harbour master|too much for|from door to door|new doctor|empty sacks|seal of the king|was never paid|lottery|wants a fee|clean wells|was drawn|sits in prison|said that you would pay/;
  const share = held.filter((row) => fresh.test(row.content)).length / held.length;
  assert.ok(share > 0.25 && share < 0.42, `${share}`);
  assert.equal(train.filter((row) => fresh.test(row.content)).length, 0);
  for (const row of [...train, ...held])
    assert.doesNotMatch(row.content, /[{}[\]|]|undefined|\ba [aeio]\w+ | {2}|\.\./, row.content);
  for (const word of ["pence", "key", "money", "bank"]) {
    const with_ = train.filter((row) => row.content.includes(word));
    assert.ok(with_.some((row) => row.label === 0) && with_.some((row) => row.label === 1), word);
  }
});
