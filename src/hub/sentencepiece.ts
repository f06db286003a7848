/**
 * sentencepiece's `tokenizer.model`, written as tokenizer.json would say it. The file is a protocol buffer (sentencepiece_model.proto of
 * google/sentencepiece): pieces with scores and types, and how text is normalised before it is split.
 */
import { TokenizerError } from "../errors.js";
import { describe, type Json, type JsonObject } from "./json.js";
import { mergesByScore } from "./merges.js";
import { fields, ProtobufError } from "./protobuf.js";

const MAX_PIECES = 2 ** 20;
/** Finding merges takes the square of a piece's length; vocabularies in use come to 20 million. */
export const MAX_MERGE_WORK = 100_000_000;
const SPACE = "\u2581";

// ModelProto.SentencePiece.Type
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const BYTE = 6;
// TrainerSpec.ModelType
const UNIGRAM = 1;
const BPE = 2;

interface Piece {
  text: string;
  score: number;
  type: number;
}

/** What a file says, with the format's defaults for what it does not say. */
interface Model {
  pieces: Piece[];
  /** 1 unigram, 2 BPE, 3 words, 4 characters. */
  type: number;
  byteFallback: boolean;
  spaceBehind: boolean;
  charsmap: number;
  dummyPrefix: boolean;
  removeSpaces: boolean;
  escapeSpaces: boolean;
}

/**
 * The contents of a tokenizer.json that does what a `tokenizer.model` says, without tokens around a text.
 *
 * @param where The file, for errors.
 * @throws TokenizerError when the file is damaged, or does what is not read: pieces of words or characters, spaces behind words, a
 * table of characters to replace.
 */
export function readSentencePiece(bytes: Uint8Array, where: string): JsonObject {
  const fail = (reason: string): never => {
    throw new TokenizerError(
      `${where} cannot be used: ${reason}. Write a tokenizer.json in Python: \`from transformers import AutoTokenizer as T; T.from_pretrained("FOLDER").save_pretrained("FOLDER")\`.`,
    );
  };
  let model: Model;
  try {
    model = parse(bytes);
  } catch (cause) {
    const damaged = cause instanceof ProtobufError || cause instanceof TypeError;
    return fail(damaged ? `it is no sentencepiece model: ${cause.message}` : String(cause));
  }
  if (model.type !== UNIGRAM && model.type !== BPE)
    fail(`its model type is ${model.type}, read are 1 (unigram) and 2 (BPE)`);
  if (model.charsmap > 0) fail(`it replaces characters by a table of ${model.charsmap} bytes, which is not read`);
  if (model.spaceBehind) fail("it puts spaces behind words, which is not read");
  if (!model.escapeSpaces) fail("it leaves spaces as they are, which is not read");
  const ids: Record<string, number> = Object.create(null);
  for (const [id, { text, type }] of model.pieces.entries()) {
    if (text === "") fail(`piece ${id} is empty`);
    if (ids[text] !== undefined) fail(`the pieces ${ids[text]} and ${id} are both ${describe(text)}`);
    if (!(type >= NORMAL && type <= BYTE)) fail(`piece ${id} has the type ${type}, expected 1 to 6`);
    ids[text] = id;
  }
  const unknown = model.pieces.findIndex(({ type }) => type === UNKNOWN);
  if (unknown < 0) fail("it has no piece for what is unknown");
  const byteTokens = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);
  const missing = model.byteFallback ? byteTokens.find((token) => ids[token] === undefined) : undefined;
  if (missing !== undefined) fail(`it falls back to bytes, but has no piece ${missing}`);
  const part = model.type === BPE ? bpe(model, ids, unknown, fail) : unigram(model, unknown);
  return { version: "1.0", truncation: null, padding: null, ...around(model), model: part };
}

