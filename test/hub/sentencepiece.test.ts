/** Models of sentencepiece, against what sentencepiece says about them (make_sentencepiece.py), and files that are none. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { TokenizerError } from "../../src/errors.js";
import type { Message } from "../../src/hub/chat.js";
import { fields } from "../../src/hub/protobuf.js";
import { readSentencePiece } from "../../src/hub/sentencepiece.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";

const fixtures: string = join(import.meta.dirname, "../../../test/fixtures/hub/sentencepiece");

interface Golden {
  models: Record<string, { text: string; ids: number[]; decoded: string }[]>;
  chats: { messages: Message[]; prompt: boolean; ids: number[] }[];
}

let golden: Golden;
let folder: string;
before(async () => {
  golden = JSON.parse(await readFile(join(fixtures, "golden.json"), "utf8"));
  folder = await mkdtemp(join(tmpdir(), "tunebook-sentencepiece-"));
});
after(() => rm(folder, { recursive: true }));

/** A folder with a model and a config. */
async function made(name: string, config: object): Promise<string> {
  const at = join(folder, `${name}-${Object.values(config).join("-")}`);
  await mkdir(at, { recursive: true });
  await writeFile(join(at, "tokenizer.model"), await readFile(join(fixtures, `${name}.model`)));
  await writeFile(join(at, "tokenizer_config.json"), JSON.stringify(config));
  return at;
}

describe("a sentencepiece model", () => {
  for (const name of ["bpe", "plain", "unigram", "unknown"]) {
    it(`${name}: the ids and texts of sentencepiece`, async () => {
      const tokenizer = await Tokenizer.fromFolder(await made(name, { add_bos_token: false }));
      for (const { text, ids, decoded } of golden.models[name]!) {
        const mine = tokenizer.encode(text, { parseSpecial: false });
        assert.deepEqual(mine, ids, JSON.stringify(text));
        if (!ids.includes(0)) assert.equal(tokenizer.decode(mine), decoded, JSON.stringify(text));
      }
    });
  }

  it("streams whole characters, those of bytes too", async () => {
    const tokenizer = await Tokenizer.fromFolder(await made("bpe", { add_bos_token: false }));
    for (const text of ["世界 and 你好", "🙂🙂 👩‍👩‍👧", "½ the ✓", "e\u0301é"]) {
      const ids = tokenizer.encode(text);
      assert.ok(ids.length > [...text].length, "not in bytes");
      const stream = tokenizer.streamDecoder();
      const parts = ids.map((id) => stream.push(id));
      assert.ok(
        parts.every((part) => part.isWellFormed() && !part.includes("\ufffd")),
        JSON.stringify(parts),
      );
      assert.equal(parts.join("") + stream.end(), text);
      // Cut in the middle of a character, what never became one is U+FFFD, given at the end alone.
      const cut = tokenizer.streamDecoder();
      const begun = ids.slice(0, -1).map((id) => cut.push(id));
      assert.equal(begun.join(""), [...text].slice(0, -1).join(""));
      assert.match(cut.end(), /^\ufffd+$/);
    }
  });

  it("has a BOS before each text, and what the config says", async () => {
    const plain = await Tokenizer.fromFolder(await made("bpe", { bos_token: "<s>", eos_token: "</s>" }));
    assert.deepEqual([plain.prefixIds, plain.bosId, plain.eosId], [[1], 1, 2]);
    assert.equal(plain.encode("the boat")[0], 1);
    const both = await Tokenizer.fromFolder(await made("bpe", { add_bos_token: false, add_eos_token: true }));
    assert.deepEqual([both.prefixIds, both.encode("a").at(-1)], [[], 2]);
  });

  it("takes tokens that the config declares behind its pieces", async () => {
    const added_tokens_decoder = {
      1: { content: "<s>", special: true },
      400: { content: "<|im_start|>", special: true, normalized: false },
    };
    const at = await made("bpe", { add_bos_token: false, added_tokens_decoder });
    const tokenizer = await Tokenizer.fromFolder(at);
    assert.deepEqual(tokenizer.encode("<|im_start|><s>"), [400, 1]);
    assert.equal(tokenizer.vocabSize, 401);
    assert.equal(tokenizer.encode("a<|im_start|>", { parseSpecial: false }).includes(400), false);
  });

  it("is saved as it is, or as tokenizer.json with further tokens", async () => {
    const tokenizer = await Tokenizer.fromFolder(await made("bpe", { tokenizer_class: "ChatGLMTokenizer" }));
    await tokenizer.save(join(folder, "saved"));
    assert.deepEqual((await Tokenizer.fromFolder(join(folder, "saved"))).encode("the ½"), tokenizer.encode("the ½"));
    const larger = tokenizer.withTokens(["<new>"]);
    await larger.save(join(folder, "larger"));
    const again = await Tokenizer.fromFolder(join(folder, "larger"));
    assert.equal(again.idOf("<new>"), tokenizer.vocabSize);
    assert.deepEqual(again.encodeChat(golden.chats[0]!.messages), tokenizer.encodeChat(golden.chats[0]!.messages));
    assert.deepEqual(again.stopIds, tokenizer.stopIds);
  });
});

