/**
 * Changed files of tokenizers: each is refused with a TokenizerError or read, and what is read encodes and decodes, without a crash or a long wait.
 * TUNEBOOK_FUZZ is the number of changes of each kind (250 by default).
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { TokenizerError } from "../../src/errors.js";
import { readSentencePiece } from "../../src/hub/sentencepiece.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";

const fixtures: string = join(import.meta.dirname, "../../../test/fixtures/hub");
const count = Number(process.env.TUNEBOOK_FUZZ ?? 250);
// The longest one may take; machines that run tests are busy.
const SECONDS = 10;

/** Numbers that are the same in every run (Mulberry32). */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const ODD: readonly unknown[] = [
  null, true, false, 0, -1, 1, 2 ** 31, 2 ** 53, 1e308, 0.5, "", "a", " ", "\0", "\ufffd", "\ud800", "<0x0A>", "\u2581", "__proto__", "constructor",
  "(?:a+)+$", "[", "(", "\\", "x".repeat(5000), [], {}, [[]], [null], { Regex: "(?:\\s+)+$" }, { String: "" }, { type: "Sequence" }, { type: "ByteLevel" },
  { type: "Metaspace" }, { type: "BPE" }, "BPE", "Unigram", "WordPiece", "Sequence", "Split", "Isolated", "Removed",
]; // biome-ignore format: a list

/** Changes one value somewhere: to an odd one, to another place's, or away. */
function mutate(value: unknown, pick: (below: number) => number): unknown {
  const root = structuredClone(value);
  for (let change = 0; change <= pick(3); change++) {
    let at = root as Record<string, unknown>;
    for (;;) {
      const keys = Object.keys(at);
      if (keys.length === 0) break;
      const key = keys[pick(keys.length)]!;
      const inner = at[key];
      if (typeof inner === "object" && inner !== null && pick(4) > 0) {
        at = inner as Record<string, unknown>;
        continue;
      }
      const how = pick(6);
      if (how === 0) delete at[key];
      else if (how === 1) at[key] = structuredClone(at[keys[pick(keys.length)]!]);
      else if (how === 2 && Array.isArray(at)) at.length = pick(at.length + 1);
      else if (how === 3 && typeof inner === "string") at[key] = inner.slice(pick(inner.length + 1)) + inner;
      else at[key] = structuredClone(ODD[pick(ODD.length)]);
      break;
    }
  }
  return root;
}

function tried(what: string, run: () => Tokenizer): boolean {
  const begin = performance.now();
  let read = true;
  try {
    const tokenizer = run();
    const ids = tokenizer.encode("the old cat  sings\n世界 🙂 <s>a</s>", { addSpecialTokens: true });
    assert.ok(
      ids.every((id) => Number.isInteger(id) && id >= 0 && id < tokenizer.vocabSize),
      `${what}: ${ids}`,
    );
    assert.equal(typeof tokenizer.decode(ids), "string");
    tokenizer.encodeChat([{ role: "user", content: "a" }]);
  } catch (error) {
    if (!(error instanceof TokenizerError)) throw new Error(`${what}: ${(error as Error).stack}`);
    read = false;
  }
  const took = (performance.now() - begin) / 1000;
  assert.ok(took < SECONDS, `${what} took ${took} s`);
  return read;
}

for (const name of ["llama", "chatml"])
  test(`tokenizer.json and its config, changed: ${name}`, () => {
    const json = JSON.parse(readFileSync(join(fixtures, name, "tokenizer.json"), "utf8"));
    const config = JSON.parse(readFileSync(join(fixtures, name, "tokenizer_config.json"), "utf8"));
    const pick = generator(1);
    let read = 0;
    for (let i = 0; i < count; i++) {
      const both = i % 3 === 0;
      const source = i % 3 === 1 ? json : mutate(json, pick);
      const more = i % 3 === 1 || both ? mutate(config, pick) : config;
      if (tried(`${name} ${i}`, () => Tokenizer.fromJson(source as object, more as object))) read++;
    }
    assert.ok(read > 0.1 * count && read < 0.9 * count, `${read} of ${count} were read`);
  });

test("tokenizer.model, changed", () => {
  const files = ["bpe", "plain", "unigram", "unknown"].map((n) =>
    readFileSync(join(fixtures, "sentencepiece", `${n}.model`)),
  );
  const pick = generator(2);
  let read = 0;
  for (let i = 0; i < count; i++) {
    const bytes = Buffer.from(files[i % files.length]!);
    for (let change = 0; change <= pick(4); change++) bytes[pick(bytes.length)] = pick(256);
    const cut = pick(5) === 0 ? bytes.subarray(0, pick(bytes.length)) : bytes;
    if (
      tried(`model ${i}`, () =>
        Tokenizer.fromJson(readSentencePiece(cut, "x"), { chat_template: "{{ messages[0].content }}" }),
      )
    )
      read++;
  }
  assert.ok(read > 0.1 * count && read < 0.95 * count, `${read} of ${count} were read`);
});

test("chat templates, changed", () => {
  const json = JSON.parse(readFileSync(join(fixtures, "chatml", "tokenizer.json"), "utf8"));
  const { chat_template } = JSON.parse(readFileSync(join(fixtures, "chatml", "tokenizer_config.json"), "utf8"));
  const pick = generator(3);
  for (let i = 0; i < count; i++) {
    let text: string = chat_template;
    for (let change = 0; change <= pick(4); change++) {
      const [at, to] = [pick(text.length), pick(text.length)].sort((a, b) => a - b) as [number, number];
      const how = pick(3);
      text =
        how === 0
          ? text.slice(0, at) + text.slice(to)
          : how === 1
            ? text.slice(0, to) + text.slice(at)
            : text.slice(0, at) + ["{%", "%}", "{{", "}}", "'", "|", "(", "range(9)"][pick(8)] + text.slice(at);
    }
    tried(`template ${i}`, () => Tokenizer.fromJson(json, { chat_template: text }));
  }
});
