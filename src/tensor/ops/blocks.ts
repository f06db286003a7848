import { DeviceError, ShapeError } from "../../errors.js";
import * as calls from "../calls.js";
import type { Device } from "../device.js";
import { COMPUTE_CODE } from "../dtype.js";
import { record } from "../record.js";
import { shapeText, sizeOf } from "../shape.js";
import { empty, type Tensor } from "../tensor.js";
import { FrozenMatrix, type ProductOptions, productSizes } from "./frozen.js";

/** Elements that share a scale. */
export const BLOCK_ELEMENTS = 32;

/**
 * A frozen matrix in blocks of 32 along its rows, the numbers of llama.cpp's files unchanged: W = scale · code, the codes 8 bits (Q8_0), or
 * scale · code + minimum, the codes 4 bits (Q4_0 and Q4_1). Up to four rows are multiplied with the codes themselves, in float32; more may be rounded to bfloat16, if `compute` says so.
 */
export class BlockWeight extends FrozenMatrix {
  /** uint8: signed bytes (out, in), or two codes a byte, of a block's byte i element i in the low and i + 16 in the high nibble. */
  readonly codes: Tensor;
  /** float16, one a block. */
  readonly scale: Tensor;
  /** float16, one a block; 4 bits only. */
  readonly minimum: Tensor | undefined;

  constructor(shape: readonly number[], codes: Tensor, scale: Tensor, minimum: Tensor | undefined) {
    const size = sizeOf(shape);
    const bits = minimum ? 4 : 8;
    if (shape.length !== 2 || shape[1]! % BLOCK_ELEMENTS !== 0 || codes.size * 8 !== size * bits)
      throw new ShapeError(
        `BlockWeight: ${codes.size} bytes of codes do not fit a matrix ${shapeText(shape)} in ${bits} bits.`,
      );
    super(shape, codes, scale, minimum);
    this.codes = codes;
    this.scale = scale;
    this.minimum = minimum;
  }

  /** One with memory on the CPU and no numbers yet. @param bits 8 without minima, 4 with. */
  static empty(shape: readonly number[], bits: 4 | 8): BlockWeight {
    const size = sizeOf(shape);
    const halves = (): Tensor => empty([size / BLOCK_ELEMENTS], "float16", "cpu");
    return new BlockWeight(
      shape,
      empty([(size * bits) / 8], "uint8", "cpu"),
      halves(),
      bits === 4 ? halves() : undefined,
    );
  }

  get bits(): 4 | 8 {
    return this.minimum ? 4 : 8;
  }

  /** Itself on the CPU. @throws DeviceError for another device, whose kernels have no products with blocks. */
  to(device: Device): this {
    if (device === "cpu") return this;
    throw new DeviceError('Packed blocks stay on the CPU: load with device "cpu", or with another dtype for the GPU.');
  }

  product(a: Tensor, y: Tensor, m: number, transposed: boolean, options: ProductOptions = {}): void {
    const { sizes, strides } = productSizes(this, m, transposed);
    const { alpha = 1, beta = 0, bias, compute = "float32" } = options;
    calls.gemmBlocks(
      a.handle,
      this.codes.handle,
      this.scale.handle,
      this.minimum?.handle ?? 0,
      bias?.handle ?? 0,
      y.handle,
      ...sizes,
      ...strides,
      this.bits,
      COMPUTE_CODE[compute],
      alpha,
      beta,
    );
  }

  restore(): Tensor {
    const [rows, cols] = this.shape as [number, number];
    const y = empty(this.shape, "float32", "cpu");
    calls.dequantizeBlocks(
      this.codes.handle,
      this.scale.handle,
      this.minimum?.handle ?? 0,
      y.handle,
      rows,
      cols,
      this.bits,
    );
    return y;
  }
}

/** Rows of a packed table (vocab, dim) at int32 `ids` (…): (…, dim). */
export function embeddingBlocks(table: BlockWeight, ids: Tensor): Tensor {
  const [vocab, dim] = table.shape as [number, number];
  const y = empty([...ids.shape, dim], "float32", "cpu");
  calls.embeddingBlocks(
    table.codes.handle,
    table.scale.handle,
    table.minimum?.handle ?? 0,
    ids.handle,
    y.handle,
    ids.size,
    dim,
    vocab,
    table.bits,
  );
  record("embeddingBlocks", [], [y], "none"); // the table is frozen and ids have no gradient
  return y;
}
