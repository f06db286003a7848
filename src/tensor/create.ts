import { ShapeError } from "../errors.js";
import type { Device } from "./device.js";
import type { DType } from "./dtype.js";
import { fill } from "./ops/elementwise.js";
import { inDType } from "./ops/layout.js";
import * as random from "./ops/random.js";
import { noGrad } from "./record.js";
import { empty, type Tensor, tensor } from "./tensor.js";

/** What the functions here take beside a shape. */
export interface CreateOptions {
  /** float32 by default (`arange`: int32). */
  dtype?: DType;
  /** The default device by default; see `setDefaultDevice`. */
  device?: Device;
}

/** A tensor whose elements are all `value`. */
export function full(shape: readonly number[], value: number, options: CreateOptions = {}): Tensor {
  return fill(empty(shape, options.dtype, options.device), value);
}

/** A tensor of zeros. */
export function zeros(shape: readonly number[], options: CreateOptions = {}): Tensor {
  return full(shape, 0, options);
}

/** A tensor of ones. */
export function ones(shape: readonly number[], options: CreateOptions = {}): Tensor {
  return full(shape, 1, options);
}

/** Normal numbers of mean 0 and standard deviation 1, from the stream that `seed` sets. */
export function randn(shape: readonly number[], options: CreateOptions = {}): Tensor {
  return converted(random.normal(shape, 0, 1, options.device), options.dtype);
}

/** Uniform numbers in [0, 1), from the stream that `seed` sets. */
export function rand(shape: readonly number[], options: CreateOptions = {}): Tensor {
  return converted(random.uniform(shape, 0, 1, options.device), options.dtype);
}

/** Whole numbers 0 … n-1, or `start` … `end`-1 by `step`; int32 unless a dtype is given. */
export function arange(n: number, options?: CreateOptions): Tensor;
export function arange(start: number, end: number, step?: number, options?: CreateOptions): Tensor;
export function arange(a: number, b?: number | CreateOptions, step = 1, more: CreateOptions = {}): Tensor {
  const [start, end] = typeof b === "number" ? [a, b] : [0, a];
  const { dtype = "int32", device } = typeof b === "object" ? b : more;
  const count = Math.max(0, Math.ceil((end - start) / step));
  if (!Number.isFinite(count))
    throw new ShapeError(
      `arange: expected finite numbers and a step other than 0, received ${start}, ${end}, ${step}.`,
    );
  const values = Float64Array.from({ length: count }, (_, i) => start + i * step);
  if (dtype === "int32") return tensor(Int32Array.from(values), { device });
  return converted(tensor(Float32Array.from(values), { device }), dtype);
}

function converted(x: Tensor, dtype: DType | undefined): Tensor {
  if (dtype === undefined || dtype === x.dtype) return x;
  const y = noGrad(() => inDType(x, dtype));
  x.dispose();
  return y;
}
