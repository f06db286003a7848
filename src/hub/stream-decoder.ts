/** Text from ids that arrive one by one: whole characters only, and the same text as decoding all ids at once. */

// A character of UTF-8 takes four tokens at most, so this many hold a whole one.
const MAX_CONTEXT = 8;

/**
 * Holds back what may still change: the first bytes of a character whose others have not come yet, which decode to U+FFFD.
 */
export class StreamDecoder {
  readonly #decode: (ids: readonly number[]) => string;
  // Ids since the last place where the text was whole, after one run of ids that was already given out: the decoder treats the
  // first word of a text in its own way, so a run is never decoded from its beginning alone.
  #ids: number[] = [];
  #given = 0;

  /**
   * @param decode The text of ids, as a tokenizer gives it.
   * @param after Ids before the first one, whose text is not given out.
   */
  constructor(decode: (ids: readonly number[]) => string, after: readonly number[] = []) {
    this.#decode = decode;
    this.#ids = after.slice(-MAX_CONTEXT);
    this.#given = this.#ids.length;
  }

  /** Takes the next id and gives the text that is new and whole, often "". */
  push(id: number): string {
    this.#ids.push(id);
    const text = this.#decode(this.#ids);
    if (text.endsWith("\ufffd")) return "";
    return this.#give(text);
  }

  /** Gives what was held back, with U+FFFD for what never became a character. Further ids may follow as a new text. */
  end(): string {
    const rest = this.#behind(this.#decode(this.#ids));
    this.#ids = [];
    this.#given = 0;
    return rest;
  }

  #give(text: string): string {
    const fresh = this.#behind(text);
    if (fresh === "") return "";
    this.#ids = this.#ids.slice(this.#given);
    this.#given = this.#ids.length;
    return fresh;
  }

  /** What of the text of all ids was not given out. */
  #behind(text: string): string {
    const before = this.#decode(this.#ids.slice(0, this.#given));
    if (text.startsWith(before)) return text.slice(before.length);
    // Bytes that are no character spoil those before them too, which were given out as the characters they are.
    return text.length > before.length ? this.#decode(this.#ids.slice(this.#given)) : "";
  }
}
