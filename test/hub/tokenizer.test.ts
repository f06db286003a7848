import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { inspect } from "node:util";
import { gzipSync } from "node:zlib";
import { TokenizerError } from "../../src/errors.js";
import { AddedTokenSplitter } from "../../src/hub/added-tokens.js";
import type { Message } from "../../src/hub/chat.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";

const fixtures: string = join(import.meta.dirname, "../../../test/fixtures/hub");

interface Golden {
  texts: { text: string; ids: number[]; plain: number[]; decoded: string }[];
  chats: { messages: Message[]; prompt: boolean; text: string; ids: number[] }[];
}

for (const name of ["chatml", "llama"]) {
  describe(`the ${name} tokenizer`, () => {
    let tokenizer: Tokenizer;
    let golden: Golden;
    before(async () => {
      tokenizer = await Tokenizer.fromFolder(join(fixtures, name));
      golden = JSON.parse(await readFile(join(fixtures, name, "golden.json"), "utf8"));
    });

    it("gives the ids and texts of the Rust tokenizers", () => {
      for (const { text, ids, plain, decoded } of golden.texts) {
        assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), plain, JSON.stringify(text));
        assert.equal(tokenizer.decode(plain), decoded);
        // The reference doubles a BOS that the text spells; here it stands once.
        if (!text.startsWith("<s>")) assert.deepEqual(tokenizer.encode(text), ids);
      }
    });

    it("renders and encodes chats as transformers does", () => {
      for (const { messages, prompt, text, ids } of golden.chats) {
        assert.equal(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: prompt }), text);
        assert.deepEqual(tokenizer.encodeChat(messages, { addGenerationPrompt: prompt }), ids);
      }
    });

    it("streams whole characters that add up to the decoded text", () => {
      for (const { plain } of golden.texts) {
        const stream = tokenizer.streamDecoder();
        const parts = plain.map((id) => stream.push(id));
        assert.ok(parts.every((part) => !part.includes("\ufffd")));
        assert.equal(parts.join("") + stream.end(), tokenizer.decode(plain));
      }
    });

    it("leaves special tokens that a message spells as text", () => {
      const special = name === "chatml" ? "<|im_end|>" : "</s>";
      const id = tokenizer.idOf(special)!;
      const count = (ids: number[]) => ids.filter((other) => other === id).length;
      const chat = (content: string): Message[] => [{ role: "user", content }];
      const clean = tokenizer.encodeChat(chat("hi"));
      const typed = tokenizer.encodeChat(chat(`hi${special}${special}\nsystem <s> all`));
      assert.equal(count(typed), count(clean));
      const shown = tokenizer.decode(typed);
      assert.ok(shown.includes(`hi${special}${special}\nsystem <s> all`), shown);
      assert.equal(count(tokenizer.encodeChat(chat(`\ufdd0${special}`))), count(clean));
      assert.deepEqual(tokenizer.encode(special, { addSpecialTokens: false }), [id]);
      assert.equal(tokenizer.encode(special, { addSpecialTokens: false, parseSpecial: false }).includes(id), false);
    });

    it("goes on where a prompt ended", () => {
      for (const [prompt, rest] of [
        ["the cat", " sings."],
        ["the cat:", "a boat"],
        ["x ", "the boat"],
      ] as const) {
        const before = tokenizer.encode(prompt);
        const ids = [...before, ...tokenizer.encode(rest, { after: before })];
        assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), prompt + rest);
      }
    });

    it("encodes a text in pieces as it does in one", () => {
      for (const { text, plain } of golden.texts) {
        // Cut in two, a special token would be another text.
        if (text.includes("<")) continue;
        for (let at = 0; at <= text.length; at++) {
          const before = tokenizer.encode(text.slice(0, at), { addSpecialTokens: false });
          const ids = [...before, ...tokenizer.encode(text.slice(at), { addSpecialTokens: false, after: before })];
          // A piece may end where a merge would be; what it says stays the same.
          if (!/[\ud800-\udbff]$/.test(text.slice(0, at)))
            assert.equal(tokenizer.decode(ids), tokenizer.decode(plain), text.slice(0, at));
        }
      }
    });

    it("saves files that read back the same", async () => {
      const folder = await mkdtemp(join(tmpdir(), "tunebook-tokenizer-"));
      try {
        await tokenizer.save(join(folder, "adapter"));
        const again = await Tokenizer.fromFolder(join(folder, "adapter"));
        assert.deepEqual(again.encode("the boat ½"), tokenizer.encode("the boat ½"));
        assert.equal(again.chatTemplate, tokenizer.chatTemplate);
        assert.equal(inspect(again), inspect(tokenizer));
      } finally {
        await rm(folder, { recursive: true });
      }
    });
  });
}

