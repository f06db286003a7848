/** The tokenizer that a GGUF file's metadata describes, written as tokenizer.json and tokenizer_config.json would say it. */
import { TokenizerError } from "../errors.js";
import { chatGlmConfig } from "./chatglm-tokenizer.js";
import type { GgufFile } from "./gguf.js";
import type { JsonObject } from "./json.js";
import { describe, type Json } from "./json.js";
import { mergesByScore } from "./merges.js";
import { MAX_MERGE_WORK, sentencePieceSpaces } from "./sentencepiece.js";
import { Tokenizer } from "./tokenizer.js";

// tokenizer.ggml.token_type
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

interface Vocabulary {
  tokens: readonly string[];
  types: readonly number[];
  /** Which tokens stand for themselves wherever they are spelled. */
  added: JsonObject[];
  /** Token → id. */
  ids: ReadonlyMap<string, number>;
}

/** Makes the tokenizer. @throws TokenizerError when the metadata has none, or one of a kind that is not known. */
export function ggufTokenizer(file: Pick<GgufFile, "metadata" | "path">): Tokenizer {
  const fields = new Fields(file);
  const kind = fields.string("tokenizer.ggml.model");
  const vocabulary = readVocabulary(fields);
  if (kind === "gpt2") return make(fields, vocabulary, byteLevel(fields, vocabulary), fields.preAddsBos());
  if (kind === "llama") return make(fields, vocabulary, sentencePiece(fields, vocabulary), true);
  throw fields.error(`tokenizer.ggml.model is ${describe(kind)}, expected "gpt2" or "llama"`);
}

/** Metadata with the kinds that are expected. */
class Fields {
  readonly #file: Pick<GgufFile, "metadata" | "path">;

  constructor(file: Pick<GgufFile, "metadata" | "path">) {
    this.#file = file;
  }

  error(reason: string): TokenizerError {
    return new TokenizerError(
      `The tokenizer of ${this.#file.path} cannot be used: ${reason}. Give loadModel a folder that has tokenizer.json instead.`,
    );
  }

  has(key: string): boolean {
    return this.#file.metadata.has(key);
  }

  string(key: string, standard?: string): string {
    const value = this.#file.metadata.get(key) ?? standard;
    if (typeof value !== "string") throw this.error(`${key} is ${describe(value)}, expected a string`);
    return value;
  }

  boolean(key: string, standard: boolean): boolean {
    const value = this.#file.metadata.get(key) ?? standard;
    if (typeof value !== "boolean") throw this.error(`${key} is ${describe(value)}, expected true or false`);
    return value;
  }

  strings(key: string): string[] {
    return this.#array(key, "strings", (v) => typeof v === "string") as string[];
  }

  numbers(key: string, length: number): number[] {
    const values = this.#array(key, "numbers", (v) => typeof v === "number" && !Number.isNaN(v)) as number[];
    if (values.length !== length) throw this.error(`${key} has ${values.length} elements for ${length} tokens`);
    return values;
  }

  #array(key: string, of: string, check: (value: unknown) => boolean): unknown[] {
    const value = this.#file.metadata.get(key);
    if (!Array.isArray(value) || !(value as unknown[]).every(check))
      throw this.error(`${key} is ${describe(value)}, expected an array of ${of}`);
    return value;
  }

  /** The token of an id field. */
  token(key: string, tokens: readonly string[]): string | undefined {
    const id = this.#file.metadata.get(key);
    if (id === undefined) return undefined;
    const token = typeof id === "number" ? tokens[id] : undefined;
    if (token === undefined) throw this.error(`${key} is ${describe(id)}, expected an id below ${tokens.length}`);
    return token;
  }

  /** Llama 3's vocabulary begins texts with a BOS where the file does not say. */
  preAddsBos(): boolean {
    return LLAMA3_NAMES.includes(this.string("tokenizer.ggml.pre", "default"));
  }
}

