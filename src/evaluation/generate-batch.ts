import { throwIfInterrupted } from "../display/host.js";
import { ConfigError } from "../errors.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { Picture } from "../images/patches.js";
import type { CausalLM } from "../models/causal.js";
import type { KvCache } from "../nn/cache.js";
import { type RowRoute, routesOf, withRoutes } from "../nn/routes.js";
import * as calls from "../tensor/calls.js";
import { concat, slice } from "../tensor/ops/layout.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { cacheCapacity, Decoder } from "./decode.js";
import { cacheFor, promptRoom, type SamplingSettings, sampleRows, samplingSeed } from "./generate.js";
import { type Stops, StopText } from "./stop-text.js";

/** How several prompts are continued. */
export interface BatchOptions {
  /** Prompts that are continued at the same time. */
  batch: number;
  stops: Stops;
  /** The adapter of each prompt, "" for none; without the list the model's active one is for all. */
  adapters?: readonly string[] | undefined;
  /** The pictures that each prompt shows. */
  pictures?: readonly (readonly Picture[])[] | undefined;
  /** Called as each prompt is done, with the number of those that are. */
  onDone?: ((done: number) => void) | undefined;
}

/** One of the prompts under way: its region of the cache, and what goes in next. */
interface Slot {
  prompt: number;
  next: readonly number[];
  seen: number[];
  left: number;
  count: number;
  text: StopText;
  adapter: string | undefined;
  /** What its prompt shows; `undefined` where no prompt shows anything. */
  pictures: readonly Picture[] | undefined;
}
type Live = readonly (readonly [region: number, slot: Slot])[];

/**
 * The texts after prompts of any lengths. Up to `batch` of them share each pass through the model, without padding; as soon as one ends, the
 * next prompt takes its place in a pass in which the others go on by a token. Greedy texts equal those of one prompt at a time (up to
 * ties within rounding), sampled ones depend on the seed and the prompt's number, not on the batch.
 *
 * @throws ConfigError for an empty prompt, or one that leaves no room in the model's context.
 */
export async function generateBatch(
  model: CausalLM,
  tokenizer: Tokenizer,
  prompts: readonly (readonly number[])[],
  settings: SamplingSettings,
  options: BatchOptions,
): Promise<string[]> {
  const counts = prompts.map((ids, i) =>
    Math.min(settings.maxNewTokens, promptRoom(model, ids, `prompt ${i} (from 0)`)),
  );
  const texts = prompts.map(() => "");
  if (prompts.length === 0) return texts;
  const limit = prompts.reduce((most, ids, i) => Math.max(most, ids.length + counts[i]!), 0);
  const longest = prompts.reduce((most, ids) => Math.max(most, ids.length), 0);
  const size = Math.min(options.batch, prompts.length);
  const cache = cacheFor(model, size, cacheCapacity(longest, limit), settings);
  const decoder = new Decoder(model, cache, settings, limit);
  const seed = samplingSeed(settings);
  const slots: (Slot | undefined)[] = Array.from({ length: size });
  const { adapters } = options;
  // Angles of images stand beside the cache from its first pass on, or not at all: recorded steps know where they are.
  const shows = options.pictures?.some((each) => each.length > 0) ?? false;
  if (shows && adapters)
    throw new ConfigError(
      "generate: prompts that show images are continued by the active adapter; leave adapters out.",
    );
  const live = (): Live => {
    const all = [...slots.entries()].filter((e): e is [number, Slot] => e[1] !== undefined);
    // Rows of one adapter stand together: each of its layers is then one product.
    return adapters
      ? all.sort(([, a], [, b]) => (a.adapter! < b.adapter! ? -1 : a.adapter! > b.adapter! ? 1 : 0))
      : all;
  };
  const wasTraining = model.training;
  if (wasTraining) model.train(false);
  let waiting = 0;
  let done = 0;

  /** The next prompts take the free regions. */
  const fill = (): boolean => {
    const before = waiting;
    for (let s = 0; s < size && waiting < prompts.length; s++) {
      if (slots[s]) continue;
      const ids = prompts[waiting]!;
      const decoder = tokenizer.streamDecoder({ skipSpecialTokens: true, after: ids });
      const text = new StopText(decoder, options.stops.strings);
      slots[s] = {
        prompt: waiting,
        next: ids,
        seen: [...ids],
        left: counts[waiting]!,
        count: 0,
        text,
        adapter: adapters?.[waiting],
        pictures: shows ? options.pictures![waiting] : undefined,
      };
      cache.lengths[s] = 0;
      waiting++;
    }
    return waiting > before;
  };
  const take = (region: number, slot: Slot, id: number): void => {
    slot.left--;
    slot.count++;
    const stopped = options.stops.ids.has(id);
    if (!stopped) texts[slot.prompt] += slot.text.push(id);
    slot.next = [id];
    slot.seen.push(id);
    if (!stopped && !slot.text.ended && slot.left > 0) return;
    texts[slot.prompt] += slot.text.end();
    slots[region] = undefined;
    options.onDone?.(++done);
  };

  try {
    for (;;) {
      throwIfInterrupted("Generation", settings.signal);
      if (fill()) {
        const all = live();
        decoder.makeRoom(Math.max(...all.map(([region, slot]) => cache.lengths[region]! + slot.next.length)));
        const ids = await nextIds(model, cache, all, settings, seed);
        for (const [k, [region, slot]] of all.entries()) take(region, slot, ids[k]!);
        continue;
      }
      const all = live();
      if (all.length === 0) return texts;
      const rows = all.map(([region, slot]) => ({
        region,
        position: cache.lengths[region]!,
        id: slot.next[0]!,
        seed: seedOf(slot, seed),
        offset: slot.count,
        seen: slot.seen,
        adapter: slot.adapter,
      }));
      const most = Math.max(...all.map(([, slot]) => slot.left));
      // A sequence that has ended is decoded on with the others: until a prompt can take its place, or too few are left.
      const few = model.device === "cuda" ? all.length / 2 : all.length - 1;
      for await (const ids of decoder.steps(rows, most)) {
        for (const [k, [region, slot]] of all.entries()) {
          if (slots[region] !== slot) continue;
          cache.lengths[region] = cache.lengths[region]! + 1;
          take(region, slot, ids[k]!);
        }
        const left = all.filter(([region, slot]) => slots[region] === slot).length;
        if (left <= few || (left < all.length && waiting < prompts.length)) decoder.stop();
      }
    }
  } finally {
    decoder.dispose();
    cache.dispose();
    if (wasTraining) model.train(true);
  }
}