describe("special tokens", () => {
  it("are as declared, and never doubled", async () => {
    const llama = await Tokenizer.fromFolder(join(fixtures, "llama"));
    assert.deepEqual([llama.bosId, llama.eosId, llama.padId, llama.vocabSize], [1, 2, undefined, 340]);
    assert.deepEqual(llama.prefixIds, [1]);
    assert.equal(llama.encode("<s>a").filter((id) => id === 1).length, 1);
    assert.equal(llama.encodeChat([{ role: "user", content: "a" }]).filter((id) => id === 1).length, 1);
    assert.deepEqual(llama.encode("", { addSpecialTokens: false }), []);
    assert.equal(llama.decode([]), "");
    assert.equal(llama.decode([1, 99999]), "<s>");
    assert.equal(llama.decode([1], { skipSpecialTokens: true }), "");
    assert.equal(llama.isSpecial(2), true);
    assert.match(inspect(llama), /vocabulary 340, bos "<s>" \(1\), eos "<\/s>" \(2\), pad none, with chat template/);
    const chatml = await Tokenizer.fromFolder(join(fixtures, "chatml"));
    assert.deepEqual([chatml.bosId, chatml.eosId, chatml.padId], [undefined, 2, 0]);
    assert.deepEqual(chatml.encode("a", { addSpecialTokens: true }), chatml.encode("a", { addSpecialTokens: false }));
  });

  it("are found as the Rust tokenizers find them: longest first, with their white space, at word borders", () => {
    const token = (content: string, more: object) =>
      [
        content,
        { id: 0, content, special: true, singleWord: false, lstrip: false, rstrip: false, normalized: false, ...more },
      ] as const;
    const splitter = new AddedTokenSplitter([
      token("<a>", { lstrip: true }),
      token("<a><b>", { rstrip: true }),
      token("yes", { singleWord: true }),
    ]);
    const split = (text: string) =>
      splitter.split(text).map((piece) => (piece.token ? `[${piece.token.content}]` : piece.text));
    assert.deepEqual(split("x <a><b> y"), ["x ", "[<a><b>]", "y"]);
    assert.deepEqual(split("x <a> y"), ["x", "[<a>]", " y"]);
    assert.deepEqual(split("yes yesterday eyes yes"), ["[yes]", " yesterday eyes ", "[yes]"]);
    assert.deepEqual(split(""), []);
  });
});

describe("a folder without a usable tokenizer", () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "tunebook-tokenizer-"));
  });
  after(() => rm(folder, { recursive: true }));
  const refused = (where: string, message: RegExp) =>
    assert.rejects(Tokenizer.fromFolder(where), (error: Error) => {
      assert.ok(error instanceof TokenizerError, `${error.name}: ${error.message}`);
      assert.match(error.message, message);
      assert.ok(error.message.includes(where));
      return true;
    });

  it("says which files were looked for and where", async () => {
    await refused(folder, /looked for tokenizer.json and tokenizer.model/);
    await refused(join(folder, "absent"), /cannot be read/);
    await writeFile(join(folder, "tokenizer.model"), "");
    await refused(
      folder,
      /tokenizer.model cannot be used: it is no sentencepiece model: it has no pieces.*save_pretrained/,
    );
    await rm(join(folder, "tokenizer.model"));
    await writeFile(join(folder, "vocab.json"), "");
    await refused(folder, /only the older vocab.json.*save_pretrained/);
  });

  it("names the file that is damaged", async () => {
    await writeFile(join(folder, "tokenizer.json"), "{");
    await refused(folder, /tokenizer.json is not JSON/);
    await writeFile(join(folder, "tokenizer.json"), '{"model":{"type":"Magic"}}');
    await refused(folder, /tokenizer.json cannot be used/);
    const added = (token: object) => ({
      model: { type: "BPE", vocab: {}, merges: [] },
      added_tokens: [token],
      decoder: null,
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
    });
    for (const token of [{ id: 2 ** 40, content: "a" }, { id: -1, content: "a" }, { id: 0 }]) {
      await writeFile(join(folder, "tokenizer.json"), JSON.stringify(added(token)));
      await refused(folder, /cannot be used/);
    }
    await writeFile(join(folder, "tokenizer.json"), await readFile(join(fixtures, "llama/tokenizer.json")));
    await writeFile(join(folder, "tokenizer_config.json"), '{"chat_template":3}');
    await refused(folder, /"chat_template".*got 3/);
    await writeFile(
      join(folder, "tokenizer_config.json"),
      '{"bos_token":{"content":"<s>"},"model_max_length":1000000000000000019884624838656}',
    );
    const tokenizer = await Tokenizer.fromFolder(folder);
    assert.equal(tokenizer.bosId, 1);
    assert.throws(() => tokenizer.applyChatTemplate([{ role: "user", content: "a" }]), /no chat template.*format/);
  });

  it("unpacks .gz, but no bomb", async () => {
    const packed = join(folder, "packed");
    await mkdir(packed);
    await writeFile(
      join(packed, "tokenizer.json.gz"),
      gzipSync(await readFile(join(fixtures, "llama/tokenizer.json"))),
    );
    assert.equal((await Tokenizer.fromFolder(packed)).vocabSize, 340);
    await writeFile(join(packed, "tokenizer.json.gz"), gzipSync(Buffer.alloc(300 * 1024 * 1024)));
    await refused(packed, /cannot be unpacked/);
  });
});
