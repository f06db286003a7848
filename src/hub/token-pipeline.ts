/**
 * The way from text to ids: added tokens, normalizer, pre-tokenizer, model, over the parts of `@huggingface/tokenizers`.
 * The library's own `encode` is not used: special tokens that a user typed must be able to stay text, and a completion must
 * be able to go on where its prompt ended.
 */
import { TokenizerError } from "../errors.js";
import { type AddedToken, AddedTokenSplitter } from "./added-tokens.js";
import { isObject, type Json, type JsonObject, own } from "./json.js";
import { TimeLimitError, withTimeLimit } from "./time-limit.js";
import {
  createContinuing,
  createLibrary,
  type LibraryTokenizer,
  type PreTokenizer,
  withUnicodeClasses,
} from "./token-library.js";
import { checkTokenizer } from "./tokenizer-check.js";
import { hasUnknownPattern } from "./tokenizer-patterns.js";

// For patterns that are not known to be harmless: seconds for a text, and for each million characters or ids of it.
const SECONDS = 1;
const SECONDS_A_MILLION = 20;
const SPACE = "\u2581";

// Where a piece of text stands: at the beginning of all, after an added token, or in the middle of text.
type Place = "begins" | "section" | "continues";

/** How a text is encoded. */
export interface PieceOptions {
  /** Special tokens in the text are tokens (default), or stay the text they are. */
  special?: boolean;
  /** Ids that the text goes on from: after ordinary text nothing is put before its first word. */
  after?: readonly number[];
  /** A mark that breaks special tokens which are to stay text: taken out again where it stands. */
  mark?: string;
}

/** Text to ids and back, without the tokens that a model wants around its input. */
export class TokenPipeline {
  /** Added tokens by id. */
  readonly added: ReadonlyMap<number, AddedToken>;
  /** Ids that the post-processor puts before a text: often the BOS. */
  readonly prefix: readonly number[];
  /** Ids that it puts after a text. */
  readonly suffix: readonly number[];
  /** The highest id + 1. */
  readonly size: number;
  readonly #library: LibraryTokenizer;
  readonly #continuing: PreTokenizer | null;
  readonly #prepended: string;
  readonly #raw: Record<"all" | "ordinary", AddedTokenSplitter>;
  readonly #normalized: Record<"all" | "ordinary", AddedTokenSplitter>;
  readonly #presplit: boolean;
  readonly #cleanUp: boolean;
  readonly #where: string;
  readonly #limited: boolean;
  readonly #byteFallback: boolean;
  // The model may yield exactly the spelling of a special token; as text it must not become that token.
  readonly #specialSpellings: ReadonlySet<string>;