describe("ChatGLM's tokenizer", () => {
  it("gives the ids of build_chat_input: metadata, tools, commands that somebody types", async () => {
    const tokenizer = await Tokenizer.fromFolder(await made("bpe", { tokenizer_class: "ChatGLMTokenizer" }));
    assert.deepEqual(tokenizer.stopIds, [2, 406, 408]);
    assert.deepEqual([tokenizer.padId, tokenizer.vocabSize, tokenizer.prefixIds], [0, 409, [401, 403]]);
    for (const { messages, prompt, ids } of golden.chats)
      assert.deepEqual(tokenizer.encodeChat(messages, { addGenerationPrompt: prompt }), ids);
    const typed = tokenizer.encode("[gMASK]sop<|user|></s>", { addSpecialTokens: false });
    assert.ok(
      typed.every((id) => id > 2 && id < 400),
      typed.join(" "),
    );
    assert.deepEqual(tokenizer.encode("<|user|>", { addSpecialTokens: false, parseSpecial: true }), [406]);
  });
});

/** Protocol buffers by hand. */
const varint = (n: number): number[] => (n < 128 ? [n] : [(n & 127) | 128, ...varint(Math.floor(n / 128))]);
const bytesField = (number: number, content: readonly number[]): number[] => [
  ...varint(number * 8 + 2),
  ...varint(content.length),
  ...content,
];
const number = (field: number, value: number): number[] => [...varint(field * 8), ...varint(value)];
const text = (field: number, value: string): number[] => bytesField(field, [...Buffer.from(value)]);
const float = (field: number, value: number): number[] => [
  field * 8 + 5,
  ...new Uint8Array(Float32Array.of(value).buffer),
];
const piece = (spelling: string, type: number, score = 0): number[] =>
  bytesField(1, [...text(1, spelling), ...float(2, score), ...number(3, type)]);

describe("a tokenizer.model that cannot be used", () => {
  const good = [...piece("<unk>", 2), ...piece("a", 1, -1), ...piece("b", 1, -2), ...piece("ab", 1, -0.5)];
  const bpe = bytesField(2, number(3, 2));
  const refused = (bytes: readonly number[] | Uint8Array, message: RegExp): void => {
    const begin = performance.now();
    assert.throws(
      () => readSentencePiece(Uint8Array.from(bytes), "there/tokenizer.model"),
      (error: Error) => {
        assert.ok(error instanceof TokenizerError, `${error.name}: ${error.message}`);
        assert.match(error.message, message);
        assert.match(error.message, /^there\/tokenizer.model cannot be used: .*save_pretrained/);
        return true;
      },
    );
    assert.ok(performance.now() - begin < 5000);
  };

  it("is refused with the reason", () => {
    const model = readSentencePiece(Uint8Array.from([...good, ...bpe]), "x").model as { merges: unknown };
    assert.deepEqual(model.merges, [["a", "b"]]);
    const cases: [readonly number[], RegExp][] = [
      [[], /no pieces/],
      [[0x0a], /a number has no end/],
      [[0x0a, 0x7f, 1], /field 1 of 127 bytes does not fit/],
      [[0x0a, ...Array(11).fill(0x80)], /more than ten bytes/],
      [[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], /does not fit/],
      [[0x0b], /wire type 3/],
      [[0x07], /field has the number 0|wire type 7/],
      [[0x08, 1], /field 1 is a number/],
      [bytesField(1, [0x15, 1, 2]), /a 32-bit field of 4 bytes/],
      [bytesField(1, [0x0a, 2, 0xff, 0xfe]), /not valid|encoded data/],
      [bytesField(1, number(1, 3)), /a piece's text has another kind/],
      [bytesField(1, number(2, 3)), /a piece's score has another kind/],
      [bytesField(1, text(3, "x")), /a piece's type has another kind/],
      [piece("a", 1, Number.NaN), /score NaN/],
      [[...good, ...piece("a", 1), ...bpe], /pieces 1 and 4 are both "a"/],
      [[...good, ...piece("", 1), ...bpe], /piece 4 is empty/],
      [[...good, ...piece("c", 9), ...bpe], /type 9/],
      [[...piece("a", 1), ...bpe], /no piece for what is unknown/],
      [[...good, ...bytesField(2, number(3, 4))], /model type is 4/],
      [[...good, ...bytesField(2, [...number(3, 2), ...number(24, 1)])], /spaces behind words/],
      [[...good, ...bytesField(2, [...number(3, 2), ...number(35, 1)])], /no piece <0x00>/],
      [[...good, ...bpe, ...bytesField(3, bytesField(2, [1, 2, 3]))], /table of 3 bytes/],
      [[...good, ...bpe, ...bytesField(3, number(5, 0))], /leaves spaces/],
      [[...good, ...bytesField(3, text(3, "x"))], /add_dummy_prefix has another kind/],
    ];
    for (const [bytes, message] of cases) refused(bytes, message);
  });

  it("is refused before its pieces take too long", () => {
    const long = Buffer.alloc(20_000, "a");
    refused([...good, ...piece(long.toString(), 1), ...bpe], /too long to find their merges/);
    const pieces = Buffer.concat(Array.from({ length: 2 ** 20 + 1 }, () => Buffer.from([0x0a, 0])));
    refused(pieces, /more than 1048576 pieces/);
  });

  it("is refused wherever it is cut, or read as what is left", async () => {
    const whole = await readFile(join(fixtures, "bpe.model"));
    let read = 0;
    for (let length = 0; length < whole.length; length += 7) {
      try {
        readSentencePiece(whole.subarray(0, length), "x");
        read++;
      } catch (error) {
        assert.ok(error instanceof TokenizerError, String(error));
      }
    }
    assert.ok(read < 0.2 * (whole.length / 7), `${read}`);
    assert.equal([...fields(whole)].length, 402);
  });
});
