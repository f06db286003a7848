import { throwIfInterrupted } from "../display/host.js";
import { ConfigError } from "../errors.js";
import type { ImageSource } from "../images/decode.js";
import type { Picture } from "../images/patches.js";
import type { CausalLM } from "../models/causal.js";
import { requireTokens } from "../models/classifier.js";
import { type CacheDType, KvCache } from "../nn/cache.js";
import * as calls from "../tensor/calls.js";
import { slice } from "../tensor/ops/layout.js";
import { reserveRandom } from "../tensor/ops/random.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { emptyLike, type Tensor, tensor } from "../tensor/tensor.js";
import { cacheCapacity, Decoder } from "./decode.js";

/** How the next token is chosen. Temperature 0 (the default) takes the likeliest. */
export interface SamplingOptions {
  maxNewTokens?: number;
  temperature?: number;
  /** Only the k likeliest tokens; 0: all. */
  topK?: number;
  /** Only the likeliest tokens that together reach this probability; 1: all. */
  topP?: number;
  /** Only tokens at least this share as likely as the likeliest; 0: all. */
  minP?: number;
  /** Logits of tokens that occurred are divided (multiplied below 0) by this; 1: off (Keskar et al. 2019). */
  repetitionPenalty?: number;
  /** Strings, or token ids, at which generation ends; they are not part of the result. */
  stop?: string | number | readonly (string | number)[];
  /**
   * Seed of what is drawn; without one each call goes on in the library's own stream. Token n of prompt i (from 0, in a list) is drawn with a number that follows
   * from the seed, i and n alone: the same whatever `batch` is and whatever else is in the list, and a prompt given alone draws as the first of a list.
   */
  seed?: number;
  /** Images for the image tokens of a prompt, in order (of several prompts, a list for each); a chat carries its own. For models that see. */
  images?: readonly ImageSource[];
  /**
   * How keys and values of earlier tokens are kept: by default in the activations' dtype; "bfloat16" or "float16" take half of float32's memory, "int8" a
   * quarter and a scale for each token and head. Fewer bits change the logits a little, see docs/decoding.md.
   */
  kvCache?: CacheDType;
  signal?: AbortSignal;
}

/** The same for several prompts. */
export interface PromptsOptions extends Omit<SamplingOptions, "images"> {
  /** The images of each prompt, a list for each. */
  images?: readonly (readonly ImageSource[])[];
}

/** Checked options with their defaults. */
export interface SamplingSettings {
  maxNewTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  seed: number | undefined;
  kvCache: CacheDType | undefined;
  signal: AbortSignal | undefined;
}

/** Checks sampling options. @throws ConfigError naming the option. */
export function samplingSettings(options: SamplingOptions): SamplingSettings {
  const s: SamplingSettings = {
    maxNewTokens: options.maxNewTokens ?? 256,
    temperature: options.temperature ?? 0,
    topK: options.topK ?? 0,
    topP: options.topP ?? 1,
    minP: options.minP ?? 0,
    repetitionPenalty: options.repetitionPenalty ?? 1,
    seed: options.seed,
    kvCache: options.kvCache,
    signal: options.signal,
  };
  const bad = (name: keyof SamplingSettings, expected: string): never => {
    throw new ConfigError(`generate: ${name} must be ${expected}, received ${String(s[name])}.`);
  };
  if (!Number.isInteger(s.maxNewTokens) || s.maxNewTokens < 1) bad("maxNewTokens", "a whole number from 1");
  if (!(s.temperature >= 0 && s.temperature < 1000)) bad("temperature", "a number from 0");
  if (!Number.isInteger(s.topK) || s.topK < 0) bad("topK", "a whole number from 0");
  if (!(s.topP > 0 && s.topP <= 1)) bad("topP", "in (0, 1]");
  if (!(s.minP >= 0 && s.minP < 1)) bad("minP", "in [0, 1)");
  if (!(s.repetitionPenalty > 0)) bad("repetitionPenalty", "a number above 0");
  if (s.kvCache !== undefined && !["float32", "bfloat16", "float16", "int8"].includes(s.kvCache))
    bad("kvCache", '"float32", "bfloat16", "float16" or "int8"');
  return s;
}

/** Tokens that fit behind a prompt. @throws ConfigError for an empty prompt, or one that leaves no room in the model's context. */
export function promptRoom(model: CausalLM, prompt: readonly number[], name = "the prompt"): number {
  requireTokens(model, "generate");
  if (prompt.length === 0)
    throw new ConfigError(
      `generate: ${name} has no tokens; give some text, or a tokenizer that begins with a token of its own.`,
    );
  const { maxPositions } = model.config;
  if (prompt.length >= maxPositions) {
    throw new ConfigError(
      `generate: ${name} has ${prompt.length} tokens, the model's context is ${maxPositions}; shorten the prompt.`,
    );
  }
  return maxPositions - prompt.length;
}

