/** Finding added tokens ("<s>", "<|im_end|>" …) in a text before it is split further, by the rules of the Rust tokenizers. */

/** A token beside the model's own vocabulary. */
export interface AddedToken {
  id: number;
  content: string;
  /** Not part of the text: left out by `skipSpecialTokens`. */
  special: boolean;
  /** Found only between characters that belong to no word. */
  singleWord: boolean;
  /** Swallows white space before it. */
  lstrip: boolean;
  /** Swallows white space after it. */
  rstrip: boolean;
  /** Looked for in the normalized text instead of the raw one. */
  normalized: boolean;
}

/** A piece of text, or an added token that stood there. */
export type Piece =
  | { text: string; token?: undefined; start: number }
  | { text: string; token: AddedToken; start: number };

const WORD = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]/u;

/** Splits texts at given tokens, the longest match at the leftmost place first. */
export class AddedTokenSplitter {
  readonly #tokens = new Map<string, AddedToken>();
  // Lengths of the tokens that begin with a character, longest first.
  readonly #lengths = new Map<number, number[]>();

  /** @param tokens What to look for, by the spelling that is looked for. */
  constructor(tokens: Iterable<readonly [string, AddedToken]>) {
    for (const [spelling, token] of tokens) {
      if (spelling.length === 0) continue;
      this.#tokens.set(spelling, token);
      const first = spelling.charCodeAt(0);
      const lengths = this.#lengths.get(first) ?? [];
      if (!lengths.includes(spelling.length)) lengths.push(spelling.length);
      this.#lengths.set(
        first,
        lengths.sort((a, b) => b - a),
      );
    }
  }

  /** The pieces of a text in order; together with swallowed white space they are the text. */
  split(text: string): Piece[] {
    const pieces: Piece[] = [];
    let done = 0;
    for (let at = 0; at < text.length; ) {
      const token = this.#match(text, at);
      if (token === undefined) {
        at++;
        continue;
      }
      const spelling = token[0];
      let begin = at;
      let end = at + spelling.length;
      if (token[1].lstrip) while (begin > done && isSpace(text, begin - 1)) begin--;
      if (token[1].rstrip) while (end < text.length && isSpace(text, end)) end++;
      if (begin > done) pieces.push({ text: text.slice(done, begin), start: done });
      pieces.push({ text: spelling, token: token[1], start: begin });
      done = at = end;
    }
    if (done < text.length) pieces.push({ text: text.slice(done), start: done });
    return pieces;
  }

  /** True when a text holds one of the tokens. */
  contains(text: string): boolean {
    for (let at = 0; at < text.length; at++) if (this.#match(text, at) !== undefined) return true;
    return false;
  }

  #match(text: string, at: number): [string, AddedToken] | undefined {
    const lengths = this.#lengths.get(text.charCodeAt(at));
    if (lengths === undefined) return undefined;
    for (const length of lengths) {
      const spelling = text.slice(at, at + length);
      const token = this.#tokens.get(spelling);
      if (token === undefined) continue;
      if (token.singleWord && (isWord(text, at - 1) || isWord(text, at + length))) continue;
      return [spelling, token];
    }
    return undefined;
  }
}

function isSpace(text: string, at: number): boolean {
  return /\s/u.test(text[at]!);
}

function isWord(text: string, at: number): boolean {
  return at >= 0 && at < text.length && WORD.test(text[at]!);
}
