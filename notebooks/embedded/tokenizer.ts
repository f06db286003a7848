/**
 * Trains a byte-level BPE (Sennrich et al. 2016, over bytes as GPT-2 does it) and writes it in Hugging Face's format. Deterministic:
 * among equally frequent pairs the one with the smaller ids wins.
 */

/** Tokens with a meaning of their own; the first ids of the vocabulary. */
export const specialTokens = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"] as const;

/** One conversation: `<|begin|><|user|>…<|end|><|assistant|>…<|end|>`. */
export const chatTemplate =
  "{{ bos_token }}{% for message in messages %}" +
  "{% if message['role'] not in ['system', 'user', 'assistant'] %}{{ raise_exception('The roles are system, user and assistant.') }}{% endif %}" +
  "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/** GPT-2's way of cutting text before merging, as Hugging Face's ByteLevel pre-tokenizer does it. */
const pieces = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** GPT-2's printable stand-in of each byte. */
const byteCharacters: readonly string[] = (() => {
  const shown = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(shown(b) ? b : next++));
})();

/** A trained vocabulary: id of each token, and the merges in order. */
export interface Bpe {
  readonly vocab: ReadonlyMap<string, number>;
  readonly merges: readonly (readonly [string, string])[];
}

/** What a tokenizer has beside its words. */
export interface TokenForm {
  /** The first ids of the vocabulary. */
  readonly special: readonly string[];
  /** Stands before every text; none: texts begin with their first word. */
  readonly begin?: string;
  readonly end: string;
  readonly pad: string;
  readonly chatTemplate: string;
}

/** The village's. */
const conversation: TokenForm = {
  special: specialTokens,
  begin: "<|begin|>",
  end: "<|end|>",
  pad: "<|pad|>",
  chatTemplate,
};

/** @param size of the vocabulary, special tokens included. */
export function trainBpe(texts: Iterable<string>, size: number, special: readonly string[] = specialTokens): Bpe {
  const tokens = [...special, ...byteCharacters];
  const firstByte = special.length;
  const words = [...countWords(texts)].map(([word, count]) => ({
    ids: [...new TextEncoder().encode(word)].map((b) => firstByte + b),
    count,
  }));
  const merges = learnMerges(words, tokens, size);
  return { vocab: new Map(tokens.map((token, id) => [token, id])), merges };
}

/**
 * Adds the merges of the most frequent pairs to `tokens` until there are `size`.
 * @param words their ids, which become longer tokens on the way, and how often each occurs.
 */
export function learnMerges(
  words: readonly { ids: number[]; count: number }[],
  tokens: string[],
  size: number,
): [string, string][] {
  const merges: [string, string][] = [];
  while (tokens.length < size) {
    const best = bestPair(words, size);
    if (best === undefined) break;
    const [left, right] = best;
    merges.push([tokens[left]!, tokens[right]!]);
    tokens.push(tokens[left]! + tokens[right]!);
    for (const word of words) merge(word.ids, left, right, tokens.length - 1);
  }
  return merges;
}

function countWords(texts: Iterable<string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts) {
    // Every digit stands alone, so that numbers are read place by place.
    for (const part of text.split(/(\p{N})/u)) {
      for (const [word] of part.matchAll(pieces)) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return counts;
}

function bestPair(words: readonly { ids: number[]; count: number }[], size: number): [number, number] | undefined {
  const counts = new Map<number, number>();
  for (const { ids, count } of words) {
    for (let i = 0; i + 1 < ids.length; i++) {
      const key = ids[i]! * size + ids[i + 1]!;
      counts.set(key, (counts.get(key) ?? 0) + count);
    }
  }
  let best = -1;
  let most = 1;
  for (const [key, count] of counts) {
    if (count > most || (count === most && key < best)) [best, most] = [key, count];
  }
  return best < 0 ? undefined : [Math.floor(best / size), best % size];
}

function merge(ids: number[], left: number, right: number, id: number): void {
  let to = 0;
  for (let from = 0; from < ids.length; from++, to++) {
    if (ids[from] === left && ids[from + 1] === right) {
      ids[to] = id;
      from++;
    } else ids[to] = ids[from]!;
  }
  ids.length = to;
}

/** The files of a tokenizer by name, as `AutoTokenizer` and this library read them. */
export function tokenizerFiles(bpe: Bpe, maxLength: number, form: TokenForm = conversation): Record<string, string> {
  const { special, begin, end, pad } = form;
  const json = (value: unknown): string => `${JSON.stringify(value, null, 1)}\n`;
  return {
    "tokenizer.json": json({
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: special.map((content, id) => ({
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: null,
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [
          { type: "Digits", individual_digits: true },
          { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
        ],
      },
      post_processor: begin === undefined ? null : beginning(begin, special.indexOf(begin)),
      decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
      model: {
        type: "BPE",
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: false,
        vocab: Object.fromEntries(bpe.vocab),
        merges: bpe.merges.map((pair) => [...pair]),
      },
    }),
    "tokenizer_config.json": json({
      tokenizer_class: "PreTrainedTokenizerFast",
      ...(begin === undefined ? {} : { bos_token: begin }),
      eos_token: end,
      pad_token: pad,
      ...(begin === undefined ? {} : { add_bos_token: true, add_eos_token: false }),
      clean_up_tokenization_spaces: false,
      model_max_length: maxLength,
      chat_template: form.chatTemplate,
    }),
  };
}

/** Puts a token before every text. */
function beginning(token: string, id: number): object {
  const first = { SpecialToken: { id: token, type_id: 0 } };
  const sequence = (name: string, type: number): object => ({ Sequence: { id: name, type_id: type } });
  return {
    type: "TemplateProcessing",
    single: [first, sequence("A", 0)],
    pair: [first, sequence("A", 0), sequence("B", 1)],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}
