/** Ids with labels: which tokens of an example are trained. A label is the token's own id, or -100 where nothing is learnt. */
import { DataError } from "../errors.js";
import type { Message } from "../hub/chat.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { Picture } from "../images/patches.js";
import type { Formatted, PromptCompletion } from "./format.js";
import { IGNORED, isTokenized, tokenizedExample } from "./tokenized.js";

export { IGNORED } from "./tokenized.js";

/** One tokenised row. `labels[i]` belongs to `ids[i]`; the shift by one comes with collating. */
export interface Example {
  /** (T) */
  ids: Int32Array;
  /** (T): the id, or -100; or (T + 1), where what follows the last token is a class. */
  labels: Int32Array;
  /** The images that some of the ids stand for. */
  pictures?: readonly Picture[];
}

/** How texts become examples. */
export interface MaskOptions {
  /** End a text, and a completion, with one EOS (where the tokenizer has one); default true. */
  appendEos?: boolean;
}

/**
 * Tokenises what a format gave.
 *
 * - Text: BOS as declared, the text, one EOS; every token is trained.
 * - Prompt and completion: the prompt exactly as it is tokenised alone (so as at inference), then the completion, going on from it.
 *   No token spans the boundary. The prompt is not trained; the completion and its EOS are.
 * - Messages: the chat template's own text. Trained is each assistant's turn: what follows the generation prompt, up to the turn's end. ChatGLM's
 *   template writes no end: the EOS follows the last turn.
 * - Ids: as they are, with their labels; no EOS is added.
 *
 * @throws TokenizerError when messages are given and there is no template. @throws DataError when turns cannot be told apart.
 */
export function exampleOf(formatted: Formatted, tokenizer: Tokenizer, options: MaskOptions = {}): Example {
  const appendEos = options.appendEos ?? true;
  if (typeof formatted === "string") return ofText(formatted, tokenizer, appendEos);
  if (isTokenized(formatted)) return tokenizedExample(formatted, tokenizer);
  if ("prompt" in formatted) return ofCompletion(formatted, tokenizer, appendEos);
  return ofMessages(formatted, tokenizer);
}

/** Number of targets of an example: trained tokens but the first, which nothing precedes. */
export function trainedTargets(example: Example): number {
  let count = 0;
  for (let i = 1; i < example.labels.length; i++) if (example.labels[i] !== IGNORED) count++;
  return count;
}

function ofText(text: string, tokenizer: Tokenizer, appendEos: boolean): Example {
  const ids = tokenizer.encode(text);
  if (appendEos) endWithEos(ids, tokenizer);
  return { ids: Int32Array.from(ids), labels: Int32Array.from(ids) };
}

function ofCompletion({ prompt, completion }: PromptCompletion, tokenizer: Tokenizer, appendEos: boolean): Example {
  const before = tokenizer.encode(prompt, { addSpecialTokens: "before" });
  const after = tokenizer.encode(completion, { after: before, addSpecialTokens: false });
  if (appendEos) endWithEos(after, tokenizer);
  return build([
    [before, false],
    [after, true],
  ]);
}

function endWithEos(ids: number[], tokenizer: Tokenizer): void {
  if (tokenizer.eosId !== undefined && ids.at(-1) !== tokenizer.eosId) ids.push(tokenizer.eosId);
}

function build(parts: readonly (readonly [readonly number[], boolean])[]): Example {
  const length = parts.reduce((sum, [ids]) => sum + ids.length, 0);
  const example = { ids: new Int32Array(length), labels: new Int32Array(length).fill(IGNORED) };
  let at = 0;
  for (const [ids, trained] of parts) {
    example.ids.set(ids, at);
    if (trained) example.labels.set(ids, at);
    at += ids.length;
  }
  return example;
}

/**
 * A conversation that goes on in a certain way: trained is everything from the first message of `completion` on, without what announces it
 * (the generation prompt).
 *
 * @throws DataError when the template writes the beginning differently once the completion follows.
 */
export function exampleOfTurns(
  prompt: readonly Message[],
  completion: readonly Message[],
  tokenizer: Tokenizer,
): Example {
  const { messages, mark } = tokenizer.protectMessages([...prompt, ...completion]);
  const turns = new RenderedTurns(messages, tokenizer);
  const { begin } = turns.span(prompt.length);
  const before = tokenizer.encodeProtected(turns.whole.slice(0, begin), mark);
  const after = tokenizer.encodeProtected(turns.whole.slice(begin), mark, before);
  return build([
    [before, false],
    [after, true],
    [endOf(messages, tokenizer), true],
  ]);
}

