import * as calls from "../tensor/calls.js";
import { outsideScope } from "../tensor/scope.js";
import { empty, type Tensor, tensor } from "../tensor/tensor.js";
import type { KvCache, Rows } from "./cache.js";

/** A sequence as a step of decoding finds it. */
export interface StepRow {
  /** Its region of the cache. */
  readonly region: number;
  /** Tokens in that region: the position of `id`. */
  readonly position: number;
  /** The token that goes in next. */
  readonly id: number;
  /** Key and counter of the generator for the token that is sampled next. */
  readonly seed: number;
  readonly offset: number;
  /** Tokens so far, `id` included: what a repetition penalty looks at. */
  readonly seen: readonly number[];
  /** The adapter that it goes through, where each sequence has its own; "" is none. */
  readonly adapter?: string | undefined;
}

/**
 * What changes from one step of decoding to the next, all of it in device memory: the tokens that go in, their positions and places in the cache, the
 * generator's counters, the tokens seen. So a step is the same operations with the same numbers as the one before, and needs nothing from the host.
 */
export class StepState implements Disposable {
  readonly count: number;
  readonly rows: Rows;
  /** int32 (count, 2), where sampling needs it. */
  readonly draws: Tensor | undefined;
  /** int32 (count, capacity), -1 where nothing is, where a repetition penalty needs it. */
  readonly seen: Tensor | undefined;
  private readonly cache: KvCache;
  private readonly capacity: number;
  private readonly slots: Tensor;

  constructor(count: number, cache: KvCache, needs: { draws: boolean; seen: boolean }) {
    const { device, capacity } = cache;
    this.count = count;
    this.cache = cache;
    this.capacity = capacity;
    const made = outsideScope(() => {
      const ints = (shape: readonly number[]): Tensor => empty(shape, "int32", device);
      const [ids, positions, queryLength, keyBegin, keyLength, slots] = Array.from({ length: 6 }, () => ints([count]));
      return {
        ids: ids!,
        positions: positions!,
        slots: slots!,
        queryBegin: tensor(
          Int32Array.from({ length: count }, (_, r) => r),
          { device },
        ),
        queryLength: queryLength!,
        keyBegin: keyBegin!,
        keyLength: keyLength!,
        draws: needs.draws ? ints([count, 2]) : undefined,
        seen: needs.seen ? ints([count, capacity]) : undefined,
      };
    });
    const { ids, positions, slots, draws, seen, ...segments } = made;
    this.slots = slots;
    this.draws = draws;
    this.seen = seen;
    this.rows = { ids, positions, segments: { count, ...segments }, maxPosition: capacity };
  }

  /** Sets sequences under way, as many as `count` or fewer; the other rows stand still. */
  load(rows: readonly StepRow[]): void {
    const { count, capacity } = this;
    const column = (fn: (row: StepRow) => number, other: number): Int32Array =>
      Int32Array.from({ length: count }, (_, r) => (rows[r] ? fn(rows[r]) : other));
    const { ids, positions, segments } = this.rows;
    ids.set(column((r) => r.id, 0));
    positions.set(column((r) => r.position, 0));
    this.slots.set(column((r) => r.region * capacity + r.position, -1));
    segments.queryLength.set(column(() => 1, 0));
    segments.keyBegin.set(column((r) => r.region * capacity, 0));
    segments.keyLength.set(column((r) => r.position + 1, 0));
    this.draws?.set(
      Int32Array.from(Array.from({ length: count }, (_, r) => [rows[r]?.seed ?? 0, rows[r]?.offset ?? 0]).flat()),
    );
    if (!this.seen) return;
    const all = new Int32Array(count * capacity).fill(-1);
    rows.forEach((row, r) => void all.set(row.seen, r * capacity));
    this.seen.set(all);
  }

  /** The cache takes the keys and values of the step's rows. */
  begin(): void {
    this.cache.follow(this.slots);
  }

  /** Goes on with the tokens that were chosen, int32 (count): they are in `rows.ids` then. */
  advance(chosen: Tensor): void {
    const { ids, positions, segments } = this.rows;
    calls.decodeAdvance(
      chosen.handle,
      ids.handle,
      positions.handle,
      segments.keyLength.handle,
      this.slots.handle,
      this.draws?.handle ?? 0,
      this.seen?.handle ?? 0,
      this.count,
      this.capacity,
      this.seen ? this.capacity : 0,
    );
  }

  dispose(): void {
    const { ids, positions, segments } = this.rows;
    const { queryBegin, queryLength, keyBegin, keyLength } = segments;
    for (const t of [ids, positions, queryBegin, queryLength, keyBegin, keyLength, this.slots, this.draws, this.seen])
      t?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