function parse(bytes: Uint8Array): Model {
  const model: Model = {
    pieces: [],
    type: UNIGRAM,
    byteFallback: false,
    spaceBehind: false,
    charsmap: 0,
    dummyPrefix: true,
    removeSpaces: true,
    escapeSpaces: true,
  };
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  for (const { number, bytes: inner } of fields(bytes)) {
    if (number > 3) continue;
    if (inner === undefined) throw new TypeError(`field ${number} is a number, expected a message`);
    if (number === 1) {
      if (model.pieces.length >= MAX_PIECES) throw new TypeError(`more than ${MAX_PIECES} pieces`);
      const piece: Piece = { text: "", score: 0, type: NORMAL };
      for (const field of fields(inner)) {
        if (field.number === 1) piece.text = text.decode(expected(field.bytes, "a piece's text"));
        else if (field.number === 2) piece.score = expected(field.float, "a piece's score");
        else if (field.number === 3) piece.type = expected(field.integer, "a piece's type");
      }
      if (Number.isNaN(piece.score)) throw new TypeError(`piece ${model.pieces.length} has the score NaN`);
      model.pieces.push(piece);
    } else if (number === 2) {
      for (const field of fields(inner)) {
        if (field.number === 3) model.type = expected(field.integer, "the model's type");
        else if (field.number === 24) model.spaceBehind = expected(field.integer, "treat_whitespace_as_suffix") !== 0;
        else if (field.number === 35) model.byteFallback = expected(field.integer, "byte_fallback") !== 0;
      }
    } else {
      for (const field of fields(inner)) {
        if (field.number === 2) model.charsmap = expected(field.bytes, "precompiled_charsmap").length;
        else if (field.number === 3) model.dummyPrefix = expected(field.integer, "add_dummy_prefix") !== 0;
        else if (field.number === 4) model.removeSpaces = expected(field.integer, "remove_extra_whitespaces") !== 0;
        else if (field.number === 5) model.escapeSpaces = expected(field.integer, "escape_whitespaces") !== 0;
      }
    }
  }
  if (model.pieces.length === 0) throw new TypeError("it has no pieces");
  return model;
}

function expected<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new TypeError(`${what} has another kind than expected`);
  return value;
}

/** What stands around the model. */
function around({ pieces, dummyPrefix, removeSpaces }: Model): JsonObject {
  const added = pieces.flatMap(({ text: content, type }, id): JsonObject[] => {
    if (type !== UNKNOWN && type !== CONTROL && type !== USER_DEFINED) return [];
    const special = type !== USER_DEFINED;
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
  return {
    added_tokens: added,
    pre_tokenizer: null,
    post_processor: null,
    ...sentencePieceSpaces(dummyPrefix, removeSpaces),
  };
}

/**
 * How sentencepiece treats spaces: they become "▁", one of them before each text, and all of it back again.
 *
 * @param removeSpaces whether those around a text go, and those beside another.
 */
export function sentencePieceSpaces(
  dummyPrefix: boolean,
  removeSpaces: boolean,
): { normalizer: JsonObject; decoder: JsonObject } {
  const replace = (pattern: JsonObject, content: string): JsonObject => ({ type: "Replace", pattern, content });
  const trimmed = removeSpaces ? [replace({ Regex: "\\A +|(?<! ) +\\z" }, ""), replace({ Regex: " {2,}" }, " ")] : [];
  const prepend: Json[] = dummyPrefix ? [{ type: "Prepend", prepend: SPACE }] : [];
  // What was a space at the end goes, even one that stood there as "▁"; a text of spaces alone is no text.
  const ends = removeSpaces ? [replace({ Regex: `(?<!${SPACE})${SPACE}+\\z` }, "")] : [];
  const strip: Json[] = dummyPrefix ? [{ type: "Strip", content: " ", start: removeSpaces ? 1000 : 1, stop: 0 }] : [];
  return {
    normalizer: { type: "Sequence", normalizers: [...trimmed, ...prepend, replace({ String: " " }, SPACE), ...ends] },
    decoder: {
      type: "Sequence",
      decoders: [replace({ String: SPACE }, " "), { type: "ByteFallback" }, { type: "Fuse" }, ...strip],
    },
  };
}

function bpe(model: Model, ids: Record<string, number>, unknown: number, fail: (reason: string) => never): JsonObject {
  // What stands for itself alone is no part of words.
  const words = model.pieces.filter(({ type }) => type === NORMAL || type === USER_DEFINED);
  const work = words.reduce((sum, { text }) => sum + text.length ** 2, 0);
  if (work > MAX_MERGE_WORK) fail("its pieces are too long to find their merges");
  const sides: Record<string, number> = Object.create(null);
  for (const { text } of words) sides[text] = ids[text]!;
  const merges = mergesByScore(
    words.map(({ text }) => text),
    words.map(({ score }) => score),
    sides,
  );
  return {
    type: "BPE",
    dropout: null,
    unk_token: model.pieces[unknown]!.text,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: true,
    byte_fallback: model.byteFallback,
    ignore_merges: false,
    vocab: ids,
    merges,
  };
}

function unigram(model: Model, unknown: number): JsonObject {
  const vocab = model.pieces.map(({ text, score }): Json => [text, score]);
  return { type: "Unigram", unk_id: unknown, vocab, byte_fallback: model.byteFallback };
}