function readVocabulary(fields: Fields): Vocabulary {
  const tokens = fields.strings("tokenizer.ggml.tokens");
  const types = fields.has("tokenizer.ggml.token_type")
    ? fields.numbers("tokenizer.ggml.token_type", tokens.length)
    : tokens.map(() => 1);
  const ids = new Map<string, number>();
  const added: JsonObject[] = [];
  tokens.forEach((content, id) => {
    // The first of two equal spellings is the one that text becomes.
    if (!ids.has(content)) ids.set(content, id);
    const type = types[id]!;
    if (type !== CONTROL && type !== USER_DEFINED && type !== UNKNOWN) return;
    const special = type !== USER_DEFINED;
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special });
  });
  return { tokens, types, added, ids };
}

/** The parts of tokenizer.json that a kind of tokenizer decides. */
interface Parts {
  normalizer: Json;
  pre_tokenizer: Json;
  decoder: Json;
  model: JsonObject;
  tokenizerClass: string;
}

function make(fields: Fields, vocabulary: Vocabulary, parts: Parts, bosByDefault: boolean): Tokenizer {
  const { tokens, added } = vocabulary;
  const { tokenizerClass, ...rest } = parts;
  const bos = fields.token("tokenizer.ggml.bos_token_id", tokens);
  const eos = fields.token("tokenizer.ggml.eos_token_id", tokens);
  const glm = GLM_PREFIXES[fields.string("tokenizer.ggml.pre", "default")];
  const before = fields.boolean("tokenizer.ggml.add_bos_token", bosByDefault && glm === undefined) ? bos : undefined;
  const after = fields.boolean("tokenizer.ggml.add_eos_token", false) ? eos : undefined;
  let config: JsonObject = {
    bos_token: bos ?? null,
    eos_token: eos ?? null,
    pad_token: fields.token("tokenizer.ggml.padding_token_id", tokens) ?? null,
    unk_token: fields.token("tokenizer.ggml.unknown_token_id", tokens) ?? null,
    clean_up_tokenization_spaces: false,
    tokenizer_class: tokenizerClass,
  };
  // Its ids are fixed, and files leave them out.
  if (tokenizerClass === CHATGLM)
    config = { ...config, ...chatGlmConfig({ bos_token: tokens[1]!, eos_token: tokens[2]! }) };
  if (fields.has("tokenizer.chat_template")) config.chat_template = fields.string("tokenizer.chat_template");
  const prefix = glm?.every((token) => vocabulary.ids.has(token)) ? glm : before === undefined ? [] : [before];
  const source = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    ...rest,
    post_processor: around(prefix, after === undefined ? [] : [after], vocabulary.ids),
  };
  return Tokenizer.fromParsed(source, config, vocabulary.ids);
}

/** The post-processor that puts tokens around a text. */
function around(before: readonly string[], after: readonly string[], ids: ReadonlyMap<string, number>): Json {
  const used = [...before, ...after];
  if (used.length === 0) return null;
  const special = (token: string): Json => ({ SpecialToken: { id: token, type_id: 0 } });
  const single: Json[] = [...before.map(special), { Sequence: { id: "A", type_id: 0 } }, ...after.map(special)];
  return {
    type: "TemplateProcessing",
    single,
    pair: [...single, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens: Object.fromEntries(used.map((id) => [id, { id, ids: [ids.get(id)!], tokens: [id] }])),
  };
}

const CHATGLM = "ChatGLMTokenizer";
/** What stands before each text of ChatGLM's, by tokenizer.ggml.pre: llama.cpp leaves it to the chat template, the models want it always. */
export const GLM_PREFIXES: Readonly<Record<string, readonly string[]>> = {
  "chatglm-spm": ["[gMASK]", "sop"],
  "chatglm-bpe": ["[gMASK]", "<sop>"],
  glm4: ["[gMASK]", "<sop>"],
};

const LLAMA3_NAMES = ["llama3", "llama-v3", "llama-bpe", "falcon3", "smaug-bpe"];
const WORDS = {
  llama3:
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  qwen2:
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
};
const BYTE_LEVEL = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };

function sequence(...pretokenizers: Json[]): JsonObject {
  return { type: "Sequence", pretokenizers };
}