/** What ends the last turn, where it is the assistant's and the template writes nothing there. */
function endOf(messages: readonly Message[], { unwrittenEnd }: Tokenizer): number[] {
  return unwrittenEnd !== undefined && messages.at(-1)?.role === "assistant" ? [unwrittenEnd] : [];
}

function ofMessages(given: readonly Message[], tokenizer: Tokenizer): Example {
  const { messages, mark } = tokenizer.protectMessages(given);
  const turns = new RenderedTurns(messages, tokenizer);
  const ids: number[] = [];
  const parts: [number[], boolean][] = [];
  let done = 0;
  const take = (end: number, trained: boolean) => {
    if (end <= done) return;
    const piece = tokenizer.encodeProtected(turns.whole.slice(done, end), mark, ids);
    parts.push([piece, trained]);
    ids.push(...piece);
    done = end;
  };
  for (const [index, message] of messages.entries()) {
    if (message.role !== "assistant") continue;
    const { begin, end } = turns.span(index);
    take(begin, false);
    take(end, true);
  }
  take(turns.whole.length, false);
  parts.push([endOf(messages, tokenizer), true]);
  return build(parts);
}

/**
 * Where each turn stands in the rendered chat, found by rendering its beginnings: before a turn with the generation prompt, and
 * after it. Works with every template in which a longer chat goes on from a shorter one.
 */
class RenderedTurns {
  /** The whole chat. */
  readonly whole: string;
  readonly #messages: readonly Message[];
  readonly #tokenizer: Tokenizer;
  readonly #constant: string;
  #closing = "";

  constructor(messages: readonly Message[], tokenizer: Tokenizer) {
    this.#messages = messages;
    this.#tokenizer = tokenizer;
    this.#constant = this.#constantPrompt();
    this.whole = this.#until(messages.length);
    this.#closing = this.#closingToken();
  }

  /** The characters of an assistant's turn, without what announces it. */
  span(index: number): { begin: number; end: number } {
    const before = index === 0 ? "" : this.#until(index);
    const asked = index === 0 ? "" : this.#render(index, true);
    const after = this.#until(index + 1);
    const begin = after.startsWith(asked) ? asked.length : commonLength(asked, after);
    if (begin < before.length || begin > after.length || !this.whole.startsWith(after))
      throw new DataError(
        `The chat template writes message ${index} differently when others follow, so the tokens of the assistant's turns cannot be told apart. Give a format that returns { prompt, completion } (or { prompt, chosen, rejected }) as texts.`,
      );
    return { begin, end: after.length };
  }

  #until(count: number): string {
    const text = this.#render(count, false);
    return without(without(text, this.#constant), this.#closing);
  }

  #render(count: number, addGenerationPrompt: boolean): string {
    return this.#tokenizer.applyChatTemplate(this.#messages.slice(0, count), { addGenerationPrompt });
  }

  // Phi 3's template ends a chat that asks for no answer with the EOS: it closes the chat, and is no part of the turn before it. Where each
  // answer ends with an EOS, the shorter chat is the longer one's beginning as it stands.
  #closingToken(): string {
    const eos = this.#tokenizer.eosId === undefined ? undefined : this.#tokenizer.tokenOf(this.#tokenizer.eosId);
    if (eos === undefined || this.#messages.length < 2) return "";
    const first = this.#until(1);
    return !this.whole.startsWith(first) && this.whole.startsWith(without(first, eos)) ? eos : "";
  }

  // The first template of Llama 3 ends every chat with the assistant's header, asked or not. Rendered without messages it is
  // that header alone; it is no part of a finished chat.
  #constantPrompt(): string {
    try {
      if (this.#render(1, true) !== this.#render(1, false)) return "";
      return this.#render(0, false);
    } catch {
      return "";
    }
  }
}

function without(text: string, end: string): string {
  return end !== "" && text.endsWith(end) ? text.slice(0, -end.length) : text;
}

function commonLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

/**
 * An example in words, for messages and for checking by eye: its text with the trained parts in ⟦ ⟧.
 *
 * @param most Characters shown at most.
 */
export function describeMask(example: Example, tokenizer: Tokenizer, most = 600): string {
  let text = "";
  let plain = "";
  for (let begin = 0; begin < example.ids.length && text.length < most; ) {
    const trained = example.labels[begin] !== IGNORED;
    let end = begin + 1;
    while (end < example.ids.length && (example.labels[end] !== IGNORED) === trained) end++;
    // Decoded from the beginning, since a decoder treats the first word of a text in its own way.
    const until = tokenizer.decode(example.ids.subarray(0, end));
    const part = until.slice(plain.length);
    text += trained ? `⟦${part}⟧` : part;
    plain = until;
    begin = end;
  }
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
