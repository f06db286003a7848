import { DeviceError, ShapeError } from "../../errors.js";
import type { Device } from "../device.js";
import type { Compute } from "../dtype.js";
import { inputGradient } from "../gradient.js";
import { whenRead } from "../lifetime.js";
import { record } from "../record.js";
import { shapeMismatch, shapeText, sizeOf } from "../shape.js";
import { activationLike, empty, requireOneDevice, Tensor } from "../tensor.js";
import { widened } from "./layout.js";
import { biasGradient, gemm } from "./matmul.js";

/** What a product takes beside its operands. */
export interface ProductOptions {
  alpha?: number;
  beta?: number;
  bias?: Tensor | undefined;
  compute?: Compute | undefined;
  /** Inputs enter as they are, even into a weight that would round them (FP8): for what is measured of a weight. */
  keepInputs?: boolean | undefined;
}

/** A frozen weight (out, in) in a form of its own that knows how to be multiplied with. */
export interface FrozenWeight extends Disposable {
  readonly shape: readonly number[];
  readonly device: Device;
  /** Elements of the matrix. */
  readonly size: number;
  /** Bytes it takes. */
  readonly bytes: number;
  /** y = alpha · a op(W) + beta y + bias; `transposed`: a (m, in) by Wᵀ, else a (m, out) by W. */
  product(a: Tensor, y: Tensor, m: number, transposed: boolean, options?: ProductOptions): void;
  /** The matrix as a new float32 tensor. */
  restore(): Tensor;
  /** The same weight on another device; itself when it is there already. The caller frees the old one. */
  to(device: Device): FrozenWeight;
  dispose(): void;
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

/** y = alpha · a op(W) + beta y + bias for a dense or a quantised weight (out, in); `transposed`: a (m, in) by Wᵀ, else a (m, out) by W. */
export function weightProduct(
  a: Tensor,
  w: Tensor | FrozenWeight,
  y: Tensor,
  m: number,
  transposed: boolean,
  options: ProductOptions = {},
): void {
  if (!(w instanceof Tensor)) {
    w.product(a, y, m, transposed, options);
    return;
  }
  const [rows, cols] = w.shape as [number, number];
  const { keepInputs: _, ...plain } = options;
  if (transposed) gemm(a, w, y, m, rows, cols, { transB: true, ...plain });
  else gemm(a, w, y, m, cols, rows, plain);
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
