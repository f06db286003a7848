/**
 * ChatGLM2's and ChatGLM3's tokenizer, which transformers knows only as code beside the weights (tokenization_chatglm.py): a sentencepiece
 * model, and behind it commands that are ids alone. They stand in no text: "<|user|>" that somebody types is seven or more tokens of text.
 */
import { isObject, type Json, type JsonObject, own } from "./json.js";

/** Behind the pieces, in this order. */
const COMMANDS = "[MASK] [gMASK] [sMASK] sop eop <|system|> <|user|> <|assistant|> <|observation|>".split(" ");
/** A turn of somebody else: the assistant's own has ended. */
const OTHERS = ["<|user|>", "<|observation|>"];

// What build_chat_input writes: role, metadata, a line break, the content, which the tokenizer begins with a space. Tools stand in the
// content of the system's turn, as json.dumps(tools, indent=4, ensure_ascii=False).
const TEMPLATE =
  "[gMASK]sop{% for message in messages %}<|{{ message['role'] }}|>{{ message['metadata'] or '' }}\n {{ message['content'] }}" +
  "{% if message['tools'] %}{{ '\\n' }}{{ message['tools'] | tojson(indent=4) }}{% endif %}{% endfor %}" +
  "{% if add_generation_prompt %}<|assistant|>{% endif %}";

/** Whether a tokenizer_config.json names this tokenizer. */
export function isChatGlm(config: JsonObject): boolean {
  return own(config, "tokenizer_class") === "ChatGLMTokenizer";
}

/** The tokenizer.json of the pieces with the commands added, and [gMASK] sop before each text. */
export function withCommands(tokenizer: JsonObject): JsonObject {
  const model = own(tokenizer, "model");
  const vocab = isObject(model) ? own(model, "vocab") : undefined;
  const count = Array.isArray(vocab) ? vocab.length : isObject(vocab) ? Object.keys(vocab).length : 0;
  const shape = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const added = COMMANDS.map((content, i): JsonObject => ({ id: count + i, content, ...shape }));
  const before = own(tokenizer, "added_tokens");
  const prefix = ["[gMASK]", "sop"];
  const single: Json[] = [
    ...prefix.map((id) => ({ SpecialToken: { id, type_id: 0 } })),
    { Sequence: { id: "A", type_id: 0 } },
  ];
  return {
    ...tokenizer,
    added_tokens: [...(Array.isArray(before) ? before : []), ...added],
    post_processor: {
      type: "TemplateProcessing",
      single,
      pair: [...single, { Sequence: { id: "B", type_id: 0 } }],
      special_tokens: Object.fromEntries(
        prefix.map((id) => [id, { id, ids: [count + COMMANDS.indexOf(id)], tokens: [id] }]),
      ),
    },
  };
}

/** What the code says and the config does not. */
export function chatGlmConfig(config: JsonObject): JsonObject {
  return { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>", pad_token: "<unk>", ...config };
}

/** The template of build_chat_input, for a folder without one. */
export const CHATGLM_TEMPLATE: string = TEMPLATE;
/** Tokens, beside the end of text, at which an answer ends. */
export const CHATGLM_STOPS: readonly string[] = OTHERS;
