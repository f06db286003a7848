/** Checks of a tokenizer.json and its config before the library makes tables of them: what it would take for granted is not. */
import { TokenizerError } from "../errors.js";
import { describe, isObject, type Json, type JsonObject, own } from "./json.js";

// No vocabulary comes near this.
const MAX_TOKENS = 2 ** 22;
const MAX_PATTERN = 100_000;
const TOKEN_NAMES = "bos eos unk pad sep cls mask".split(" ").map((name) => `${name}_token`);

/**
 * Checks vocabulary, merges, added tokens and patterns.
 *
 * @param vocabulary The model's, where it is known beside it: then it is checked instead.
 * @returns Token → id of the vocabulary, undefined for one with scores.
 * @throws TokenizerError naming what is wrong.
 */
export function checkTokenizer(
  source: JsonObject,
  where: string,
  vocabulary?: ReadonlyMap<string, number>,
): ReadonlyMap<string, number> | undefined {
  const fail = failing(where);
  const model = own(source, "model");
  if (!isObject(model)) fail(`"model" is ${describe(model)}, expected an object`);
  for (const name of ["normalizer", "pre_tokenizer", "post_processor", "decoder"]) {
    const part = own(source, name);
    if (part !== undefined && part !== null && !isObject(part))
      fail(`"${name}" is ${describe(part)}, expected an object or null`);
    checkParts(part, name, fail, 0);
  }
  const vocab = vocabulary === undefined ? own(model as JsonObject, "vocab") : Object.create(null);
  const tokens = vocabulary ?? new Map(isObject(vocab) ? Object.entries(vocab) : []);
  const count = Array.isArray(vocab) ? vocab.length : tokens.size;
  const added = own(source, "added_tokens") ?? [];
  if (!Array.isArray(added)) fail(`"added_tokens" is ${describe(added)}, expected a list`);
  // Ids with large gaps would make large, empty tables.
  const most = Math.min(MAX_TOKENS, 2 * (count + (added as Json[]).length) + 2 ** 17);
  const isId = (id: unknown): boolean => Number.isInteger(id) && (id as number) >= 0 && (id as number) < most;
  checkAdded(added as Json[], isId, most, fail);
  if (Array.isArray(vocab)) checkUnigram(model as JsonObject, vocab, fail);
  else if (isObject(vocab)) {
    const seen = new Uint8Array(most);
    for (const [token, id] of tokens) {
      if (!isId(id)) fail(`token ${describe(token)} has the id ${describe(id)}, expected a whole number below ${most}`);
      if (seen[id as number] === 1) fail(`token ${describe(token)} has the id ${String(id)}, as another has`);
      seen[id as number] = 1;
    }
    checkMerges(model as JsonObject, tokens, fail);
    return tokens as ReadonlyMap<string, number>;
  } else fail(`"model.vocab" is ${describe(vocab)}, expected an object, or a list of [token, score]`);
}

/**
 * Checks the fields of tokenizer_config.json (or special_tokens_map.json) that are used.
 *
 * @throws TokenizerError naming the field.
 */
export function checkTokenizerConfig(config: JsonObject, where: string): void {
  const fail = failing(where);
  for (const name of TOKEN_NAMES) {
    const value = own(config, name);
    const content = isObject(value) ? own(value, "content") : value;
    if (content !== undefined && content !== null && typeof content !== "string")
      fail(`"${name}" is ${describe(value)}, expected a string, { content }, or null`);
    if (isObject(value) && content === undefined) fail(`"${name}" is an object without "content"`);
  }
  const type = own(config, "tokenizer_class");
  if (type !== undefined && type !== null && typeof type !== "string")
    fail(`"tokenizer_class" is ${describe(type)}, expected a string`);
  for (const name of ["add_bos_token", "add_eos_token", "clean_up_tokenization_spaces"]) {
    const value = own(config, name);
    if (value !== undefined && value !== null && typeof value !== "boolean")
      fail(`"${name}" is ${describe(value)}, expected true or false`);
  }
  const decoder = own(config, "added_tokens_decoder");
  if (decoder === undefined || decoder === null) return;
  if (!isObject(decoder)) fail(`"added_tokens_decoder" is ${describe(decoder)}, expected an object`);
  for (const [id, token] of Object.entries(decoder as JsonObject)) {
    if (!/^\d{1,9}$/.test(id)) fail(`"added_tokens_decoder" has the id ${describe(id)}, expected digits`);
    if (!isObject(token) || typeof token.content !== "string")
      fail(`"added_tokens_decoder" has ${describe(token)} for the id ${id}, expected { content }`);
  }
}

function failing(where: string): (reason: string) => never {
  return (reason) => {
    throw new TokenizerError(`${where} cannot be used: ${reason}.`);
  };
}