const seedOf = (slot: Slot, seed: number): number => (seed + Math.imul(slot.prompt, 0x9e3779b1)) | 0;

/** One pass: the tokens that wait in each slot go in, the id that follows each comes out. */
async function nextIds(
  model: CausalLM,
  cache: KvCache,
  live: Live,
  settings: SamplingSettings,
  seed: number,
): Promise<ArrayLike<number>> {
  const begin = new Int32Array(cache.sequences);
  const length = new Int32Array(cache.sequences);
  let rows = 0;
  for (const [s, { next }] of live) {
    begin[s] = rows;
    length[s] = next.length;
    rows += next.length;
  }
  const ids = Int32Array.from(live.flatMap(([, slot]) => slot.next));
  const routes = (count: (slot: Slot) => number): RowRoute[] | undefined =>
    live.every(([, slot]) => slot.adapter === undefined)
      ? undefined
      : routesOf(
          live.map(([, slot]) => slot.adapter || undefined),
          live.map(([, slot]) => count(slot)),
        );
  // A sequence shows its pictures when it begins.
  const of = Array.from({ length: cache.sequences }, (): readonly Picture[] => []);
  for (const [s, slot] of live) if (slot.count === 0 && slot.pictures) of[s] = slot.pictures;
  const shown = live.some(([, slot]) => slot.pictures) ? { pictures: { ids, begin, length, of } } : {};
  const chosen = scope(() =>
    noGrad(() => {
      const h = withRoutes(
        routes((slot) => slot.next.length),
        () => model.hidden({ ...cache.rows(ids, begin, length), ...shown }, cache),
      );
      const ends = live.map(([s]) => begin[s]! + length[s]! - 1);
      const last = rows === live.length ? h : concat(ends.map((row) => slice(h, 0, row, row + 1)));
      const logits = withRoutes(
        routes(() => 1),
        () => model.logits(last),
      ); // (live, vocab)
      if (settings.repetitionPenalty !== 1) penalise(logits, live, settings.repetitionPenalty);
      const draws = Int32Array.from(live.flatMap(([, slot]) => [seedOf(slot, seed), slot.count]));
      return sampleRows(logits, settings, 0, 0, tensor(draws, { device: model.device }));
    }),
  );
  try {
    return (await chosen.raw()) as ArrayLike<number>;
  } finally {
    chosen.dispose();
  }
}

function penalise(logits: Tensor, live: Live, penalty: number): void {
  const width = Math.max(...live.map(([, slot]) => slot.seen.length));
  const seen = new Int32Array(live.length * width).fill(-1);
  for (const [k, [, slot]] of live.entries()) seen.set(slot.seen, k * width);
  const ids = tensor(seen, { device: logits.device });
  calls.repetitionPenalty(ids.handle, logits.handle, live.length, logits.dim(-1), width, penalty);
}