/** A key-value cache as the settings want it. */
export function cacheFor(model: CausalLM, sequences: number, capacity: number, settings: SamplingSettings): KvCache {
  const { headDim } = model.config;
  return new KvCache(sequences, capacity, model.device, { dtype: settings.kvCache, headDim });
}

/** The seed asked for, or the next one of the library's own stream. */
export function samplingSeed(settings: SamplingSettings): number {
  const stream = reserveRandom(4);
  return settings.seed ?? (stream.seed + Math.imul(stream.offset, 0x9e3779b1)) | 0;
}

/**
 * Token ids after `prompt`, which may show pictures, one at a time, with a key-value cache; ends (without giving it) at an id of `stops` or after maxNewTokens.
 * @throws ConfigError for an empty prompt, or one that leaves no room in the model's context.
 */
export async function* generateIds(
  model: CausalLM,
  prompt: readonly number[],
  settings: SamplingSettings,
  stops: ReadonlySet<number>,
  pictures: readonly Picture[] = [],
): AsyncGenerator<number, void> {
  const count = Math.min(settings.maxNewTokens, promptRoom(model, prompt));
  const limit = prompt.length + count;
  const cache = cacheFor(model, 1, cacheCapacity(prompt.length, limit), settings);
  const decoder = new Decoder(model, cache, settings, limit);
  const seed = samplingSeed(settings);
  const seen = [...prompt];
  const wasTraining = model.training;
  if (wasTraining) model.train(false);
  try {
    throwIfInterrupted("Generation", settings.signal);
    const id = await first(model, cache, seen, settings, seed, pictures);
    if (stops.has(id)) return;
    yield id;
    seen.push(id);
    for (let made = 1; made < count; ) {
      const row = { region: 0, position: seen.length - 1, id: seen.at(-1)!, seed, offset: made, seen };
      for await (const ids of decoder.steps([row], count - made)) {
        const id = ids[0]!;
        if (stops.has(id)) return;
        yield id;
        seen.push(id);
        made++;
      }
    }
  } finally {
    decoder.dispose();
    cache.dispose();
    if (wasTraining) model.train(true);
  }
}

/** The id after the prompt. */
async function first(
  model: CausalLM,
  cache: KvCache,
  prompt: readonly number[],
  s: SamplingSettings,
  seed: number,
  pictures: readonly Picture[],
): Promise<number> {
  const ids = Int32Array.from(prompt);
  const [begin, length] = [Int32Array.of(0), Int32Array.of(ids.length)];
  const shown = pictures.length > 0 ? { pictures: { ids, begin, length, of: [pictures] } } : {};
  const chosen = scope(() =>
    noGrad(() => {
      const h = model.hidden({ ...cache.rows(ids, begin, length), ...shown }, cache);
      const logits = model.logits(slice(h, 0, ids.length - 1, ids.length)); // (1, vocab)
      return sampleRow(logits, prompt, s, seed, 0);
    }),
  );
  try {
    return (await chosen.raw())[0]!;
  } finally {
    chosen.dispose();
  }
}

/** The id (int32, one element) chosen from one row of logits, which are changed by a repetition penalty. */
export function sampleRow(
  logits: Tensor,
  seen: readonly number[],
  s: SamplingSettings,
  seed: number,
  offset: number,
): Tensor {
  const vocab = logits.dim(-1);
  if (s.repetitionPenalty !== 1) {
    const ids = tensor(Int32Array.from(seen), { device: logits.device });
    calls.repetitionPenalty(ids.handle, logits.handle, 1, vocab, seen.length, s.repetitionPenalty);
  }
  return sampleRows(logits, s, seed, offset);
}

/**
 * The id (int32, one a row) chosen from each row of logits (rows, vocab). Row r draws with key `seed` and counter `offset` + r, or with those in row r of
 * `draws` (int32, (rows, 2)).
 */
export function sampleRows(logits: Tensor, s: SamplingSettings, seed: number, offset: number, draws?: Tensor): Tensor {
  const [rows, vocab] = logits.shape as [number, number];
  const ids = emptyLike(logits, [rows], "int32");
  const { temperature, topK, topP, minP } = s;
  const drawn = draws?.handle ?? 0;
  calls.sample(logits.handle, drawn, ids.handle, rows, vocab, topK, seed | 0, offset, temperature, topP, minP);
  return ids;
}

/** A streamed text as a whole. */
export async function joinText(parts: AsyncIterable<string>): Promise<string> {
  let text = "";
  for await (const part of parts) text += part;
  return text;
}
