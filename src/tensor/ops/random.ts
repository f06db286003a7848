import { ConfigError } from "../../errors.js";
import * as calls from "../calls.js";
import { record } from "../record.js";
import { empty, type Tensor } from "../tensor.js";

// One counter-based stream (Philox 4x32-10: Salmon et al. 2011): a key, and how many groups of four numbers were drawn.
let key = 0;
let drawn = 0;

/** Seeds every random operation of this process: initial weights, dropout, sampling, noise. */
export function seed(n: number): void {
  if (!Number.isInteger(n)) throw new ConfigError(`seed(): expected a whole number, received ${n}.`);
  key = n | 0;
  drawn = 0;
}

/** The generator's state, to be saved with a checkpoint. */
export function randomState(): { key: number; drawn: number } {
  return { key, drawn };
}

/** Puts a saved state back. */
export function restoreRandomState(state: { key: number; drawn: number }): void {
  key = state.key | 0;
  drawn = state.drawn;
}

/** Reserves random numbers for `n` elements: the same seed and offset give the same numbers again. */
export function reserveRandom(n: number): { seed: number; offset: number } {
  const offset = drawn | 0;
  drawn = (drawn + Math.ceil(n / 4)) % 0x7fffffff;
  return { seed: key, offset };
}

/** Uniform numbers in [low, high). */
export function uniform(shape: readonly number[], low = 0, high = 1): Tensor {
  const y = empty(shape);
  const { seed, offset } = reserveRandom(y.size);
  calls.randomUniform(y.handle, y.size, seed, offset, low, high);
  return y;
}

/** Normally distributed numbers. */
export function normal(shape: readonly number[], mean = 0, std = 1): Tensor {
  const y = empty(shape);
  const { seed, offset } = reserveRandom(y.size);
  calls.randomNormal(y.handle, y.size, seed, offset, mean, std);
  return y;
}

/** Inverted dropout: an element is 0 with probability p, else divided by 1 - p. */
export function dropout(x: Tensor, p: number): Tensor {
  if (!(p >= 0 && p < 1)) throw new ConfigError(`dropout: expected a probability in [0, 1), received ${p}.`);
  if (p === 0) return x;
  const mask = reserveRandom(x.size);
  const y = empty(x.shape);
  calls.dropout(x.handle, y.handle, x.size, mask.seed, mask.offset, p);
  const back = (dy: Tensor): [Tensor] => {
    const dx = empty(x.shape);
    calls.dropout(dy.handle, dx.handle, x.size, mask.seed, mask.offset, p);
    return [dx];
  };
  record("dropout", [x], [y], back, [], []);
  return y;
}
