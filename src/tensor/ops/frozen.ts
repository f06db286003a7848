import { DeviceError, ShapeError } from "../../errors.js";
import type { Device } from "../device.js";
import type { Compute } from "../dtype.js";
import { inputGradient } from "../gradient.js";
import { whenRead } from "../lifetime.js";
import { record } from "../record.js";
import { shapeMismatch, shapeText, sizeOf } from "../shape.js";
import { activationLike, empty, requireOneDevice, Tensor } from "../tensor.js";
import { widened } from "./layout.js";
import { type FourBitCodes, linearUpdate } from "./linear-update.js";
import { biasGradient, gemm } from "./matmul.js";
import type { RoundedRows } from "./rounded.js";

/** What may be added to a product: scale · u op(v). */
export interface LowRankUpdate {
  /** (rows, rank); rows stand `stride` elements apart. */
  readonly u: Tensor;
  /** B (out, rank) of a product by Wᵀ, A (rank, in) of one by W. */
  readonly v: Tensor;
  readonly rank: number;
  readonly scale?: number;
  readonly stride?: number;
}

/** What a product takes beside its operands. */
export interface ProductOptions {
  alpha?: number;
  beta?: number;
  bias?: Tensor | undefined;
  compute?: Compute | undefined;
  /** Added to the product; only with beta 0, and only to a dense weight or to one that is `fourBit`. */
  update?: LowRankUpdate | undefined;
  /** Inputs enter as they are, even into a weight that would round them (FP8): for what is measured of a weight. */
  keepInputs?: boolean | undefined;
  /** The input as `RoundingWeight.round` has made it, for a transposed product of all its rows. */
  rounded?: RoundedRows | undefined;
}

/** A frozen weight (out, in) in a form of its own that knows how to be multiplied with. */
export interface FrozenWeight extends Disposable {
  readonly shape: readonly number[];
  readonly device: Device;
  /** Elements of the matrix. */
  readonly size: number;
  /** Bytes it takes. */
  readonly bytes: number;
  /** Its codes, where it is one of 4 bits: then `product` adds a low-rank update itself. */
  readonly fourBit?: FourBitCodes;
  /** y = alpha · a op(W) + beta y + bias; `transposed`: a (m, in) by Wᵀ, else a (m, out) by W. */
  product(a: Tensor, y: Tensor, m: number, transposed: boolean, options?: ProductOptions): void;
  /** The matrix as a new float32 tensor. */
  restore(): Tensor;
  /** The same weight on another device; itself when it is there already. The caller frees the old one. */
  to(device: Device): FrozenWeight;
  dispose(): void;
}

/** A weight whose products may round their inputs; weights that share an input do it once (`ProductOptions.rounded`). */
export interface RoundingWeight extends FrozenWeight {
  /** Whether it rounds inputs of so many rows. */
  roundsRows(rows: number): boolean;
  /** x (rows, in) as `product` would round it. */
  round(x: Tensor, rows: number): RoundedRows;
}

/** A frozen weight that is made of tensors: codes, then what scales them. */
export abstract class FrozenMatrix implements FrozenWeight {
  /** (out, in). */
  readonly shape: readonly number[];
  private readonly parts: readonly (Tensor | undefined)[];

  constructor(shape: readonly number[], ...parts: [codes: Tensor, ...scales: (Tensor | undefined)[]]) {
    this.shape = shape;
    this.parts = parts;
  }

  get size(): number {
    return sizeOf(this.shape);
  }

  get device(): Device {
    return this.parts[0]!.device;
  }

  get bytes(): number {
    return this.parts.reduce((sum, part) => sum + (part?.bytes ?? 0), 0);
  }

  abstract product(a: Tensor, y: Tensor, m: number, transposed: boolean, options?: ProductOptions): void;
  abstract restore(): Tensor;
  abstract to(device: Device): FrozenWeight;