  /**
   * @param tokenizer What tokenizer.json holds.
   * @param config What tokenizer_config.json holds.
   * @param vocabulary As `checkTokenizer` takes it.
   * @throws TokenizerError when the library does not know a part of it.
   */
  constructor(tokenizer: JsonObject, config: JsonObject, where: string, vocabulary?: ReadonlyMap<string, number>) {
    const ids = checkTokenizer(tokenizer, where, vocabulary);
    const source = withUnicodeClasses(tokenizer);
    this.#where = where;
    this.#limited = ["normalizer", "pre_tokenizer", "decoder"].some((part) => hasUnknownPattern(own(source, part)));
    try {
      this.#library = createLibrary(source, config, ids);
      const model = own(source, "model");
      this.#byteFallback = isObject(model) && model.byte_fallback === true;
      this.added = new Map(addedTokens(source).map((token) => [token.id, token]));
      this.#continuing = createContinuing(source, config, this.#library);
      this.#prepended = prependedBy(own(source, "normalizer"));
      this.#presplit = canSplitAtSpaces(model, this.#library);
      this.#cleanUp =
        isObject(model) && model.type === "WordPiece" && own(config, "clean_up_tokenization_spaces") !== false;
      this.#raw = this.#splitters(false);
      this.#normalized = this.#splitters(true);
      this.#specialSpellings = new Set([...this.added.values()].filter((t) => t.special).map((t) => t.content));
      this.size = [...this.added.keys()].reduce((size, id) => Math.max(size, id + 1), this.#library.model.vocab.length);
      [this.prefix, this.suffix] = this.#around();
    } catch (cause) {
      if (cause instanceof TokenizerError) throw cause;
      throw new TokenizerError(`${where} cannot be used: ${(cause as Error).message}.`, { cause });
    }
  }

  /** The ids of a text, without prefix and suffix. */
  encode(text: string, options: PieceOptions = {}): number[] {
    return this.#within(text.length, () => this.#encode(text, options));
  }

  #encode(text: string, options: PieceOptions): number[] {
    const which = options.special === false ? "ordinary" : "all";
    const ids: number[] = [];
    const last = options.after?.at(-1);
    const first = last === undefined ? "begins" : this.added.has(last) ? "section" : "continues";
    for (const { text: piece, token, start } of this.#raw[which].split(text)) {
      const place = start === 0 ? first : "section";
      if (token !== undefined) ids.push(token.id);
      else if (options.mark === undefined || !piece.includes(options.mark)) this.#encodePiece(piece, place, which, ids);
      else this.#encodePiece(piece.replaceAll(options.mark, ""), place, "ordinary", ids);
    }
    return ids;
  }

  /** The text of ids. Ids that the vocabulary does not have give nothing. */
  decode(ids: readonly number[], skipSpecialTokens = false): string {
    const kept = ids.filter(
      (id) => this.tokenOf(id) !== undefined && !(skipSpecialTokens && this.added.get(id)?.special),
    );
    if (kept.length === 0) return "";
    return this.#within(kept.length, () => this.#library.decode(kept, { clean_up_tokenization_spaces: this.#cleanUp }));
  }

