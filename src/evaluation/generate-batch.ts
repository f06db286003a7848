import { throwIfInterrupted } from "../display/host.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalLM } from "../models/causal.js";
import { KvCache } from "../nn/cache.js";
import { concat, slice } from "../tensor/ops/layout.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { promptRoom, type SamplingSettings, sampleRow, sampleRows, samplingSeed } from "./generate.js";
import { type Stops, StopText } from "./stop-text.js";

/** How several prompts are continued. */
export interface BatchOptions {
  /** Prompts that are continued at the same time. */
  batch: number;
  stops: Stops;
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
}

/**
 * The texts after prompts of any lengths. Up to `batch` of them share each pass through the model, without padding; as soon as one ends, the
 * next prompt takes its place in the same pass in which the others go on by a token. Greedy texts equal those of one prompt at a time (up to
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
  const capacity = prompts.reduce((most, ids, i) => Math.max(most, ids.length + counts[i]!), 0);
  const size = Math.min(options.batch, prompts.length);
  const cache = new KvCache(size, capacity, model.device);
  const seed = samplingSeed(settings);
  const slots: (Slot | undefined)[] = Array.from({ length: size });
  const wasTraining = model.training;
  if (wasTraining) model.train(false);
  let waiting = 0;
  let done = 0;
  try {
    for (;;) {
      throwIfInterrupted("Generation", settings.signal);
      for (let s = 0; s < size && waiting < prompts.length; s++) {
        if (slots[s]) continue;
        const ids = prompts[waiting]!;
        const decoder = tokenizer.streamDecoder({ skipSpecialTokens: true, after: ids });
        const text = new StopText(decoder, options.stops.strings);
        slots[s] = { prompt: waiting, next: ids, seen: [...ids], left: counts[waiting]!, count: 0, text };
        cache.lengths[s] = 0;
        waiting++;
      }
      const live = [...slots.entries()].filter((e): e is [number, Slot] => e[1] !== undefined);
      if (live.length === 0) return texts;
      const ids = await nextIds(model, cache, live, settings, seed);
      for (const [k, [s, slot]] of live.entries()) {
        const id = ids[k]!;
        slot.left--;
        slot.count++;
        const stopped = options.stops.ids.has(id);
        if (!stopped) texts[slot.prompt] += slot.text.push(id);
        slot.next = [id];
        if (settings.repetitionPenalty !== 1) slot.seen.push(id);
        if (!stopped && !slot.text.ended && slot.left > 0) continue;
        texts[slot.prompt] += slot.text.end();
        slots[s] = undefined;
        options.onDone?.(++done);
      }
    }
  } finally {
    cache.dispose();
    if (wasTraining) model.train(true);
  }
}

/** One pass: the tokens that wait in each slot go in, the id that follows each comes out. */
async function nextIds(
  model: CausalLM,
  cache: KvCache,
  live: readonly (readonly [number, Slot])[],
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
  const chosen = scope(() =>
    noGrad(() => {
      const h = model.hidden(cache.rows(ids, begin, length), cache);
      const ends = live.map(([s]) => begin[s]! + length[s]! - 1);
      const last = rows === live.length ? h : concat(ends.map((row) => slice(h, 0, row, row + 1)));
      const logits = model.logits(last); // (live, vocab)
      const greedy = settings.temperature === 0 && settings.repetitionPenalty === 1;
      if (greedy) return sampleRows(logits, settings, seed, 0);
      return concat(live.map(([, slot], k) => sampleSlot(slice(logits, 0, k, k + 1), slot, settings, seed)));
    }),
  );
  try {
    return (await chosen.raw()) as ArrayLike<number>;
  } finally {
    chosen.dispose();
  }
}

function sampleSlot(logits: Tensor, slot: Slot, settings: SamplingSettings, seed: number): Tensor {
  return sampleRow(logits, slot.seen, settings, (seed + Math.imul(slot.prompt, 0x9e3779b1)) | 0, slot.count);
}
