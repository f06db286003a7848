/** Tokenizers from GGUF metadata: made from real tokenizer.json files, they must give the same ids. Skipped where those are not at hand. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { gunzipSync } from "node:zlib";
import { GgufFile } from "../../src/hub/gguf.js";
import { ggufTokenizer } from "../../src/hub/gguf-tokenizer.js";
import { tokenizerFields } from "../../src/hub/gguf-tokenizer-write.js";
import { writeGguf } from "../../src/hub/gguf-write.js";
import { mergesByScore } from "../../src/hub/merges.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { shared } from "../shared.js";
import { ggufFile, type Pair } from "./gguf-file.js";

const tokenizers: string = join(shared, "tokenizers");
const skip: string | false = existsSync(tokenizers)
  ? false
  : `no real tokenizers in ${tokenizers} (TUNEBOOK_SHARED names another place)`;
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-gguf-"));
});
after(() => rm(folder, { recursive: true, force: true }));

async function fromPairs(pairs: Pair[]): Promise<Tokenizer> {
  const path = join(folder, "tokenizer.gguf");
  await writeFile(path, ggufFile(pairs, []));
  await using file = await GgufFile.open(path);
  return ggufTokenizer(file);
}

interface Published {
  added_tokens: { id: number; content: string; special: boolean }[];
  model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
}

async function published(name: string): Promise<{ json: Published; tokens: string[]; types: number[] }> {
  const packed = await readFile(join(tokenizers, name, "tokenizer.json.gz"));
  const json = JSON.parse(gunzipSync(packed).toString()) as Published;
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(json.model.vocab)) tokens[id] = token;
  for (const { id, content } of json.added_tokens) tokens[id] = content;
  const added = new Map(json.added_tokens.map((t) => [t.id, t.special ? 3 : 4]));
  const types = tokens.map((token, id) => added.get(id) ?? (/^<0x..>$/.test(token) ? 6 : 1));
  return { json, tokens, types };
}

/** The scores of a sentencepiece model: protobuf, field 1 = pieces, each with field 2 = score. */
function pieceScores(model: Buffer): number[] {
  const scores: number[] = [];
  let at = 0;
  const varint = (): number => {
    for (let value = 0, shift = 0; ; shift += 7) {
      const byte = model[at++]!;
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < model.length && model[at] === 0x0a) {
    at++;
    const length = varint();
    const end = at + length;
    assert.equal(model[at++], 0x0a);
    const piece = varint();
    at += piece;
    assert.equal(model[at++], 0x15);
    scores.push(model.readFloatLE(at));
    at = end;
  }
  return scores;
}

async function texts(vectors: string): Promise<string[]> {
  const inputs = await readFile(join(tokenizers, "vectors", `${vectors}.inp`), "utf8");
  return [...inputs.split("\n__ggml_vocab_test__\n"), "<|im_end|>a <s>b</s>", "1234567 x½２", "e\u0301 ﬁ"];
}

describe("tokenizers of GGUF files", { skip }, () => {
  for (const [name, pre, bos] of [
    ["smollm2", "smollm", undefined],
    ["starcoder", "refact", undefined],
    ["starcoder2", "starcoder", undefined],
    ["llama3", "llama-bpe", 128000],
    ["qwen2", "qwen2", undefined],
  ] as const) {
    it(`${name}: the pre-tokenizer ${pre}`, async () => {
      const { json, tokens, types } = await published(name);
      const merges = json.model.merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")));
      const made = await fromPairs([
        ["tokenizer.ggml.model", 8, "gpt2"],
        ["tokenizer.ggml.pre", 8, pre],
        ["tokenizer.ggml.tokens", 9, [8, tokens]],
        ["tokenizer.ggml.token_type", 9, [5, types]],
        ["tokenizer.ggml.merges", 9, [8, merges]],
        ["tokenizer.ggml.eos_token_id", 4, 0],
        ...(bos === undefined ? [] : [["tokenizer.ggml.bos_token_id", 4, bos] as Pair]),
      ]);
      const wanted = await Tokenizer.fromFolder(join(tokenizers, name));
      for (const text of await texts("llama-bpe")) {
        for (const parseSpecial of [true, false]) {
          const ids = wanted.encode(text, { parseSpecial, addSpecialTokens: false });
          assert.deepEqual(made.encode(text, { parseSpecial, addSpecialTokens: false }), ids, JSON.stringify(text));
          assert.equal(made.decode(ids), wanted.decode(ids));
        }
      }
      assert.deepEqual(made.prefixIds, bos === undefined ? [] : [bos]);
    });
  }

  it("llama2: sentencepiece scores become the published merges", async () => {
    const { json, tokens, types } = await published("llama2");
    const scores = pieceScores(await readFile(join(tokenizers, "llama2", "tokenizer.model")));
    assert.equal(scores.length, tokens.length);
    const wantedMerges = json.model.merges.map((merge) => (typeof merge === "string" ? merge.split(" ") : merge));
    assert.deepEqual(mergesByScore(tokens, scores, json.model.vocab), wantedMerges);
    types[0] = 2;
    const made = await fromPairs([
      ["tokenizer.ggml.model", 8, "llama"],
      ["tokenizer.ggml.pre", 8, "default"],
      ["tokenizer.ggml.tokens", 9, [8, tokens]],
      ["tokenizer.ggml.scores", 9, [6, scores]],
      ["tokenizer.ggml.token_type", 9, [5, types]],
      ["tokenizer.ggml.bos_token_id", 4, 1],
      ["tokenizer.ggml.eos_token_id", 4, 2],
      ["tokenizer.ggml.unknown_token_id", 4, 0],
    ]);
    const wanted = await Tokenizer.fromFolder(join(tokenizers, "llama2"));
    for (const text of await texts("llama-spm")) {
      assert.deepEqual(made.encode(text), wanted.encode(text), JSON.stringify(text));
      assert.equal(made.decode(wanted.encode(text)), wanted.decode(wanted.encode(text)));
    }
  });
});

/** A tokenizer written and read again; by which name for how words are split. */
async function again(tokenizer: Tokenizer, rows: number, pre: string): Promise<Tokenizer> {
  const path = join(folder, "again.gguf");
  const fields = tokenizerFields(tokenizer, rows);
  assert.equal(fields.get("tokenizer.ggml.pre")!.value, pre);
  await writeGguf(path, fields, []);
  await using file = await GgufFile.open(path);
  return ggufTokenizer(file);
}

describe("real tokenizers written to a GGUF file and read again", { skip }, () => {
  for (const [name, pre] of [
    ["llama2", "default"],
    ["mistral-7b-v0.1", "default"],
    ["chatglm3", "chatglm-spm"],
    ["llama3", "llama-bpe"],
    ["qwen2", "qwen2"],
    ["smollm2", "smollm"],
    ["starcoder", "smollm"],
  ] as const) {
    it(`${name}: the same ids and texts, stops and template`, async () => {
      const tokenizer = await Tokenizer.fromFolder(join(tokenizers, name));
      const rows = tokenizer.vocabSize + 3;
      const made = await again(tokenizer, rows, pre);
      const strings = [
        ...(await texts("llama-bpe")),
        ...(await texts("llama-spm")),
        "philosophy (sop) eop",
        " a  b   ",
      ];
      for (const text of [...strings, "<|user|> hi [gMASK]sop", "中文字符 and 日本語"]) {
        for (const options of [{}, { parseSpecial: false }, { parseSpecial: true }, { addSpecialTokens: false }]) {
          const ids = tokenizer.encode(text, options);
          assert.deepEqual(made.encode(text, options), ids, JSON.stringify(text));
          assert.equal(made.decode(ids), tokenizer.decode(ids));
        }
      }
      for (const key of ["bosId", "eosId", "padId", "chatTemplate", "stopIds"] as const)
        assert.deepEqual(made[key], tokenizer[key], key);
      assert.equal(made.tokenOf(rows - 1), `[PAD${rows - 1}]`);
      if (made.chatTemplate === undefined) return;
      const chat = [{ role: "user", content: "Hi <|user|> </s>" }] as const;
      assert.deepEqual(made.encodeChat(chat), tokenizer.encodeChat(chat));
    });
  }

  it("GLM-4's name for how words are split, and what it puts before a text", async () => {
    const { json } = await published("llama3");
    const added = ["[gMASK]", "<sop>"].map((content, i) => ({ ...json.added_tokens[0]!, content, id: 128_256 + i }));
    const source = {
      ...json,
      model: { ...json.model, ignore_merges: false },
      added_tokens: [...json.added_tokens, ...added],
    };
    const prefix = added.map(({ content }) => ({ SpecialToken: { id: content, type_id: 0 } }));
    const single = [...prefix, { Sequence: { id: "A", type_id: 0 } }];
    const special_tokens = Object.fromEntries(
      added.map(({ id, content }) => [content, { id: content, ids: [id], tokens: [content] }]),
    );
    const post_processor = { type: "TemplateProcessing", single, pair: single, special_tokens };
    const glm = Tokenizer.fromJson({ ...source, post_processor }, { eos_token: "<|end_of_text|>" });
    const made = await again(glm, glm.vocabSize, "chatglm-bpe");
    assert.deepEqual(made.prefixIds, [128_256, 128_257]);
    for (const text of await texts("llama-bpe")) assert.deepEqual(made.encode(text), glm.encode(text), text);
  });
});

describe("a tokenizer of a GGUF file that cannot be used", () => {
  const tokens: Pair = ["tokenizer.ggml.tokens", 9, [8, ["a", "b", "__proto__"]]];
  const merges: Pair = ["tokenizer.ggml.merges", 9, [8, []]];
  const refused = (pairs: Pair[], message: RegExp) => assert.rejects(fromPairs(pairs), message);

  it("says why", async () => {
    await refused([], /tokenizer\.ggml\.model is nothing/);
    await refused([["tokenizer.ggml.model", 8, "bert"], tokens], /"bert", expected "gpt2" or "llama"/);
    await refused([["tokenizer.ggml.model", 8, "gpt2"]], /tokenizer\.ggml\.tokens is nothing/);
    await refused(
      [["tokenizer.ggml.model", 8, "gpt2"], ["tokenizer.ggml.pre", 8, "x"], tokens, merges],
      /pre is "x", known/,
    );
    await refused([["tokenizer.ggml.model", 8, "llama"], tokens], /scores/);
    const short: Pair = ["tokenizer.ggml.token_type", 9, [5, [1]]];
    await refused([["tokenizer.ggml.model", 8, "gpt2"], tokens, short, merges], /1 elements for 3 tokens/);
    const long: Pair = ["tokenizer.ggml.tokens", 9, [8, ["a", "b".repeat(20_000)]]];
    await refused(
      [["tokenizer.ggml.model", 8, "llama"], long, ["tokenizer.ggml.scores", 9, [6, [0, 0]]]],
      /tokens are too long to find their merges/,
    );
    const bos: Pair = ["tokenizer.ggml.bos_token_id", 4, 9];
    await refused(
      [["tokenizer.ggml.model", 8, "gpt2"], tokens, merges, bos],
      /bos_token_id is 9, expected an id below 3/,
    );
  });

  it("says why one cannot be written: words split in another way, tokens before a text", () => {
    const special = { special: true, single_word: false, lstrip: false, rstrip: false, normalized: false };
    const source = (pre_tokenizer: object, before: string[]) => ({
      added_tokens: ["[gMASK]", "sop"].map((content, i) => ({ id: i + 2, content, ...special })),
      normalizer: null,
      pre_tokenizer,
      post_processor: {
        type: "TemplateProcessing",
        single: [...before.map((id) => ({ SpecialToken: { id, type_id: 0 } })), { Sequence: { id: "A", type_id: 0 } }],
        pair: [],
        special_tokens: Object.fromEntries(before.map((id, i) => [id, { id, ids: [i + 2], tokens: [id] }])),
      },
      decoder: { type: "ByteLevel" },
      model: { type: "BPE", vocab: { a: 0, b: 1 }, merges: [] },
    });
    const write = (pre: object, before: string[], more: object = {}) =>
      tokenizerFields(Tokenizer.fromJson({ ...source(pre, before), ...more }, {}), 8);
    const bytes = { type: "ByteLevel", add_prefix_space: false, use_regex: true };
    assert.equal(write(bytes, []).get("tokenizer.ggml.pre")!.value, "gpt-2");
    assert.throws(() => write(bytes, ["[gMASK]", "sop"]), /puts 2 tokens around a text/);
    assert.throws(() => write({ type: "Whitespace" }, []), /split in a way that has no name/);
    // Something that such a file has no field for.
    const model = {
      type: "BPE",
      vocab: { "<unk>": 0, t: 1, T: 2, h: 3, e: 4 },
      merges: [],
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: true,
    };
    const normalizer = { type: "Lowercase" };
    const lower = { model, pre_tokenizer: null, normalizer, added_tokens: [] };
    assert.throws(() => write(bytes, [], lower), /"The Quick brown fox.* has other ids/);
  });

  it("keeps odd spellings as plain tokens", async () => {
    const made = await fromPairs([["tokenizer.ggml.model", 8, "gpt2"], tokens, merges]);
    assert.equal(made.idOf("__proto__"), 2);
    assert.deepEqual(made.encode("ab"), [0, 1]);
  });
});
