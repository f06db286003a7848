/**
 * The real tokenizers: llama.cpp's test strings, 2,000 rows there and back with the ids of the reference implementations, chats rendered by
 * jinja2, special tokens that a user types. Skipped where they are not at hand.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { gunzipSync } from "node:zlib";
import { encodeConversation } from "../../src/data/images.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { QWEN2_VL_PICTURES } from "../../src/images/patches.js";
import { shared } from "../shared.js";
import { digestOf, sharedRows } from "./shared-rows.js";

const folder: string = join(shared, "tokenizers");
const fixtures: string = join(import.meta.dirname, "../../../test/fixtures/hub");
const skip: string | false = existsSync(folder)
  ? false
  : `no real tokenizers in ${folder} (TUNEBOOK_SHARED names another place)`;

// Mistral, SmolLM2 and ChatGLM3 have no test strings of their own: their ids on Llama 3's are compared with the reference implementation's.
const VECTORS: readonly [string, string | undefined][] = [
  ["llama2", "llama-spm"],
  ["llama2/tokenizer.model", "llama-spm"],
  ["mistral-7b-v0.1", undefined],
  ["mistral-7b-v0.1/tokenizer.model", undefined],
  ["llama3", "llama-bpe"],
  ["qwen2", "qwen2"],
  ["qwen2-vl", "qwen2"],
  ["smollm2", undefined],
  ["starcoder", "refact"],
  ["starcoder2", "starcoder"],
  ["chatglm3/tokenizer.model", undefined],
];

const loaded = new Map<string, Promise<Tokenizer>>();

/** One of them, read once. */
function load(name: string): Promise<Tokenizer> {
  let found = loaded.get(name);
  if (found === undefined) loaded.set(name, (found = open(name)));
  return found;
}

/** "NAME/tokenizer.model" leaves a tokenizer.json out, qwen2-vl is made of qwen2 and its own tokens. */
async function open(name: string): Promise<Tokenizer> {
  const [base, only] = name.split("/") as [string, string?];
  if (only === undefined && base !== "qwen2-vl") return Tokenizer.fromFolder(join(folder, base));
  const made = await mkdtemp(join(tmpdir(), "tunebook-tokenizer-"));
  try {
    for (const file of ["tokenizer.model", "tokenizer_config.json", "chat_template.jinja"])
      if (existsSync(join(folder, base, file)))
        await writeFile(join(made, file), await readFile(join(folder, base, file)));
    if (base === "qwen2-vl") {
      const json = JSON.parse(gunzipSync(await readFile(join(folder, "qwen2/tokenizer.json.gz"))).toString());
      const more = JSON.parse(await readFile(join(folder, base, "extra_added_tokens.json"), "utf8"));
      json.added_tokens.push(...more);
      await writeFile(join(made, "tokenizer.json"), JSON.stringify(json));
    }
    return await Tokenizer.fromFolder(made);
  } finally {
    await rm(made, { recursive: true });
  }
}