function split(pattern: string): JsonObject {
  const part = { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
  return sequence(part, { ...BYTE_LEVEL, use_regex: false });
}

/** A token that stands for one byte. */
export const BYTE_TOKEN: RegExp = /^<0x[0-9A-F]{2}>$/;

/** How words are split, by `tokenizer.ggml.pre`; `write` is the name that is written. */
export const PRE_TOKENIZERS: readonly {
  names: readonly string[];
  write: string;
  part: JsonObject;
  normalizer?: JsonObject;
  whole?: boolean;
}[] = [
  {
    names: ["default", "gpt-2", "gpt2", "mpt", "olmo", "phi-2", "jina-en", "roberta-bpe"],
    write: "gpt-2",
    part: BYTE_LEVEL,
  },
  {
    names: ["smollm", "starcoder", "refact", "command-r", "codeshell"],
    write: "smollm",
    part: sequence({ type: "Digits", individual_digits: true }, BYTE_LEVEL),
  },
  // `whole`: a word that the vocabulary has is taken without merging.
  { names: LLAMA3_NAMES, write: "llama-bpe", part: split(WORDS.llama3), whole: true },
  { names: ["chatglm-bpe", "glm4"], write: "chatglm-bpe", part: split(WORDS.llama3) },
  { names: ["qwen2", "deepseek-r1-qwen"], write: "qwen2", part: split(WORDS.qwen2), normalizer: { type: "NFC" } },
];

function byteLevel(fields: Fields, { ids }: Vocabulary): Parts {
  const pre = fields.string("tokenizer.ggml.pre", "default");
  const found = PRE_TOKENIZERS.find(({ names }) => names.includes(pre));
  if (found === undefined)
    throw fields.error(
      `tokenizer.ggml.pre is ${describe(pre)}, known are ${PRE_TOKENIZERS.flatMap(({ names }) => names).join(", ")}`,
    );
  return {
    normalizer: found.normalizer ?? null,
    pre_tokenizer: found.part,
    decoder: { ...BYTE_LEVEL, add_prefix_space: true },
    model: bpe(ids, fields.strings("tokenizer.ggml.merges"), { ignore_merges: found.whole === true }),
    tokenizerClass: "GPT2Tokenizer",
  };
}

function bpe(ids: ReadonlyMap<string, number>, merges: string[] | [string, string][], more: JsonObject): JsonObject {
  const model: JsonObject = {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    ...more,
    vocab: null,
    merges: merges as Json,
  };
  // An object of so many names is slow to make, and only saving asks for it.
  let vocab: JsonObject | undefined;
  const get = (): JsonObject => {
    if (vocab === undefined) {
      vocab = Object.create(null) as JsonObject;
      for (const [token, id] of ids) vocab[token] = id;
    }
    return vocab;
  };
  return Object.defineProperty(model, "vocab", { get, enumerable: true });
}

function sentencePiece(fields: Fields, { tokens, types, ids }: Vocabulary): Parts {
  const scores = fields.numbers("tokenizer.ggml.scores", tokens.length);
  const prefix = fields.boolean("tokenizer.ggml.add_space_prefix", true);
  const glm = fields.string("tokenizer.ggml.pre", "default") === "chatglm-spm";
  if (tokens.reduce((sum, { length }) => sum + length ** 2, 0) > MAX_MERGE_WORK)
    throw fields.error("its tokens are too long to find their merges");
  return {
    ...sentencePieceSpaces(prefix, fields.boolean("tokenizer.ggml.remove_extra_whitespaces", false)),
    pre_tokenizer: null,
    model: bpe(ids, wordMerges(tokens, types, scores, ids), {
      unk_token: fields.token("tokenizer.ggml.unknown_token_id", tokens) ?? null,
      fuse_unk: true,
      byte_fallback: true,
    }),
    tokenizerClass: glm ? CHATGLM : "LlamaTokenizer",
  };
}

/** The merges of a sentencepiece vocabulary: of words alone, as what stands for itself (a role, a byte) is no part of them. */
export function wordMerges(
  tokens: readonly string[],
  types: readonly number[],
  scores: readonly number[],
  ids: ReadonlyMap<string, number>,
): [string, string][] {
  const words = tokens.flatMap((token, id) =>
    (types[id] === NORMAL || types[id] === USER_DEFINED) && ids.get(token) === id ? [id] : [],
  );
  const sides: Record<string, number> = Object.create(null);
  for (const id of words) sides[tokens[id]!] = id;
  return mergesByScore(
    words.map((id) => tokens[id]!),
    words.map((id) => scores[id]!),
    sides,
  );
}
