import * as calls from "../tensor/calls.js";
import { DTYPE_BYTES } from "../tensor/dtype.js";
import { part } from "../tensor/host.js";
import { fill } from "../tensor/ops/elementwise.js";
import { reserveRandom } from "../tensor/ops/random.js";
import { outsideScope } from "../tensor/scope.js";
import { emptyLike, type Tensor } from "../tensor/tensor.js";
import type { Initializer } from "./module.js";

/** Every element set to a value. */
export function constant(value: number): Initializer {
  return (p) => void fill(p, value);
}

export const zeros: Initializer = constant(0);
export const ones: Initializer = constant(1);

/** Uniform in ±bound. */
export function uniformInit(bound: number): Initializer {
  return (p) => {
    const { seed, offset } = reserveRandom(p.size);
    calls.randomUniform(p.handle, p.size, seed, offset, -bound, bound);
  };
}

/** Fills a float32 tensor with normal numbers of mean 0, in place. */
export function normalInto(target: Tensor, std: number): void {
  const { seed, offset } = reserveRandom(target.size);
  calls.randomNormal(target.handle, target.size, seed, offset, 0, std);
}

/** Normal with a standard deviation. */
export function normalInit(std: number): Initializer {
  return (p) => normalInto(p, std);
}

/** Uniform in ±1/sqrt(fan in): what `kaiming_uniform_(a=sqrt(5))` amounts to (He et al. 2015), as torch's Linear. */
export function kaimingUniform(fanIn: number): Initializer {
  return uniformInit(1 / Math.sqrt(fanIn));
}

// Elements that are initialised at once: a multiple of four, so that pieces draw the same random numbers as the whole would.
const PIECE = 2 ** 24;

/** Fills a 16-bit parameter with what `init` gives a float32 one (the same to each element, or the next random number), rounded, piece by piece. */
export function rounded(init: Initializer): Initializer {
  return (p) => {
    for (let at = 0; at < p.size; at += PIECE) {
      const count = Math.min(PIECE, p.size - at);
      const full = outsideScope(() => emptyLike(p, [count], "float32"));
      const there = outsideScope(() => part(p, [count], p.dtype, at * DTYPE_BYTES[p.dtype]));
      init(full);
      calls.copy(full.handle, there.handle, count);
      full.dispose();
      there.dispose();
    }
  };
}
