/** `@huggingface/tokenizers` as this project uses it: what of it is used, and the few places where it differs from the Rust tokenizers. */
import { isUtf8 } from "node:buffer";
import * as library from "@huggingface/tokenizers";
import { isObject, type Json, type JsonObject, own } from "./json.js";
import { fillTables, withoutTables } from "./token-bpe.js";

/** The parts of the library that are used; its own declarations cannot be resolved in an ES module. */
export interface LibraryTokenizer {
  normalizer: ((text: string) => string) | null;
  pre_tokenizer: PreTokenizer | null;
  model: {
    (words: string[]): string[];
    tokens_to_ids: Map<string, number>;
    vocab: string[];
    unk_token_id?: number | undefined;
    unk_token?: string | null;
    fuse_unk?: boolean;
    /** Of a unigram model: what it looks for in a text. */
    trie?: { extend(words: string[]): void };
  };
  decoder: (DecoderPart & { decoders?: DecoderPart[] }) | null;
  post_processor: ((tokens: string[], pair: null, add: boolean) => { tokens: string[] }) | null;
  decode(ids: number[], options: { skip_special_tokens?: boolean; clean_up_tokenization_spaces?: boolean }): string;
}
/** The library's BPE. */
export type LibraryBpe = LibraryTokenizer["model"] & {
  /** Queues the merge of a token with the next one, the first of the list first, where there is one. */
  add_node(queue: { push(node: BpeNode): void }, node: BpeNode): void;
};
interface BpeNode {
  token: string;
  next: { token: string };
  /** A fraction that grows along the word. */
  bias: number;
  score: number;
}
interface DecoderPart {
  config: { type?: string };
  decode_chain(tokens: string[]): string[];
}
/** Text to words. */
export type PreTokenizer = (text: string, options: { section_index: number }) => string[];

/**
 * The parts that a tokenizer.json describes.
 *
 * @param ids Its vocabulary without added tokens, from the checks.
 * @throws Error of the library for a part that it does not know
 */
export function createLibrary(
  source: JsonObject,
  config: JsonObject,
  ids?: ReadonlyMap<string, number>,
): LibraryTokenizer {
  const bare = ids && withoutTables(source);
  const created = new library.Tokenizer(bare ?? source, config) as unknown as LibraryTokenizer;
  if (bare) fillTables(created, source, ids);
  for (const part of [created.decoder, ...(created.decoder?.decoders ?? [])])
    if (part?.config.type === "ByteFallback") part.decode_chain = decodeByteTokens;
  if (created.model.trie !== undefined) asSentencePiece(source, created.model, created.model.trie);
  return created;
}

/** A unigram model finds its words alone in a text, not its bytes and special tokens; bytes need each unknown text unfused. */
function asSentencePiece(source: JsonObject, model: LibraryTokenizer["model"], trie: object): void {
  const described = own(source, "model") as JsonObject;
  const added = (own(source, "added_tokens") ?? []) as JsonObject[];
  const hidden = new Set(added.filter(({ special }) => special === true).map(({ content }) => content));
  const bytes = described.byte_fallback === true;
  const words = (described.vocab as [string, number][])
    .map(([word]) => word)
    .filter((word) => word !== "" && !hidden.has(word) && !(bytes && BYTE_TOKEN.test(word)));
  const fresh = new (trie.constructor as new () => { extend(words: string[]): void })();
  fresh.extend(words);
  model.trie = fresh;
  if (bytes) model.fuse_unk = false;
}

const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

/** Byte tokens ("<0xE4>") to text as the Rust tokenizers do it: a run that is no UTF-8 gives one U+FFFD a byte, and a BOM stays. */
function decodeByteTokens(tokens: string[]): string[] {
  const decoded: string[] = [];
  let run: number[] = [];
  const flush = () => {
    if (run.length > 0)
      decoded.push(isUtf8(Buffer.from(run)) ? Buffer.from(run).toString() : "\ufffd".repeat(run.length));
    run = [];
  };
  for (const token of tokens) {
    const byte = BYTE_TOKEN.exec(token);
    if (byte !== null) run.push(Number.parseInt(byte[1]!, 16));
    else {
      flush();
      decoded.push(token);
    }
  }
  flush();
  return decoded;
}

// GPT-2's pattern, which ByteLevel applies unless it is told not to.
const GPT2_WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/**
 * Says in patterns, which the library reads with Unicode's classes, what its built-in parts do with JavaScript's: there Digits
 * takes 0-9 alone (not ½, ², ５), and ByteLevel counts U+FEFF as white space but not U+0085.
 */
export function withUnicodeClasses(source: JsonObject): JsonObject {
  const split = (pattern: string) => ({
    type: "Split",
    pattern: { Regex: pattern },
    behavior: "Isolated",
    invert: false,
  });
  const rewritten = mapParts(own(source, "pre_tokenizer"), (part) => {
    if (part.type === "Digits") return split(part.individual_digits === true ? "\\p{N}" : "\\p{N}+");
    // A prefix space has to come before the pattern, so that form is left as it is.
    if (part.type !== "ByteLevel" || part.use_regex === false || part.add_prefix_space === true) return part;
    return { type: "Sequence", pretokenizers: [split(GPT2_WORDS), { ...part, use_regex: false }] };
  });
  return { added_tokens: [], ...source, pre_tokenizer: rewritten ?? null };
}

/** Changes each pre-tokenizer of a sequence, nested ones too. */
function mapParts(part: Json | undefined, change: (part: JsonObject) => JsonObject): JsonObject | null {
  if (!isObject(part)) return null;
  if (part.type === "Sequence" && Array.isArray(part.pretokenizers))
    return { ...part, pretokenizers: part.pretokenizers.map((inner) => mapParts(inner, change)) };
  return change(part);
}

/** The pre-tokenizer for a text that goes on where another ended: it puts no space before the first word. */
export function createContinuing(source: JsonObject, config: JsonObject, usual: LibraryTokenizer): PreTokenizer | null {
  let changed = false;
  const rewritten = mapParts(own(source, "pre_tokenizer"), (part) => {
    if (part.type !== "Metaspace" && part.add_prefix_space !== true) return part;
    changed = true;
    return { ...part, prepend_scheme: "never", add_prefix_space: false };
  });
  if (!changed) return usual.pre_tokenizer;
  // Only the pre-tokenizer of this second one is used, so it needs no vocabulary.
  const model = { type: "BPE", vocab: {}, merges: [] };
  const bare = {
    model,
    pre_tokenizer: rewritten,
    normalizer: null,
    decoder: null,
    post_processor: null,
    added_tokens: [],
  };
  return createLibrary(bare, config).pre_tokenizer;
}