function checkAdded(
  added: Json[],
  isId: (id: unknown) => boolean,
  most: number,
  fail: (reason: string) => never,
): void {
  const seen = new Map<number, string>();
  for (const [i, token] of added.entries()) {
    if (!isObject(token) || typeof token.content !== "string")
      fail(`"added_tokens" ${i} is ${describe(token)}, expected { id, content }`);
    const { id, content } = token as { id?: Json; content: string };
    if (!isId(id))
      fail(`the added token ${describe(content)} has the id ${describe(id)}, expected a whole number below ${most}`);
    const other = seen.get(id as number);
    if (other !== undefined && other !== content)
      fail(`the added tokens ${describe(other)} and ${describe(content)} have the same id ${String(id)}`);
    seen.set(id as number, content);
    for (const name of ["special", "single_word", "lstrip", "rstrip", "normalized"]) {
      const flag = own(token as JsonObject, name);
      if (flag !== undefined && flag !== null && typeof flag !== "boolean")
        fail(`the added token ${describe(content)} has "${name}": ${describe(flag)}, expected true or false`);
    }
  }
}

function checkUnigram(model: JsonObject, vocab: Json[], fail: (reason: string) => never): void {
  if (vocab.length > MAX_TOKENS) fail(`it has ${vocab.length} tokens, at most ${MAX_TOKENS} are read`);
  vocab.forEach((entry, i) => {
    const [token, score] = Array.isArray(entry) ? entry : [];
    if (typeof token !== "string" || typeof score !== "number" || !Number.isFinite(score))
      fail(`entry ${i} of "model.vocab" is ${describe(entry)}, expected [token, score]`);
  });
  const unknown = own(model, "unk_id");
  if (!Number.isInteger(unknown) || (unknown as number) < 0 || (unknown as number) >= vocab.length)
    fail(`"model.unk_id" is ${describe(unknown)}, expected a number below ${vocab.length}`);
}

function checkMerges(model: JsonObject, vocab: ReadonlyMap<string, unknown>, fail: (reason: string) => never): void {
  const merges = own(model, "merges");
  const unknown = own(model, "unk_token");
  if (unknown !== undefined && unknown !== null && typeof unknown !== "string")
    fail(`"model.unk_token" is ${describe(unknown)}, expected a string or null`);
  if (own(model, "type") !== "BPE" && merges === undefined) return;
  if (!Array.isArray(merges)) fail(`"model.merges" is ${describe(merges)}, expected a list`);
  const prefix = own(model, "continuing_subword_prefix");
  const inner = typeof prefix === "string" ? prefix.length : 0;
  let pairs: boolean | undefined;
  for (const [i, merge] of (merges as Json[]).entries()) {
    pairs ??= Array.isArray(merge);
    const sides = typeof merge === "string" ? twoSides(merge) : merge;
    if (!Array.isArray(sides) || Array.isArray(merge) !== pairs || sides.length !== 2)
      fail(`merge ${i} is ${describe(merge)}, expected two tokens`);
    const [left, right] = sides as Json[];
    if (typeof left !== "string" || typeof right !== "string" || left === "" || right === "")
      fail(`merge ${i} is ${describe(merge)}, expected two tokens that are not empty`);
    const joined = (left as string) + (inner === 0 ? right : (right as string).slice(inner));
    if (vocab.has(left as string) && vocab.has(right as string) && vocab.has(joined)) continue;
    const missing = [left, right, joined].find((token) => !vocab.has(token as string))!;
    fail(`merge ${i} needs the token ${describe(missing)}, which the vocabulary does not have`);
  }
}

/** What stands before and behind the only space of a merge. */
function twoSides(merge: string): string[] | undefined {
  const at = merge.indexOf(" ");
  return at < 0 || merge.indexOf(" ", at + 1) >= 0 ? undefined : [merge.slice(0, at), merge.slice(at + 1)];
}

/** Patterns that are there and can be read; sequences that end. */
function checkParts(part: Json | undefined, where: string, fail: (reason: string) => never, depth: number): void {
  if (depth > 32) fail(`"${where}" is nested deeper than 32 levels`);
  if (Array.isArray(part)) {
    for (const entry of part) checkParts(entry, where, fail, depth + 1);
    return;
  }
  if (!isObject(part)) return;
  const pattern = own(part, "pattern");
  const type = own(part, "type");
  if (pattern === undefined && (type === "Split" || type === "Replace"))
    fail(`a part of "${where}" is a ${type} without a pattern`);
  if (pattern !== undefined) {
    const source = isObject(pattern) ? (own(pattern, "Regex") ?? own(pattern, "String")) : undefined;
    if (typeof source !== "string")
      fail(`a part of "${where}" has the pattern ${describe(pattern)}, expected { Regex } or { String }`);
    if ((source as string).length > MAX_PATTERN)
      fail(`a pattern of "${where}" has ${(source as string).length} characters, at most ${MAX_PATTERN} are read`);
  }
  for (const [name, value] of Object.entries(part)) if (name !== "pattern") checkParts(value, where, fail, depth + 1);
}
