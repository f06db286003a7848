/** The real tokenizers, against the test strings of llama.cpp and chats rendered by jinja2. Skipped where they are not at hand. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Tokenizer } from "../../src/hub/tokenizer.js";

const shared: string = process.env.TUNEBOOK_SHARED ?? join(import.meta.dirname, "../../../../shared");
const folder: string = join(shared, "tokenizers");
const skip: string | false = existsSync(folder)
  ? false
  : `no real tokenizers in ${folder} (TUNEBOOK_SHARED names another place)`;

// Mistral and SmolLM2 have no test strings of their own: they are checked by their chats and by going there and back.
const VECTORS: readonly [string, string | undefined][] = [
  ["llama2", "llama-spm"],
  ["mistral-7b-v0.1", undefined],
  ["llama3", "llama-bpe"],
  ["qwen2", "qwen2"],
  ["smollm2", undefined],
  ["starcoder", "refact"],
  ["starcoder2", "starcoder"],
];

describe("real tokenizers", { skip }, () => {
  for (const [name, vectors] of VECTORS) {
    it(name, async () => {
      const tokenizer = await Tokenizer.fromFolder(join(folder, name));
      const inputs = await readFile(join(folder, "vectors", `${vectors ?? "llama-bpe"}.inp`), "utf8");
      const texts = inputs.split("\n__ggml_vocab_test__\n");
      assert.equal(texts.length, 47);
      const outputs = vectors && (await readFile(join(folder, "vectors", `${vectors}.out`), "utf8")).split("\n");
      texts.forEach((text, i) => {
        const ids = tokenizer.encode(text, { addSpecialTokens: false });
        if (outputs) assert.equal(ids.join(" "), outputs[i]!.trim(), JSON.stringify(text));
        assert.equal(tokenizer.decode(ids), tokenizer.decode(ids).length === 0 ? "" : text);
        const stream = tokenizer.streamDecoder();
        assert.equal(ids.map((id) => stream.push(id)).join("") + stream.end(), tokenizer.decode(ids));
      });
      const chat = JSON.parse(await readFile(join(folder, "vectors/chat_rendered.json"), "utf8"));
      const rendered: string | undefined = chat.rendered[name];
      if (rendered === undefined) return;
      const options = { addGenerationPrompt: chat.add_generation_prompt };
      assert.equal(tokenizer.applyChatTemplate(chat.messages, options), rendered);
      const ids = tokenizer.encodeChat(chat.messages, options);
      assert.deepEqual(ids, tokenizer.encode(rendered, { addSpecialTokens: false }));
    });
  }
});
