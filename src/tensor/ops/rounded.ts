import type { Tensor } from "../tensor.js";
import type { FrozenWeight, RoundingWeight } from "./frozen.js";

/** Rows of an input as codes of 8 bits: what weights of one kind make of it for their products (`RoundingWeight`). */
export interface RoundedRows {
  /** uint8, (rows, in). */
  readonly codes: Tensor;
  /** float32, one a row. */
  readonly scale: Tensor;
}

/**
 * An input that several frozen weights would each round to the same codes: the first product rounds it, the last one frees the codes.
 * Nothing is shared where fewer than two of them do.
 */
export class SharedRounding {
  readonly #x: Tensor;
  readonly #rows: number;
  readonly #keep: Tensor[];
  #left: number;
  #rounded: RoundedRows | undefined;

  /** @param keep takes what is made in case some of the products are never asked for: its owner frees it at last. */
  constructor(x: Tensor, rows: number, weights: readonly (Tensor | FrozenWeight)[], keep: Tensor[]) {
    this.#x = x;
    this.#rows = rows;
    this.#keep = keep;
    const rounding = weights.filter((w) => this.#rounds(w)).length;
    this.#left = rounding > 1 ? rounding : 0;
  }

  #rounds(weight: Tensor | FrozenWeight): weight is RoundingWeight {
    return "roundsRows" in weight && (weight as RoundingWeight).roundsRows(this.#rows);
  }

  /** Runs the product of a weight with the codes of the input, or with none where it rounds nothing or nothing is shared. */
  use(weight: Tensor | FrozenWeight, product: (rounded: RoundedRows | undefined) => void): void {
    if (this.#left === 0 || !this.#rounds(weight)) {
      product(undefined);
      return;
    }
    if (!this.#rounded) {
      this.#rounded = weight.round(this.#x, this.#rows);
      this.#keep.push(this.#rounded.codes, this.#rounded.scale);
    }
    product(this.#rounded);
    if (--this.#left > 0) return;
    this.#rounded?.codes.dispose();
    this.#rounded?.scale.dispose();
    this.#rounded = undefined;
  }
}
