/**
 * Makes a sentencepiece model as ChatGLM's is: BPE over characters, with a "▁" for each space and before the text, bytes for what has no piece.
 * Written as the protocol buffer that sentencepiece reads (sentencepiece_model.proto of google/sentencepiece).
 */
import { learnMerges } from "../tokenizer.js";

/** Kinds of pieces in the file. */
const [NORMAL, UNKNOWN, CONTROL, BYTE] = [1, 2, 3, 6];
const SPACE = "▁";

/** One piece of the vocabulary; its id is its place. */
export interface Piece {
  readonly text: string;
  readonly score: number;
  readonly type: number;
}

/**
 * The pieces of some texts: what is unknown, begin, end, the bytes, what merging gives in its order, then the single characters.
 * @param size how many, all of these included.
 */
export function trainPieces(texts: Iterable<string>, size: number): Piece[] {
  const counts = new Map<string, number>();
  const letters = new Set<string>([SPACE]);
  // A piece is a word with the space before it, a part of one, or a sign: "▁boat", "s", "?".
  // A piece is a word with the space before it, a part of one, or a sign: "▁boat", "s", "?".
  for (const text of texts)
    for (const [word] of ` ${text}`.replaceAll(" ", SPACE).matchAll(/▁?\p{L}+|▁?\p{N}|▁|[^\s\p{L}\p{N}▁]/gu)) {
      counts.set(word, (counts.get(word) ?? 0) + 1);
      for (const letter of word) letters.add(letter);
    }
  const characters = [...letters].sort();
  const first: Piece[] = [
    { text: "<unk>", score: 0, type: UNKNOWN },
    { text: "<s>", score: 0, type: CONTROL },
    { text: "</s>", score: 0, type: CONTROL },
    ...Array.from({ length: 256 }, (_, b) => ({
      text: `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`,
      score: 0,
      type: BYTE,
    })),
  ];
  const ids = new Map(characters.map((letter, id) => [letter, id]));
  const words = [...counts].map(([word, count]) => ({ ids: Array.from(word, (c) => ids.get(c)!), count }));
  const tokens = [...characters];
  learnMerges(words, tokens, size - first.length);
  const merged = tokens.slice(characters.length);
  // As sentencepiece scores them: the earlier a pair was merged, the higher; single characters come last.
  const normal = [...merged, ...characters].map((text, rank) => ({ text, score: -rank, type: NORMAL }));
  return [...first, ...normal];
}

/** The file `tokenizer.model`. */
export function modelFile(pieces: readonly Piece[]): Uint8Array {
  const trainer = message(integer(3, 2), integer(4, pieces.length), integer(35, 1)); // model_type BPE, vocab_size, byte_fallback
  // No replaced characters, a space before the text, spaces kept as they are and written as "▁".
  const normaliser = message(bytes(1, utf8("identity")), integer(3, 1), integer(4, 0), integer(5, 1));
  return message(
    ...pieces.map(({ text, score, type }) =>
      bytes(1, message(bytes(1, utf8(text)), float(2, score), integer(3, type))),
    ),
    bytes(2, trainer),
    bytes(3, normaliser),
  );
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const message = (...fields: readonly Uint8Array[]): Uint8Array => Buffer.concat(fields);
const integer = (field: number, value: number): Uint8Array =>
  Uint8Array.from([...varint(field << 3), ...varint(value)]);
const bytes = (field: number, content: Uint8Array): Uint8Array =>
  message(Uint8Array.from([...varint((field << 3) | 2), ...varint(content.length)]), content);

function float(field: number, value: number): Uint8Array {
  const four = new Uint8Array(4);
  new DataView(four.buffer).setFloat32(0, value, true);
  return message(Uint8Array.from(varint((field << 3) | 5)), four);
}

function varint(value: number): number[] {
  const out: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return [...out, rest];
    out.push((rest & 0x7f) | 0x80);
  }
}
