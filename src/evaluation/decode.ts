import { throwIfInterrupted } from "../display/host.js";
import type { CausalLM } from "../models/causal.js";
import type { KvCache } from "../nn/cache.js";
import { type RowRoute, routesOf, withRoutes } from "../nn/routes.js";
import { type StepRow, StepState } from "../nn/step.js";
import * as calls from "../tensor/calls.js";
import { download } from "../tensor/native.js";
import { noGrad } from "../tensor/record.js";
import { Recording } from "../tensor/recording.js";
import { scope } from "../tensor/scope.js";
import { type SamplingSettings, sampleRows } from "./generate.js";

/** Steps that a GPU is given before the ids of the first of them are here: it never waits for JavaScript. */
const AHEAD = 3;
/** Recordings that are tried before the model is run from JavaScript for good; fewer steps than `WORTH` are not recorded. */
const TRIES = 4;
const WORTH = 6;
/** Numbers of sequences, or mixtures of adapters, whose state and recording are kept: a recording holds its step's memory. */
const KEPT = 8;
/** The cache grows by this many tokens, or by half. */
const CHUNK = 256;

let replaying = process.env.TUNEBOOK_GRAPHS !== "0";

/** Whether steps are recorded and run again (true unless TUNEBOOK_GRAPHS=0); gives what it was. @internal */
export function setReplaying(on: boolean): boolean {
  const before = replaying;
  replaying = on;
  return before;
}

/** A capacity for `tokens` and some more, at most `limit`. */
export function cacheCapacity(tokens: number, limit: number): number {
  return Math.min(limit, Math.ceil(Math.max(tokens + CHUNK, tokens * 1.5) / 64) * 64);
}

/** One number of sequences under way (with their adapters, where each has its own), and its recording once there is one. */
interface Batch {
  state: StepState;
  routes: readonly RowRoute[] | undefined;
  tries: number;
  candidate: Recording | undefined;
  ready: Recording | undefined;
}

/**
 * Decodes a token at a time behind a cache that holds the tokens before. The step stands still on the device: its operations are recorded, and as soon as two
 * recordings of it are the same they are run again without the model's code, as one CUDA graph on a GPU. A model whose step sends or reads values, frees a
 * tensor from before, keeps one that it made, or is not the same twice is run from its code in every step.
 */
export class Decoder implements Disposable {
  private readonly model: CausalLM;
  private readonly cache: KvCache;
  private readonly settings: SamplingSettings;
  private readonly limit: number;
  private readonly batches = new Map<string, Batch>();
  private stopped = false;

  /** @param limit tokens that a region of the cache may come to hold. */
  constructor(model: CausalLM, cache: KvCache, settings: SamplingSettings, limit: number) {
    this.model = model;
    this.cache = cache;
    this.settings = settings;
    this.limit = limit;
  }

  /**
   * The ids chosen in each of up to `most` steps of some sequences, one a sequence. It ends early when the cache has to grow (begin anew with what has
   * come) or after `stop()`.
   * @throws InterruptedError
   */
  async *steps(rows: readonly StepRow[], most: number): AsyncGenerator<Int32Array, void> {
    const last = rows.reduce((n, row) => Math.max(n, row.position), 0);
    this.makeRoom(last + 1);
    const batch = this.batch(rows);
    batch.state.load(rows);
    const ahead = this.model.device === "cuda" ? AHEAD : 1;
    const count = Math.min(most, this.cache.capacity - last);
    const flying: Promise<Int32Array>[] = [];
    this.stopped = false;
    for (let launched = 0; ; ) {
      throwIfInterrupted("Generation", this.settings.signal);
      while (!this.stopped && launched < count && flying.length < ahead)
        flying.push(this.launch(batch, count - launched++));
      const next = flying.shift();
      if (!next) return;
      yield await next;
    }
  }

  /** No further step begins; those on their way are still given. */
  stop(): void {
    this.stopped = true;
  }

  /** Frees all but the cache. */
  dispose(): void {
    for (const key of [...this.batches.keys()]) this.drop(key);
  }

  private drop(key: string): void {
    const { state, candidate, ready } = this.batches.get(key)!;
    candidate?.dispose();
    ready?.dispose();
    state.dispose();
    this.batches.delete(key);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Makes room for so many tokens in each region. */
  makeRoom(tokens: number): void {
    if (tokens <= this.cache.capacity) return;
    this.dispose(); // all of it knows where the regions stand
    this.cache.grow(cacheCapacity(tokens, this.limit));
  }

  private batch(rows: readonly StepRow[]): Batch {
    const count = rows.length;
    const routes = stepRoutes(rows);
    const key = routes ? JSON.stringify(routes) : `${count}`;
    let found = this.batches.get(key);
    if (found) {
      this.batches.delete(key); // the last one used stands last
      this.batches.set(key, found);
    } else {
      if (this.batches.size >= KEPT) this.drop(this.batches.keys().next().value!);
      const { temperature, repetitionPenalty } = this.settings;
      const needs = { draws: temperature > 0, seen: repetitionPenalty !== 1 };
      found = {
        state: new StepState(count, this.cache, needs),
        routes,
        tries: 0,
        candidate: undefined,
        ready: undefined,
      };
      this.batches.set(key, found);
    }
    return found;
  }

  private launch(batch: Batch, left: number): Promise<Int32Array> {
    if (batch.ready) batch.ready.launch();
    else if (!replaying || batch.tries >= TRIES || left < WORTH) this.step(batch);
    else this.record(batch);
    const ids = new Int32Array(batch.state.count);
    const read = download(batch.state.rows.ids.handle, ids).then(() => ids);
    read.catch(() => {}); // whoever awaits it is told; after an early end nobody does
    return read;
  }

  private record(batch: Batch): void {
    batch.tries++;
    const recording = Recording.of(this.model.device, () => this.step(batch));
    const before = batch.candidate;
    batch.candidate = undefined;
    if (recording.obstacle !== undefined) recording.dispose();
    else if (before?.equals(recording)) batch.ready = recording;
    else batch.candidate = recording;
    before?.dispose();
  }

  private step({ state, routes }: Batch): void {
    const { settings: s, model } = this;
    scope(() =>
      noGrad(() => {
        state.begin();
        const logits = withRoutes(routes, () => model.logits(model.hidden(state.rows, this.cache))); // (count, vocab)
        if (state.seen) {
          const [count, capacity] = state.seen.shape as [number, number];
          calls.repetitionPenalty(
            state.seen.handle,
            logits.handle,
            count,
            logits.dim(-1),
            capacity,
            s.repetitionPenalty,
          );
        }
        state.advance(sampleRows(logits, s, 0, 0, state.draws));
      }),
    );
  }
}

/** The routes of one row a sequence; `undefined` where sequences have no adapters of their own. */
function stepRoutes(rows: readonly StepRow[]): readonly RowRoute[] | undefined {
  if (rows.every((row) => row.adapter === undefined)) return undefined;
  return routesOf(
    rows.map((row) => row.adapter || undefined),
    rows.map(() => 1),
  );
}
