/** A tokenizer as the metadata of a GGUF file: the inverse of gguf-tokenizer.ts. */
import { isDeepStrictEqual } from "node:util";
import { TokenizerError } from "../errors.js";
import type { GgufValue } from "./gguf.js";
import { BYTE_TOKEN, GLM_PREFIXES, ggufTokenizer, PRE_TOKENIZERS, wordMerges } from "./gguf-tokenizer.js";
import type { GgufField } from "./gguf-write.js";
import { describe, isObject, type Json, type JsonObject, own } from "./json.js";
import type { Tokenizer } from "./tokenizer.js";

/** tokenizer.ggml.token_type */
const TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/**
 * The fields under "tokenizer.": vocabulary, merges or scores, ids, chat template.
 *
 * @param rows of the embedding: ids that no token has get a name of their own, as llama.cpp's converter gives them.
 * @throws TokenizerError for a tokenizer that llama.cpp has no form for.
 */
export function tokenizerFields(tokenizer: Tokenizer, rows: number): Map<string, GgufField> {
  const { source } = tokenizer;
  const model = own(source, "model");
  if (!isObject(model) || own(model, "type") !== "BPE") throw refused('its model is of another kind than "BPE"');
  if (tokenizer.vocabSize > rows)
    throw refused(`it has ${tokenizer.vocabSize} tokens for ${rows} rows of the embedding`);
  const vocabulary = vocabularyOf(tokenizer, model, rows);
  const fields = new Map<string, GgufField>();
  const ids = new Map(vocabulary.tokens.map((token, id) => [token, id]));
  if (own(model, "byte_fallback") === true) {
    fields.set("tokenizer.ggml.model", { kind: "string", value: "llama" });
    fields.set("tokenizer.ggml.pre", {
      kind: "string",
      value: hasPrefix(tokenizer, "chatglm-spm") ? "chatglm-spm" : "default",
    });
    const scores = scoresOf(model, vocabulary, ids);
    fields.set("tokenizer.ggml.scores", { kind: "float32s", value: scores });
    fields.set("tokenizer.ggml.add_space_prefix", { kind: "bool", value: prependsSpace(source) });
    if (removesSpaces(source)) fields.set("tokenizer.ggml.remove_extra_whitespaces", { kind: "bool", value: true });
  } else {
    fields.set("tokenizer.ggml.model", { kind: "string", value: "gpt2" });
    fields.set("tokenizer.ggml.pre", { kind: "string", value: preTokenizer(source, model) });
    fields.set("tokenizer.ggml.merges", { kind: "strings", value: mergesOf(model).map((pair) => pair.join(" ")) });
  }
  fields.set("tokenizer.ggml.tokens", { kind: "strings", value: vocabulary.tokens });
  fields.set("tokenizer.ggml.token_type", { kind: "int32s", value: vocabulary.types });
  const id = (name: string, value: number | undefined): void => {
    if (value !== undefined) fields.set(`tokenizer.ggml.${name}_token_id`, { kind: "uint32", value });
  };
  id("bos", tokenizer.bosId);
  id("eos", tokenizer.eosId);
  id("padding", tokenizer.padId);
  const unknown = own(model, "unk_token");
  id("unknown", typeof unknown === "string" ? tokenizer.idOf(unknown) : undefined);
  const suffix = tokenizer.encode("").slice(tokenizer.prefixIds.length);
  const bos = tokenizer.bosId !== undefined && tokenizer.prefixIds[0] === tokenizer.bosId;
  const eos = tokenizer.eosId !== undefined && suffix[0] === tokenizer.eosId;
  const pre = fields.get("tokenizer.ggml.pre")!.value as string;
  if (!(hasPrefix(tokenizer, pre) || tokenizer.prefixIds.length === (bos ? 1 : 0)) || suffix.length !== (eos ? 1 : 0))
    throw refused(
      `it puts ${tokenizer.prefixIds.length + suffix.length} tokens around a text, and such a file knows the BOS and the EOS alone`,
    );
  fields.set("tokenizer.ggml.add_bos_token", { kind: "bool", value: bos });
  fields.set("tokenizer.ggml.add_eos_token", { kind: "bool", value: eos });
  const template = tokenizer.chatTemplate;
  if (template !== undefined) fields.set("tokenizer.chat_template", { kind: "string", value: template });
  compareWithFields(tokenizer, fields);
  return fields;
}

// Where what has no field in such a file would show: cases, accents, digits, characters beyond the vocabulary, spaces.
const PROBES: readonly string[] = [
  "The Quick brown fox isn't here, is it?!",
  "two  spaces, 1234567 + 3.14 = x_2;\n\n\tif (a) {\r\n",
  "na\u00efve caf\u00e9 cafe\u0301 \ufb01\u00bd \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u{1f642}\u200d\u{1f680}",
];

