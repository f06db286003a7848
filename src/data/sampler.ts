/** Which examples make the next batch: a new order each epoch, reproducible from the seed and resumable in the middle. */
import { ConfigError, DataError, StateError } from "../errors.js";
import { Random, type RandomState } from "./random.js";

/** How batches are drawn. */
export interface SamplerOptions {
  /** Examples of a batch; the last of an epoch may have fewer. */
  batch: number;
  /** Default 42. */
  seed?: number;
  /** A new order each epoch (default), or the order that they have. */
  shuffle?: boolean;
  /** Examples of like length together, so that little is padded; default false. */
  groupByLength?: boolean;
}

/** All that a sampler needs to go on exactly where it was. Plain JSON. */
export interface SamplerState {
  /** Epochs that are over. */
  epoch: number;
  /** Batches of this epoch that were drawn. */
  position: number;
  /** The generator's state at the beginning of this epoch. */
  random: RandomState;
  /** Number of examples and size of a batch, to refuse a state of other data. */
  examples: number;
  batch: number;
}

// As many batches are sorted together, as in transformers: enough to find like lengths, few enough to stay random.
const MEGABATCHES = 50;

/** Updates of an epoch: one every `accumulate` batches, and one for what is left. */
export function updatesPerEpoch(batches: number, accumulate: number): number {
  return Math.floor(batches / accumulate) + (batches % accumulate > 0 ? 1 : 0);
}

/** Draws batches of example numbers. */
export class BatchSampler {
  /** Batches of an epoch. */
  readonly batches: number;
  readonly #lengths: ArrayLike<number>;
  readonly #options: Required<SamplerOptions>;
  readonly #random: Random;
  #epoch = 0;
  #position = 0;
  #begin: RandomState;
  #order: Int32Array[];

  /**
   * @param lengths Tokens of each example.
   * @throws DataError for no examples. @throws ConfigError for a batch that cannot be.
   */
  constructor(lengths: ArrayLike<number>, options: SamplerOptions) {
    const { batch, seed = 42, shuffle = true, groupByLength = false } = options;
    if (!Number.isSafeInteger(batch) || batch < 1)
      throw new ConfigError(`batch should be a whole number of at least 1, got ${batch}.`);
    if (lengths.length === 0) throw new DataError("There are no examples to draw batches from.");
    this.#lengths = lengths;
    this.#options = { batch, seed, shuffle, groupByLength };
    this.batches = Math.ceil(lengths.length / batch);
    this.#random = new Random(seed).fork("batches");
    this.#begin = this.#random.state;
    this.#order = this.#drawOrder();
  }

  /** Epochs that are over. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Batches of this epoch that were drawn. */
  get position(): number {
    return this.#position;
  }

  /** The numbers of the next batch's examples, or undefined once at the end of each epoch; the call after that begins the next. */
  next(): Int32Array | undefined {
    if (this.#position < this.batches) return this.#order[this.#position++];
    this.#epoch++;
    this.#position = 0;
    this.#begin = this.#random.state;
    this.#order = this.#drawOrder();
    return undefined;
  }

  /** What to save for {@link restore}. */
  state(): SamplerState {
    const { batch } = this.#options;
    return {
      epoch: this.#epoch,
      position: this.#position,
      random: [...this.#begin],
      examples: this.#lengths.length,
      batch,
    };
  }

  /**
   * Goes on from a saved state: the same batches follow as would have followed there.
   *
   * @throws StateError when it was saved with other data or another batch size.
   */
  restore(state: SamplerState): void {
    const { batch } = this.#options;
    if (state.examples !== this.#lengths.length || state.batch !== batch)
      throw new StateError(
        `The run was saved with ${state.examples} examples in batches of ${state.batch}, there are ${this.#lengths.length} in batches of ${batch}. Resume with the same data and batch.`,
      );
    if (!(state.position >= 0 && state.position <= this.batches))
      throw new StateError(`The saved order of batches is damaged: position ${state.position} of ${this.batches}.`);
    this.#random.restore(state.random);
    this.#begin = this.#random.state;
    this.#order = this.#drawOrder();
    this.#epoch = state.epoch;
    this.#position = state.position;
  }

  #drawOrder(): Int32Array[] {
    const { batch, shuffle, groupByLength } = this.#options;
    const numbers = Int32Array.from({ length: this.#lengths.length }, (_, i) => i);
    if (shuffle) this.#random.shuffle(numbers);
    if (groupByLength) this.#sortWithin(numbers, batch * MEGABATCHES);
    const batches: Int32Array[] = [];
    for (let i = 0; i < numbers.length; i += batch) batches.push(numbers.subarray(i, i + batch));
    return groupByLength && shuffle ? this.#mix(batches) : batches;
  }

  #sortWithin(numbers: Int32Array, size: number): void {
    for (let i = 0; i < numbers.length; i += size) {
      numbers.subarray(i, i + size).sort((a, b) => this.#lengths[b]! - this.#lengths[a]!);
    }
  }

  // Sorted batches in their order would train on long texts first, again and again. The longest batch of all comes first
  // nevertheless: if memory does not suffice, it fails at once.
  #mix(batches: Int32Array[]): Int32Array[] {
    const order = this.#random.shuffle(Int32Array.from(batches, (_, i) => i));
    const mixed = Array.from(order, (i) => batches[i]!);
    const longest = (batch: Int32Array) => batch.reduce((most, i) => Math.max(most, this.#lengths[i]!), 0);
    let first = 0;
    for (let i = 1; i < mixed.length; i++) if (longest(mixed[i]!) > longest(mixed[first]!)) first = i;
    const kept = mixed[0]!;
    mixed[0] = mixed[first]!;
    mixed[first] = kept;
    return mixed;
  }
}
