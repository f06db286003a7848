import { ShapeError } from "../../errors.js";
import * as calls from "../calls.js";
import type { Device } from "../device.js";
import { COMPUTE_CODE } from "../dtype.js";
import { shapeText } from "../shape.js";
import { emptyLike, type Tensor } from "../tensor.js";
import { FrozenMatrix, type ProductOptions, productSizes, type RoundingWeight } from "./frozen.js";
import type { RoundedRows } from "./rounded.js";

/** Rows of inputs from which a product rounds them: fewer are bound by reading the weight, and rounding them would only cost digits. */
const LEAST_ROUNDED = 64;

/**
 * A frozen matrix in 8-bit floats, E4M3 (4 bits of exponent, 3 of mantissa, largest 448, no infinities; Micikevicius et al. 2022, "FP8 formats for deep
 * learning"), one scale a row (an output): W[r, c] = value(codes[r, c]) · scale[r] with scale[r] = max|W[r, :]| / 448. A weight of 2⁻⁶ · scale or more is off
 * by at most 1/16 of itself, a smaller one by at most 2⁻¹⁰ · scale; a matrix of normal numbers by 2.6% of its size.
 *
 * With `roundInputs` a product of 64 rows and more rounds its inputs as well, each row x by a scale of its own, so that a GPU of compute capability 8.9
 * and newer multiplies the codes themselves: y = s_x · (codes(x) · codes(W)ᵀ) · s_W. The gradient of inputs goes the same way: the scales of W lie along
 * the dimension that is summed over, so they multiply dy first: dx = s · codes(dy ∘ s_W) · codes(W).
 */
export class Fp8Weight extends FrozenMatrix implements RoundingWeight {
  /** E4M3 codes as uint8 bytes, (out, in). */
  readonly codes: Tensor;
  /** float32, one a row. */
  readonly scale: Tensor;
  /** Whether products of many rows round their inputs to E4M3 too. */
  readonly roundInputs: boolean;

  constructor(shape: readonly number[], codes: Tensor, scale: Tensor, roundInputs: boolean) {
    super(shape, codes, scale);
    this.codes = codes;
    this.scale = scale;
    this.roundInputs = roundInputs;
  }

  product(a: Tensor, y: Tensor, m: number, transposed: boolean, options: ProductOptions = {}): void {
    const { sizes, strides } = productSizes(this, m, transposed);
    const { alpha = 1, beta = 0, bias, compute = "float32", keepInputs = false, rounded } = options;
    calls.gemmFp8(
      (rounded?.codes ?? a).handle,
      this.codes.handle,
      this.scale.handle,
      bias?.handle ?? 0,
      rounded?.scale.handle ?? 0,
      y.handle,
      ...sizes,
      ...strides,
      this.roundsRows(m) && !keepInputs ? 1 : 0,
      COMPUTE_CODE[compute],
      alpha,
      beta,
    );
  }

  roundsRows(rows: number): boolean {
    return this.roundInputs && rows >= LEAST_ROUNDED;
  }

  round(x: Tensor, rows: number): RoundedRows {
    return rowsToCodes(x, rows, this.shape[1]!);
  }

  restore(): Tensor {
    const [rows, cols] = this.shape as [number, number];
    const y = emptyLike(this.scale, this.shape);
    calls.dequantizeFp8(this.codes.handle, this.scale.handle, y.handle, rows, cols);
    return y;
  }

  to(device: Device): Fp8Weight {
    if (device === this.device) return this;
    return new Fp8Weight(this.shape, this.codes.to(device), this.scale.to(device), this.roundInputs);
  }
}

/**
 * Quantises a matrix row by row: codes of x · (448 / max|row|), to nearest, ties to even. A row whose elements all are below 2⁻¹⁰⁰ becomes zeros; one with
 * NaN or an infinity becomes NaN.
 * @param x float32; on the GPU of 16 bits too.
 */
export function quantizeFp8(x: Tensor, { roundInputs = true }: { roundInputs?: boolean } = {}): Fp8Weight {
  const float = x.dtype === "float32" || (x.device === "cuda" && (x.dtype === "bfloat16" || x.dtype === "float16"));
  if (!float || x.rank !== 2)
    throw new ShapeError(`quantizeFp8: expected a float32 matrix, received ${x.dtype} ${shapeText(x.shape)}.`);
  const [rows, cols] = x.shape as [number, number];
  const { codes, scale } = rowsToCodes(x, rows, cols);
  return new Fp8Weight(x.shape, codes, scale, roundInputs);
}

function rowsToCodes(x: Tensor, rows: number, cols: number): RoundedRows {
  const codes = emptyLike(x, [rows, cols], "uint8");
  const scale = emptyLike(x, [rows], "float32");
  calls.quantizeFp8(x.handle, codes.handle, scale.handle, rows, cols);
  return { codes, scale };
}