/** Reads the fields as `loadModel` does. @throws TokenizerError when they give a text other ids, with that text. */
function compareWithFields(tokenizer: Tokenizer, fields: ReadonlyMap<string, GgufField>): void {
  const metadata = new Map([...fields].map(([key, { value }]) => [key, value as GgufValue]));
  const again = ggufTokenizer({ path: "the file", metadata });
  const differs = PROBES.find((text) => !isDeepStrictEqual(again.encode(text), tokenizer.encode(text)));
  if (differs !== undefined) throw refused(`read back from there, ${describe(differs)} has other ids`);
}

/** Whether a tokenizer begins texts as those do that have this name for how words are split. */
function hasPrefix(tokenizer: Tokenizer, pre: string): boolean {
  const prefix = Object.hasOwn(GLM_PREFIXES, pre) ? GLM_PREFIXES[pre]! : undefined;
  return isDeepStrictEqual(
    prefix,
    tokenizer.prefixIds.map((id) => tokenizer.tokenOf(id)),
  );
}

function refused(reason: string): TokenizerError {
  return new TokenizerError(
    `export: this tokenizer cannot be written to a GGUF file: ${reason}. Export as "safetensors", and let llama.cpp's convert_hf_to_gguf.py make the file.`,
  );
}

function vocabularyOf(tokenizer: Tokenizer, model: JsonObject, rows: number): { tokens: string[]; types: number[] } {
  const unknown = own(model, "unk_token");
  const added = own(tokenizer.source, "added_tokens");
  const userDefined = new Set<string>();
  for (const token of Array.isArray(added) ? added : [])
    if (isObject(token) && own(token, "special") !== true) userDefined.add(String(own(token, "content")));
  const tokens: string[] = [];
  const types: number[] = [];
  for (let id = 0; id < rows; id++) {
    const token = tokenizer.tokenOf(id);
    tokens.push(token ?? `[PAD${id}]`);
    if (token === undefined) types.push(TYPE.unused);
    else if (token === unknown && own(model, "byte_fallback") === true) types.push(TYPE.unknown);
    else if (tokenizer.isSpecial(id)) types.push(TYPE.control);
    else if (userDefined.has(token)) types.push(TYPE.userDefined);
    else types.push(own(model, "byte_fallback") === true && BYTE_TOKEN.test(token) ? TYPE.byte : TYPE.normal);
  }
  return { tokens, types };
}

function mergesOf(model: JsonObject): [string, string][] {
  const merges = own(model, "merges");
  if (!Array.isArray(merges)) throw refused("it has no list of merges");
  return merges.map((merge: Json) => {
    // Older files write a pair as one string.
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((part) => typeof part === "string"))
      throw refused(`a merge is ${describe(merge)}`);
    return pair as [string, string];
  });
}

function preTokenizer(source: JsonObject, model: JsonObject): string {
  const normalizer = own(source, "normalizer") ?? null;
  // Where offsets begin says nothing about tokens.
  const plain = (value: Json | undefined): unknown =>
    JSON.parse(JSON.stringify(value ?? null, (key, inner) => (key === "trim_offsets" ? undefined : inner)));
  const found = PRE_TOKENIZERS.find(
    ({ part, normalizer: wanted = null, whole = false }) =>
      isDeepStrictEqual(plain(own(source, "pre_tokenizer")), plain(part)) &&
      isDeepStrictEqual(plain(normalizer), plain(wanted)) &&
      (own(model, "ignore_merges") === true) === whole,
  );
  if (found === undefined)
    throw refused(
      `its words are split in a way that has no name there; known are those of ${PRE_TOKENIZERS.map(({ write }) => write).join(", ")}`,
    );
  return found.write;
}

// Below all merges: llama.cpp would join letters of a text to such a token.
const NEVER = -1e9;

/** A score for each token that a merge makes, falling with the merge's place: llama.cpp joins whatever is a token, the highest score first. */
function scoresOf(
  model: JsonObject,
  { tokens, types }: { tokens: readonly string[]; types: readonly number[] },
  ids: ReadonlyMap<string, number>,
): number[] {
  const merges = mergesOf(model);
  const scores = types.map((type): number => (type === TYPE.control || type === TYPE.unused ? NEVER : 0));
  const scored = new Set<number>();
  for (const [left, right] of merges) {
    const id = ids.get(left + right);
    if (id === undefined) throw refused(`the merge of ${describe(left)} and ${describe(right)} makes no token`);
    if (scored.has(id)) continue;
    scored.add(id);
    scores[id] = -scored.size;
  }
  if (wordMerges(tokens, types, scores, ids).length !== merges.length)
    throw refused("its merges are not all pairs that make a token, as those of a sentencepiece vocabulary are");
  return scores;
}

function removesSpaces(source: JsonObject): boolean {
  return JSON.stringify(own(source, "normalizer") ?? null).includes('" {2,}"');
}

function prependsSpace(source: JsonObject): boolean {
  const text = JSON.stringify([own(source, "normalizer") ?? null, own(source, "pre_tokenizer") ?? null]);
  return (
    text.includes('"Prepend"') ||
    text.includes('"prepend_scheme":"first"') ||
    text.includes('"prepend_scheme":"always"')
  );
}