  dispose(): void {
    for (const part of this.parts) part?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What every native product over such a matrix is told: m, the matrix's rows and columns, whether it is transposed; and how far rows of a and y are apart. */
export function productSizes(
  { shape }: FrozenWeight,
  m: number,
  transposed: boolean,
): { sizes: [m: number, rows: number, cols: number, transposed: number]; strides: [a: number, y: number] } {
  const [rows, cols] = shape as [number, number];
  return { sizes: [m, rows, cols, transposed ? 1 : 0], strides: transposed ? [cols, rows] : [rows, cols] };
}

/** The place of a frozen weight in a dry run of a model that has none. */
export class PlannedWeight implements FrozenWeight {
  readonly shape: readonly number[];
  readonly device: Device;
  readonly bytes = 0;

  constructor(shape: readonly number[], device: Device) {
    this.shape = shape;
    this.device = device;
  }

  get size(): number {
    return sizeOf(this.shape);
  }

  product(): void {}

  restore(): Tensor {
    return empty(this.shape, "float32", this.device);
  }

  to(device: Device): FrozenWeight {
    return new PlannedWeight(this.shape, device);
  }

  dispose(): void {}

  [Symbol.dispose](): void {}
}

/**
 * y = alpha · a op(W) + beta y + bias + update for a dense or a quantised weight (out, in); `transposed`: a (m, in) by Wᵀ, else a (m, out) by W. With an update alpha is 1.
 */
export function weightProduct(
  a: Tensor,
  w: Tensor | FrozenWeight,
  y: Tensor,
  m: number,
  transposed: boolean,
  options: ProductOptions = {},
): void {
  const [rows, cols] = w.shape as [number, number];
  const { keepInputs: _, rounded: __, update, ...plain } = options;
  const dense = w instanceof Tensor;
  if (update && ((plain.beta ?? 0) !== 0 || !(dense || w.fourBit))) {
    // A GPU's large products round before they add to y, and would lose much of a small update, of which a layer's output is to learn; its small ones lose nothing
    // (rank_update.cu; linear_update.cu has the same order). Up to 64 rows, and on the CPU, sums are rounded once: there the small one comes first and need not read y.
    const { u, v, rank, scale = 1, stride } = update;
    const { beta: given = 0 } = plain;
    const add = (beta: number): void =>
      gemm(u, v, y, m, transposed ? rows : cols, rank, { transB: transposed, alpha: scale, beta, strideA: stride });
    const multiply = (beta: number): void =>
      weightProduct(a, w, y, m, transposed, { ...options, update: undefined, beta });
    if (y.device === "cuda" && m > 64 && transposed) {
      multiply(given);
      add(1);
    } else {
      add(given);
      multiply(1);
    }
  } else if (!dense) w.product(a, y, m, transposed, options);
  else if (update) linearUpdate([a], { dense: [w] }, y, m, transposed, update, options);
  else if (transposed) gemm(a, w, y, m, rows, cols, { transB: true, ...plain });
  else gemm(a, w, y, m, cols, rows, plain);
}

/** y (m, in) = Σ aᵢ Wᵢ + beta y + update: the gradient of an input of several layers. */
export function weightProducts(
  as: readonly Tensor[],
  ws: readonly (Tensor | FrozenWeight)[],
  y: Tensor,
  m: number,
  options: { beta: number; update: LowRankUpdate; computes: readonly (Compute | undefined)[] },
): void {
  const { beta, update, computes } = options;
  const [compute] = computes;
  const dense = ws.filter((w) => w instanceof Tensor);
  const codes = ws.flatMap((w) => (w instanceof Tensor || !w.fourBit ? [] : [w.fourBit]));
  const alike = <T>(items: readonly T[], by: (item: T) => unknown): boolean =>
    items.length === ws.length && items.every((item) => by(item) === by(items[0]!));
  const together = beta === 0 && computes.every((c) => c === compute);
  if (together && alike(dense, (w) => w.dtype)) linearUpdate(as, { dense }, y, m, false, update, { compute });
  else if (together && alike(codes, (w) => `${w.block} ${w.kindCode} ${w.absmax2 !== undefined}`))
    linearUpdate(as, { codes }, y, m, false, update, { compute });
  else
    ws.forEach((w, i) => {
      weightProduct(as[i]!, w, y, m, false, { compute: computes[i], ...(i === 0 ? { beta, update } : { beta: 1 }) });
    });
}

/** @throws DeviceError when a weight does not stand where x does. */
export function requireWeightDevice(op: string, x: Tensor, w: Tensor | FrozenWeight): void {
  if (w instanceof Tensor) requireOneDevice(op, x, w);
  else if (w.device !== x.device) {
    throw new DeviceError(
      `${op}: x ${shapeText(x.shape)} stands on ${x.device}, the weight ${shapeText(w.shape)} on ${w.device}. Move x: x.to("${w.device}").`,
    );
  }
}

/** x Wᵀ + bias over a quantised weight; the weight is frozen, x and the bias have gradients. */
export function linearFrozen(given: Tensor, w: FrozenWeight, bias?: Tensor, compute?: Compute): Tensor {
  const x = widened(given);
  const [outputs, inputs] = w.shape as [number, number];
  if (x.dim(-1) !== inputs) shapeMismatch("linear over a quantised weight", `x (…, ${inputs})`, x.shape);
  if (bias && bias.size !== outputs) {
    throw new ShapeError(
      `linear over a quantised weight: expected a bias of ${outputs}, received ${shapeText(bias.shape)}.`,
    );
  }
  requireWeightDevice("linear over a quantised weight", x, w);
  requireOneDevice("linear over a quantised weight", x, bias);
  const rows = x.size / inputs;
  const shape = [...x.shape.slice(0, -1), outputs];
  const y = whenRead(x, shape, () => {
    const out = activationLike(x, shape);
    weightProduct(x, w, out, rows, true, { bias, compute });
    return out;
  });
  const back = (dy: Tensor): (Tensor | undefined)[] => {
    const dx = x.requiresGrad ? inputGradient(x) : undefined;
    if (dx) weightProduct(dy, w, dx.grad, rows, false, { compute, beta: dx.beta });
    return [dx?.returned, biasGradient(bias, dy, rows, outputs)];
  };
  record("linearFrozen", [x, bias], [y], back, [], []);
  return y;
}
