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
import { mergesByScore } from "../../src/hub/merges.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { ggufFile, type Pair } from "./gguf-file.js";

const shared: string = process.env.TUNEBOOK_SHARED ?? join(import.meta.dirname, "../../../../shared");
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
    const bos: Pair = ["tokenizer.ggml.bos_token_id", 4, 9];
    await refused(
      [["tokenizer.ggml.model", 8, "gpt2"], tokens, merges, bos],
      /bos_token_id is 9, expected an id below 3/,
    );
  });

  it("keeps odd spellings as plain tokens", async () => {
    const made = await fromPairs([["tokenizer.ggml.model", 8, "gpt2"], tokens, merges]);
    assert.equal(made.idOf("__proto__"), 2);
    assert.deepEqual(made.encode("ab"), [0, 1]);
  });
});