describe("real tokenizers", { skip }, () => {
  for (const [name, vectors] of VECTORS) {
    it(name, async () => {
      const tokenizer = await load(name);
      const inputs = await readFile(join(folder, "vectors", `${vectors ?? "llama-bpe"}.inp`), "utf8");
      const texts = inputs.split("\n__ggml_vocab_test__\n");
      assert.equal(texts.length, 47);
      const outputs = vectors && (await readFile(join(folder, "vectors", `${vectors}.out`), "utf8")).split("\n");
      const all = texts.map((text) => tokenizer.encode(text, { addSpecialTokens: false }));
      all.forEach((ids, i) => {
        const text = texts[i]!;
        if (outputs) assert.equal(ids.join(" "), outputs[i]!.trim(), JSON.stringify(text));
        assert.equal(tokenizer.decode(ids), tokenizer.decode(ids).length === 0 ? "" : text);
        const stream = tokenizer.streamDecoder();
        const parts = ids.map((id) => stream.push(id));
        assert.ok(
          parts.every((part) => part.isWellFormed() && !part.includes("\ufffd")),
          JSON.stringify(text),
        );
        assert.equal(parts.join("") + stream.end(), tokenizer.decode(ids));
      });
      const expected = JSON.parse(await readFile(join(fixtures, "shared-ids.json"), "utf8"));
      const hashes = expected[name === "qwen2-vl" ? "qwen2" : name];
      assert.equal(digestOf(all), hashes.strings);
      const rows = await sharedRows(shared);
      assert.equal(rows.length, 2000);
      const ids = rows.map((row) => tokenizer.encode(row, { addSpecialTokens: false }));
      assert.equal(digestOf(ids), hashes.rows);
      // Qwen's normalizer composes characters; nothing else may change.
      const normal = (text: string): string => (name.startsWith("qwen") ? text.normalize("NFC") : text);
      rows.forEach((row, i) => void assert.equal(tokenizer.decode(ids[i]!), normal(row)));
    });
  }

  for (const name of VECTORS.map(([name]) => name)) {
    it(`${name}: chats, and special tokens that somebody types`, async () => {
      const tokenizer = await load(name);
      const specials = Array.from({ length: tokenizer.vocabSize }, (_, id) => id).filter((id) =>
        tokenizer.isSpecial(id),
      );
      assert.ok(specials.length > 0);
      const isSpecial = new Set(specials);
      for (const id of specials.length > 40 ? specials.slice(0, 40) : specials) {
        const spelled = tokenizer.tokenOf(id)!;
        for (const text of [spelled, ` ${spelled}`, `a${spelled}b`, `${spelled}${spelled}\n`, `\n${spelled} x`]) {
          const ids = tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: false });
          assert.deepEqual(
            ids.filter((i) => isSpecial.has(i)),
            [],
            text,
          );
          assert.equal(tokenizer.decode(ids), text);
        }
      }
      const chat = JSON.parse(await readFile(join(folder, "vectors/chat_rendered.json"), "utf8"));
      const rendered: string | undefined = chat.rendered[name.split("/")[0]!];
      if (rendered === undefined) return assert.ok(name.startsWith("starcoder"));
      const options = { addGenerationPrompt: chat.add_generation_prompt };
      assert.equal(tokenizer.applyChatTemplate(chat.messages, options), rendered);
      const ids = tokenizer.encodeChat(chat.messages, options);
      assert.deepEqual(ids, tokenizer.encode(rendered, { addSpecialTokens: false, parseSpecial: true }));
      const count = (list: number[]): number => list.filter((id) => isSpecial.has(id)).length;
      for (const id of specials.slice(0, 40)) {
        const typed = `Hi${tokenizer.tokenOf(id)}there`;
        const mine = chat.messages.map((m: { role: string }, i: number) => (i === 2 ? { ...m, content: typed } : m));
        const encoded = tokenizer.encodeChat(mine, options);
        assert.equal(count(encoded), count(ids), typed);
        assert.ok(tokenizer.decode(encoded).includes(typed), typed);
      }
    });
  }

  it("an answer ends at the end of a turn, also where the end of text is another token", async () => {
    const stops = async (name: string) => [...(await load(name)).stopIds];
    assert.deepEqual(await stops("llama3"), [128001, 128009]); // <|end_of_text|>, <|eot_id|>
    assert.deepEqual(await stops("llama2"), [2]);
    assert.deepEqual(await stops("mistral-7b-v0.1"), [2]);
    const qwen = await load("qwen2");
    assert.ok(qwen.stopIds.includes(qwen.idOf("<|im_end|>")!));
    assert.deepEqual(await stops("starcoder"), [0]);
  });

  it("ChatGLM3's commands are ids that no text has", async () => {
    const tokenizer = await load("chatglm3/tokenizer.model");
    const names = [
      "[MASK]",
      "[gMASK]",
      "[sMASK]",
      "sop",
      "eop",
      "<|system|>",
      "<|user|>",
      "<|assistant|>",
      "<|observation|>",
    ];
    assert.deepEqual(
      names.map((token) => tokenizer.idOf(token)),
      [64789, 64790, 64791, 64792, 64793, 64794, 64795, 64796, 64797],
    );
    assert.deepEqual([tokenizer.bosId, tokenizer.eosId, tokenizer.padId, tokenizer.vocabSize], [1, 2, 0, 64798]);
    assert.deepEqual(tokenizer.stopIds, [2, 64795, 64797]);
    assert.deepEqual(tokenizer.prefixIds, [64790, 64792]);
    assert.ok(
      tokenizer
        .encode(`${names.join(" ")} <s> </s> <unk>`, { addSpecialTokens: false })
        .every((id) => id > 2 && id < 64789),
    );
    // As tokenization_chatglm.py's build_chat_input gives it.
    const ids = tokenizer.encodeChat([{ role: "user", content: "Hello" }], { addGenerationPrompt: true });
    assert.deepEqual(ids, [64790, 64792, 64795, 30910, 13, 13755, 64796]);
  });

  it("qwen2-vl: images take as many tokens as their text would spell", async () => {
    const tokenizer = await load("qwen2-vl");
    const images = join(import.meta.dirname, "../../../test/fixtures/golden/images");
    const show = (name: string) => ({ type: "image", image: join(images, name) });
    const content = [show("photo.jpg"), { type: "text", text: "beside <|image_pad|>" }, show("wide.png")];
    const messages = [{ role: "user", content }];
    const sight = { imageToken: 151655, settings: QWEN2_VL_PICTURES };
    const { ids, pictures } = await encodeConversation(tokenizer, messages, sight);
    assert.deepEqual(pictures.map((picture) => picture.tokens), [12, 10]); // biome-ignore format: one thought
    // What transformers' processor does: the text spells the token as often as the image takes it, and is encoded then.
    const places = (count: number): string => `<|vision_start|>${"<|image_pad|>".repeat(count)}<|vision_end|>`;
    const [system, end] = [
      "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
      "<|im_end|>\n<|im_start|>assistant\n",
    ];
    const typed = tokenizer.encode("beside <|image_pad|>", { parseSpecial: false });
    const want = [...tokenizer.encode(system + places(12)), ...typed, ...tokenizer.encode(places(10) + end)];
    assert.deepEqual(ids, want);
  });
});
