import { ShapeError } from "../../errors.js";
import * as calls from "../calls.js";
import { record } from "../record.js";
import { shapeMismatch, shapeText, sizeOf } from "../shape.js";
import { empty, type Tensor } from "../tensor.js";
import { gemm } from "./matmul.js";

/** Block length of the first quantisation (QLoRA, Dettmers et al. 2023, section 3). */
export const NF4_BLOCK = 64;
/** Block length of the quantised absmax values. */
export const ABSMAX_BLOCK = 256;

/**
 * A frozen matrix in 4-bit NormalFloat: two codes a byte (the even element in the high nibble), one absmax a block of the row-major
 * flattened matrix; with double quantisation absmax is 8 bits with a float32 scale for 256 of them and one offset.
 */
export class Nf4Weight implements Disposable {
  /** (out, in). */
  readonly shape: readonly number[];
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
  ) {
    this.shape = shape;
    this.block = block;
    this.codes = codes;
    this.absmax = absmax;
    this.absmax2 = absmax2;
    this.offset = offset;
  }

  get doubleQuant(): boolean {
    return this.absmax2 !== undefined;
  }

  get size(): number {
    return sizeOf(this.shape);
  }

  /** Bytes it takes. */
  get bytes(): number {
    return this.codes.bytes + this.absmax.bytes + (this.absmax2?.bytes ?? 0) + (this.offset?.bytes ?? 0);
  }

  dispose(): void {
    this.codes.dispose();
    this.absmax.dispose();
    this.absmax2?.dispose();
    this.offset?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Quantises a float32 tensor as bitsandbytes' `quantize_4bit(quant_type="nf4")` does; `doubleQuant` = its `compress_statistics`. */
export function quantizeNf4(x: Tensor, options: { doubleQuant?: boolean; block?: number } = {}): Nf4Weight {
  const { doubleQuant = false, block = NF4_BLOCK } = options;
  if (x.dtype !== "float32") throw new ShapeError(`quantizeNf4: expected float32, received ${x.dtype}.`);
  if (!Number.isInteger(block) || block < 32 || (block & (block - 1)) !== 0) {
    throw new ShapeError(`quantizeNf4: blockSize must be a power of two from 32, received ${block}.`);
  }
  const blocks = Math.ceil(x.size / block);
  const codes = empty([Math.ceil(x.size / 2)], "uint8");
  const absmax = empty([blocks]);
  calls.quantizeNf4(x.handle, codes.handle, absmax.handle, x.size, block);
  if (!doubleQuant) return new Nf4Weight(x.shape, block, codes, absmax);
  const absmax8 = empty([blocks], "uint8");
  const absmax2 = empty([Math.ceil(blocks / ABSMAX_BLOCK)]);
  const offset = empty([1]);
  calls.quantizeAbsmax(absmax.handle, absmax8.handle, absmax2.handle, offset.handle, blocks);
  absmax.dispose();
  return new Nf4Weight(x.shape, block, codes, absmax8, absmax2, offset);
}

/** The restored matrix, float32. */
export function dequantizeNf4(w: Nf4Weight): Tensor {
  const y = empty(w.shape);
  calls.dequantizeNf4(
    w.codes.handle,
    w.absmax.handle,
    w.absmax2?.handle ?? 0,
    w.offset?.handle ?? 0,
    y.handle,
    w.size,
    w.block,
  );
  return y;
}

/** y = alpha · a op(W) + beta y + bias for a dense or an NF4 weight (out, in); `transposed`: a (m, in) by Wᵀ, else a (m, out) by W. */
export function weightProduct(
  a: Tensor,
  w: Tensor | Nf4Weight,
  y: Tensor,
  m: number,
  transposed: boolean,
  options: { alpha?: number; beta?: number; bias?: Tensor | undefined } = {},
): void {
  const [rows, cols] = w.shape as [number, number];
  if (!(w instanceof Nf4Weight)) {
    if (transposed) gemm(a, w, y, m, rows, cols, { transB: true, ...options });
    else gemm(a, w, y, m, cols, rows, options);
    return;
  }
  const { alpha = 1, beta = 0, bias } = options;
  calls.gemmNf4(
    a.handle,
    w.codes.handle,
    w.absmax.handle,
    w.absmax2?.handle ?? 0,
    w.offset?.handle ?? 0,
    bias?.handle ?? 0,
    y.handle,
    m,
    rows,
    cols,
    transposed ? 1 : 0,
    w.block,
    transposed ? cols : rows,
    transposed ? rows : cols,
    alpha,
    beta,
  );
}

/** x Wᵀ + bias over an NF4 weight; the weight is frozen, x has a gradient. */
export function linearNf4(x: Tensor, w: Nf4Weight, bias?: Tensor): Tensor {
  const [outputs, inputs] = w.shape as [number, number];
  if (x.dim(-1) !== inputs) shapeMismatch("linearNf4", `x (…, ${inputs})`, x.shape);
  if (bias && bias.size !== outputs)
    throw new ShapeError(`linearNf4: expected a bias of ${outputs}, received ${shapeText(bias.shape)}.`);
  const rows = x.size / inputs;
  const y = empty([...x.shape.slice(0, -1), outputs]);
  weightProduct(x, w, y, rows, true, { bias });
  record("linearNf4", [x], [y], (dy) => {
    const dx = empty(x.shape);
    weightProduct(dy, w, dx, rows, false);
    return [dx];
  });
  return y;
}
