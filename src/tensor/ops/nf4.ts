import { ShapeError } from "../../errors.js";
import * as calls from "../calls.js";
import type { Device } from "../device.js";
import { COMPUTE_CODE, type Compute } from "../dtype.js";
import { takesHalves } from "../native.js";
import { emptyLike, type Tensor } from "../tensor.js";
import { FrozenMatrix, linearFrozen, type ProductOptions, productSizes } from "./frozen.js";
import { linearUpdate } from "./linear-update.js";

/** Block length of the first quantisation (QLoRA, Dettmers et al. 2023, section 3). */
export const NF4_BLOCK = 64;
/** Block length of the quantised absmax values. */
export const ABSMAX_BLOCK = 256;

/** The sixteen values of a 4-bit code: NormalFloat (QLoRA) or bitsandbytes' 4-bit float (sign, 2 exponent bits, 1 of mantissa). */
export type FourBitKind = "nf4" | "fp4";
const KIND_CODE: Readonly<Record<FourBitKind, number>> = { nf4: 0, fp4: 1 };

/**
 * A frozen matrix in 4 bits, NormalFloat or FP4: two codes a byte (the even element in the high nibble), one absmax a block of the row-major
 * flattened matrix; with double quantisation absmax is 8 bits with a float32 scale for 256 of them and one offset.
 */
export class Nf4Weight extends FrozenMatrix {
  readonly kind: FourBitKind;
  readonly block: number;
  /** uint8, ceil(size/2). */
  readonly codes: Tensor;
  /** float32, or uint8 when doubly quantised. */
  readonly absmax: Tensor;
  readonly absmax2: Tensor | undefined;
  readonly offset: Tensor | undefined;

  constructor(
    shape: readonly number[],
    block: number,
    codes: Tensor,
    absmax: Tensor,
    absmax2?: Tensor,
    offset?: Tensor,
    kind: FourBitKind = "nf4",
  ) {
    super(shape, codes, absmax, absmax2, offset);
    this.kind = kind;
    this.block = block;
    this.codes = codes;
    this.absmax = absmax;
    this.absmax2 = absmax2;
    this.offset = offset;
  }

  get fourBit(): this {
    return this;
  }

  /** The kind as native ops count it. */
  get kindCode(): number {
    return KIND_CODE[this.kind];
  }

  get doubleQuant(): boolean {
    return this.absmax2 !== undefined;
  }

  product(a: Tensor, y: Tensor, m: number, transposed: boolean, options: ProductOptions = {}): void {
    const { sizes, strides } = productSizes(this, m, transposed);
    const { alpha = 1, beta = 0, bias, compute = "float32", update } = options;
    if (update) {
      linearUpdate([a], { codes: [this] }, y, m, transposed, update, options);
      return;
    }
    calls.gemmNf4(
      a.handle,
      this.codes.handle,
      this.absmax.handle,
      this.absmax2?.handle ?? 0,
      this.offset?.handle ?? 0,
      bias?.handle ?? 0,
      y.handle,
      ...sizes,
      this.block,
      ...strides,
      this.kindCode,
      COMPUTE_CODE[compute],
      alpha,
      beta,
    );
  }

  restore(): Tensor {
    return dequantizeNf4(this);
  }

  to(device: Device): Nf4Weight {
    if (device === this.device) return this;
    const parts = [this.codes, this.absmax, this.absmax2, this.offset].map((t) => t?.to(device));
    const [codes, absmax, absmax2, offset] = parts as [Tensor, Tensor, Tensor | undefined, Tensor | undefined];
    return new Nf4Weight(this.shape, this.block, codes, absmax, absmax2, offset, this.kind);
  }
}

/** Quantises a tensor (float32; on the GPU 16 bits too) as bitsandbytes' `quantize_4bit(quant_type=kind)` does; `doubleQuant` = its `compress_statistics`. */
export function quantizeNf4(
  x: Tensor,
  options: { doubleQuant?: boolean; block?: number; kind?: FourBitKind } = {},
): Nf4Weight {
  const { doubleQuant = false, block = NF4_BLOCK, kind = "nf4" } = options;
  if (x.dtype !== "float32" && !(takesHalves(x.place) && (x.dtype === "bfloat16" || x.dtype === "float16")))
    throw new ShapeError(`quantizeNf4: expected float32, received ${x.dtype}.`);
  if (!Number.isInteger(block) || block < 32 || (block & (block - 1)) !== 0) {
    throw new ShapeError(`quantizeNf4: blockSize must be a power of two from 32, received ${block}.`);
  }
  const blocks = Math.ceil(x.size / block);
  const codes = emptyLike(x, [Math.ceil(x.size / 2)], "uint8");
  const absmax = emptyLike(x, [blocks], "float32");
  calls.quantizeNf4(x.handle, codes.handle, absmax.handle, x.size, block, KIND_CODE[kind]);
  if (!doubleQuant) return new Nf4Weight(x.shape, block, codes, absmax, undefined, undefined, kind);
  const absmax8 = emptyLike(x, [blocks], "uint8");
  const absmax2 = emptyLike(x, [Math.ceil(blocks / ABSMAX_BLOCK)], "float32");
  const offset = emptyLike(x, [1], "float32");
  calls.quantizeAbsmax(absmax.handle, absmax8.handle, absmax2.handle, offset.handle, blocks);
  absmax.dispose();
  return new Nf4Weight(x.shape, block, codes, absmax8, absmax2, offset, kind);
}

/** The restored matrix, float32. */
export function dequantizeNf4(w: Nf4Weight): Tensor {
  const y = emptyLike(w.codes, w.shape, "float32");
  calls.dequantizeNf4(
    w.codes.handle,
    w.absmax.handle,
    w.absmax2?.handle ?? 0,
    w.offset?.handle ?? 0,
    y.handle,
    w.size,
    w.block,
    w.kindCode,
  );
  return y;
}

/** x Wᵀ + bias over a 4-bit weight; the weight is frozen, x has a gradient. */
export function linearNf4(x: Tensor, w: Nf4Weight, bias?: Tensor, compute?: Compute): Tensor {
  return linearFrozen(x, w, bias, compute);
}
