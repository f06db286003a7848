/**
 * Seeded random numbers: xoshiro128** (Blackman and Vigna, 2018), its state filled by splitmix32.
 * The same seed gives the same numbers on every machine; the state is four integers, so a checkpoint can keep it.
 */
import { ConfigError } from "../errors.js";

/** Four unsigned 32-bit integers. */
export type RandomState = [number, number, number, number];

const rotateLeft = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits));

export class Random {
  /** The seed that this generator started from. */
  readonly seed: number;
  #a = 0;
  #b = 0;
  #c = 0;
  #d = 0;

  /** @param seed an integer, 0 … 2^53 - 1. */
  constructor(seed: number) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new ConfigError(`seed: expected an integer from 0 to 2^53 - 1, got ${String(seed)}`);
    }
    this.seed = seed;
    let x = (seed >>> 0) ^ Math.imul(Math.floor(seed / 4294967296), 0x85ebca6b);
    const next = (): number => {
      x = (x + 0x9e3779b9) | 0;
      let z = x;
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return z ^ (z >>> 15);
    };
    this.#a = next();
    this.#b = next();
    this.#c = next();
    this.#d = next();
  }

  /** A uniform unsigned 32-bit integer. */
  nextUint32(): number {
    const result = Math.imul(rotateLeft(Math.imul(this.#b, 5), 7), 9) >>> 0;
    const t = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= t;
    this.#d = rotateLeft(this.#d, 11);
    return result;
  }

  /** A uniform number in [0, 1) with 53 random bits. */
  nextFloat(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** A uniform integer in [0, n), without bias. @param n 1 … 2^32. */
  nextInt(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 4294967296) {
      throw new ConfigError(`nextInt: expected a bound from 1 to 2^32, got ${String(n)}`);
    }
    const limit = 4294967296 - (4294967296 % n);
    let value = this.nextUint32();
    while (value >= limit) value = this.nextUint32();
    return value % n;
  }

  /** A draw from the standard normal distribution (Marsaglia's polar method, second value dropped to keep the state small). */
  nextNormal(): number {
    for (;;) {
      const u = 2 * this.nextFloat() - 1;
      const v = 2 * this.nextFloat() - 1;
      const s = u * u + v * v;
      if (s > 0 && s < 1) return u * Math.sqrt((-2 * Math.log(s)) / s);
    }
  }

  /** Puts the items of an array (or typed array) in random order, in place (Fisher-Yates), and returns it. */
  shuffle<T extends { length: number; [index: number]: unknown }>(items: T): T {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.nextInt(i + 1);
      const kept = items[i];
      items[i] = items[j];
      items[j] = kept;
    }
    return items;
  }

  /** The integers 0 … n - 1 in random order. */
  permutation(n: number): Uint32Array {
    const order = new Uint32Array(n);
    for (let i = 0; i < n; i++) order[i] = i;
    return this.shuffle(order);
  }

  /** What {@link restore} takes: plain integers, fit for JSON. */
  get state(): RandomState {
    return [this.#a >>> 0, this.#b >>> 0, this.#c >>> 0, this.#d >>> 0];
  }

  /** Goes on exactly where a generator with this state stood. */
  restore(state: readonly number[]): this {
    const valid = state.length === 4 && state.every((word) => Number.isInteger(word) && word >= 0 && word < 4294967296);
    if (!valid || state.every((word) => word === 0)) {
      throw new ConfigError("random state: expected four unsigned 32-bit integers, not all zero");
    }
    [this.#a, this.#b, this.#c, this.#d] = state as RandomState;
    return this;
  }

  /** An independent generator for a named use, so that two uses of one seed do not see the same numbers. */
  fork(name: string): Random {
    let hash = 0x811c9dc5 ^ (this.seed >>> 0) ^ Math.imul(Math.floor(this.seed / 4294967296), 0x9e3779b9);
    for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
    return new Random((hash >>> 0) + (this.seed % 2097152) * 4294967296);
  }
}