  /** Runs the library on something of a length, with a limit on its time where a pattern could take any. */
  #within<T>(length: number, fn: () => T): T {
    try {
      return this.#limited ? withTimeLimit(SECONDS + (length / 1e6) * SECONDS_A_MILLION, fn) : fn();
    } catch (cause) {
      if (cause instanceof TokenizerError) throw cause;
      if (!(cause instanceof TimeLimitError))
        throw new TokenizerError(
          `${this.#where} cannot be used on a text of ${length} characters: ${(cause as Error).message}.`,
          { cause },
        );
      throw new TokenizerError(
        `A pattern of ${this.#where} was stopped on a text of ${length} characters: ${cause.message}. It may take time that grows without measure; use the tokenizer of another source.`,
        { cause },
      );
    }
  }

  /** The spelling of an id in the vocabulary. */
  tokenOf(id: number): string | undefined {
    return this.#library.model.vocab[id];
  }

  /** The id of a spelling. */
  idOf(token: string): number | undefined {
    return this.#library.model.tokens_to_ids.get(token);
  }

  /** The spellings of all special tokens. */
  get specialSpellings(): ReadonlySet<string> {
    return this.#specialSpellings;
  }

  #encodePiece(text: string, place: Place, which: "all" | "ordinary", ids: number[]): void {
    const { normalizer, pre_tokenizer: usual, model } = this.#library;
    let normal = normalizer === null ? text : normalizer(text);
    if (place === "continues" && this.#prepended !== "" && normal.startsWith(this.#prepended))
      normal = normal.slice(this.#prepended.length);
    for (const piece of this.#normalized[which].split(normal)) {
      if (piece.token !== undefined) {
        ids.push(piece.token.id);
        continue;
      }
      const preTokenizer = place === "continues" && piece.start === 0 ? this.#continuing : usual;
      const section = place === "begins" && piece.start === 0 ? 0 : 1;
      let words = preTokenizer === null ? [piece.text] : preTokenizer(piece.text, { section_index: section });
      if (this.#presplit) words = words.flatMap(splitAtSpaces);
      for (const token of model(words)) {
        // The library writes the unknown token for what it does not know.
        if (
          which === "ordinary" &&
          token !== model.unk_token &&
          token.length > 1 &&
          this.#specialSpellings.has(token)
        ) {
          for (const part of model([...token])) this.#push(part, ids);
        } else this.#push(token, ids);
      }
    }
  }

  #push(token: string, ids: number[]): void {
    const { tokens_to_ids: known, unk_token_id: unknown } = this.#library.model;
    const id = known.get(token);
    if (id !== undefined) {
      ids.push(id);
      return;
    }
    // The library's BPE falls back to bytes by itself, its unigram gives the text that it does not know.
    const bytes = this.#byteFallback
      ? [...Buffer.from(token)].map((b) => known.get(`<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`))
      : [];
    if (bytes.length > 0 && bytes.every((b) => b !== undefined)) for (const b of bytes) ids.push(b);
    else if (unknown !== undefined) ids.push(unknown);
  }

  #splitters(normalized: boolean): Record<"all" | "ordinary", AddedTokenSplitter> {
    const normalize = this.#library.normalizer;
    const mine = [...this.added.values()].filter((token) => (token.normalized && normalize !== null) === normalized);
    const spelled = mine.map((token) => [normalized ? normalize!(token.content) : token.content, token] as const);
    return {
      all: new AddedTokenSplitter(spelled),
      ordinary: new AddedTokenSplitter(spelled.filter(([, token]) => !token.special)),
    };
  }

  #around(): [number[], number[]] {
    const { post_processor: process, model } = this.#library;
    if (process === null) return [[], []];
    // A spelling that no vocabulary has marks where the text stands.
    const mark = "\0text\0";
    const { tokens } = process([mark], null, true);
    const at = tokens.indexOf(mark);
    const id = (token: string): number => {
      const known = model.tokens_to_ids.get(token);
      if (known === undefined)
        throw new TokenizerError(`The post-processor adds "${token}", which is not in the vocabulary.`);
      return known;
    };
    return [tokens.slice(0, at).map(id), tokens.slice(at + 1).map(id)];
  }
}

function addedTokens(source: JsonObject): AddedToken[] {
  const list = (own(source, "added_tokens") ?? []) as { [name: string]: Json; id: number; content: string }[];
  return list.map((entry) => {
    const special = entry.special === true;
    return {
      id: entry.id,
      content: entry.content,
      special,
      singleWord: entry.single_word === true,
      lstrip: entry.lstrip === true,
      rstrip: entry.rstrip === true,
      normalized: typeof entry.normalized === "boolean" ? entry.normalized : !special,
    };
  });
}

function prependedBy(normalizer: Json | undefined): string {
  if (!isObject(normalizer)) return "";
  if (normalizer.type === "Prepend") return typeof normalizer.prepend === "string" ? normalizer.prepend : "";
  if (normalizer.type === "Sequence" && Array.isArray(normalizer.normalizers))
    return normalizer.normalizers.map(prependedBy).find((text) => text !== "") ?? "";
  return "";
}

// Vocabularies of sentencepiece never join the end of a word to the next space. Then words can be merged one by one, and the
// library's cache works: five times as fast as merging a whole text.
function canSplitAtSpaces(model: Json | undefined, parts: LibraryTokenizer): boolean {
  if (!isObject(model) || model.type !== "BPE" || parts.pre_tokenizer !== null) return false;
  if (model.ignore_merges === true) return false;
  return parts.model.vocab.every((token) => !/[^\u2581]\u2581/u.test(token));
}

function splitAtSpaces(text: string): string[] {
  const words: string[] = [];
  let begin = 0;
  for (let at = text.indexOf(SPACE, 1); at !== -1; at = text.indexOf(SPACE, at + 1)) {
    if (text[at - 1] === SPACE) continue;
    words.push(text.slice(begin, at));
    begin = at;
  }
  words.push(text.slice(begin));
  return words;
}
