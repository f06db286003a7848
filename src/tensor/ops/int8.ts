import { ShapeError } from "../../errors.js";
import * as calls from "../calls.js";
import type { Device } from "../device.js";
import { COMPUTE_CODE } from "../dtype.js";
import { shapeText } from "../shape.js";
import { emptyLike, type Tensor } from "../tensor.js";
import { FrozenMatrix, type ProductOptions, productSizes } from "./frozen.js";

/**
 * A frozen matrix in 8 bits, one scale a row (an output): W[r, c] = codes[r, c] · absmax[r] / 127, the weights of LLM.int8() (Dettmers et al. 2022)
 * byte for byte. Only the weight is quantised: inputs keep their precision and no outlier columns are set apart, so products are those of the
 * restored weight, never worse than LLM.int8()'s own.
 */
export class Int8Weight extends FrozenMatrix {
  /** Signed codes as uint8 bytes, (out, in). */
  readonly codes: Tensor;
  /** float32, one a row. */
  readonly absmax: Tensor;

  constructor(shape: readonly number[], codes: Tensor, absmax: Tensor) {
    super(shape, codes, absmax);
    this.codes = codes;
    this.absmax = absmax;
  }

  product(a: Tensor, y: Tensor, m: number, transposed: boolean, options: ProductOptions = {}): void {
    const { sizes, strides } = productSizes(this, m, transposed);
    const { alpha = 1, beta = 0, bias, compute = "float32" } = options;
    calls.gemmInt8(
      a.handle,
      this.codes.handle,
      this.absmax.handle,
      bias?.handle ?? 0,
      y.handle,
      ...sizes,
      ...strides,
      COMPUTE_CODE[compute],
      alpha,
      beta,
    );
  }

  restore(): Tensor {
    const [rows, cols] = this.shape as [number, number];
    const y = emptyLike(this.absmax, this.shape);
    calls.dequantizeInt8(this.codes.handle, this.absmax.handle, y.handle, rows, cols);
    return y;
  }

  to(device: Device): Int8Weight {
    if (device === this.device) return this;
    return new Int8Weight(this.shape, this.codes.to(device), this.absmax.to(device));
  }
}

/** Quantises a float32 matrix row by row, as bitsandbytes' `int8_vectorwise_quant` without a threshold. */
export function quantizeInt8(x: Tensor): Int8Weight {
  if (x.dtype !== "float32" || x.rank !== 2)
    throw new ShapeError(`quantizeInt8: expected a float32 matrix, received ${x.dtype} ${shapeText(x.shape)}.`);
  const [rows, cols] = x.shape as [number, number];
  const codes = emptyLike(x, x.shape, "uint8");
  const absmax = emptyLike(x, [rows]);
  calls.quantizeInt8(x.handle, codes.handle, absmax.handle, rows, cols);
  return new Int8Weight(x.shape, codes, absmax);
}
