import { DeviceError, InterruptedError, ShapeError, StateError } from "../errors.js";
import { type Device, defaultDevice } from "./device.js";
import { DTYPE_BYTES, DTYPE_CODE, type DType, type DTypeName, floatDType } from "./dtype.js";
import { makeWaiting } from "./lifetime.js";
import * as native from "./native.js";
import * as elementwise from "./ops/elementwise.js";
import * as layout from "./ops/layout.js";
import * as matmul from "./ops/matmul.js";
import * as reduce from "./ops/reduce.js";
import { noGrad } from "./record.js";
import { outsideScope, track, untrack } from "./scope.js";
import { shapeText, sizeOf } from "./shape.js";

/** A typed array as it is uploaded to and read from a tensor. */
export type TensorData = Float32Array | Int32Array | Uint8Array | Uint16Array;
/** Numbers, or nested arrays of them. */
export type NestedNumbers = number | readonly NestedNumbers[];

/**
 * A dense, contiguous n-dimensional array in native memory. Operations return at once: they are queued, and `data()` waits for them.
 * Memory is freed by `dispose()` or by the `scope` the tensor was made in.
 */
export class Tensor implements Disposable {
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** Number of elements. */
  readonly size: number;
  /** Whether operations on it are recorded for `backward()`. */
  requiresGrad = false;
  /** False for the result of a recorded operation. */
  leaf = true;
  /** Gradient of a leaf, added to by each `backward()`. */
  grad: Tensor | undefined;
  /** Gradient on its way through the tape; autograd's own. */
  adjoint: Tensor | undefined;
  /** Whether other tensors may share its memory. */
  aliased = false;
  /** Number of the device it stands on: 0 the CPU, 1 the GPU. @internal */
  place: number;
  /** How many recorded operations (in their backward passes) and tensors that can be made again still read its elements. @internal */
  readers = 0;
  /** Whether nobody but those will read it any more. @internal */
  done = false;
  /** How many tensors have it as their `adjoint`. @internal */
  holders = 0;
  /** Makes the elements once more, for a tensor whose memory `forget()` may free. @internal */
  remake: (() => Tensor) | undefined;
  /** What `remake` reads. @internal */
  from: readonly Tensor[] | undefined;
  /** Whether the backward pass of its own operation can make the elements on its way (`leaveToMaker`). @internal */
  madeAgain = false;
  /** What that backward pass does with them. @internal */
  awaited: ((elements: Tensor) => void) | undefined;
  /** Results of operations on it that are still to be made (`whenRead`). @internal */
  waiting: Tensor[] | undefined;
  /** @internal */ scoped = false;
  protected id: native.Handle;

  /** Takes over a native handle; use `tensor`, `zeros`, … to make tensors. */
  constructor(handle: native.Handle, shape: readonly number[], dtype: DType) {
    this.id = handle;
    this.place = native.placeOf(handle);
    this.shape = shape;
    this.dtype = dtype;
    this.size = sizeOf(shape);
    if (handle !== 0) this.rescope();
  }

  /** @internal Enters the tensor into the scope that is open now. */
  rescope(): void {
    this.scoped = track(this, this.id);
  }

  /** The native handle. @throws StateError after `dispose()`. */
  get handle(): native.Handle {
    if (this.id === 0) {
      if (this.remake) return this.restore(this.remake);
      throw new StateError(
        `This ${this.dtype} tensor of shape ${shapeText(this.shape)} was disposed: return it from scope(…), or keep a copy (x.clone()).`,
      );
    }
    return this.id;
  }

  get disposed(): boolean {
    return this.id === 0 && !this.remake;
  }

  /** Whether it has memory now; it may be one that can be made again otherwise. @internal */
  get held(): boolean {
    return this.id !== 0;
  }

  /**
   * Frees the memory of a tensor that says how to make it again (`remake`): the elements come back when they are next used.
   * @internal
   */
  forget(): void {
    if (this.id === 0 || !this.remake) return;
    untrack(this);
    native.free(this.id);
    this.id = 0;
  }

  private restore(remake: () => Tensor): native.Handle {
    this.id = outsideScope(() => noGrad(remake)).surrender();
    if (!this.scoped) outsideScope(() => this.rescope());
    return this.id;
  }

  /** Where its memory stands and operations on it run. */
  get device(): Device {
    return this.place === 1 ? "cuda" : "cpu";
  }

  get rank(): number {
    return this.shape.length;
  }

  get bytes(): number {
    return this.size * DTYPE_BYTES[this.dtype];
  }

  /** Length of an axis, counted from the end when negative. */
  dim(axis: number): number {
    const d = this.shape[axis < 0 ? axis + this.shape.length : axis];
    if (d === undefined)
      throw new ShapeError(`Axis ${axis} does not exist in a tensor of shape ${shapeText(this.shape)}.`);
    return d;
  }

  /** Frees the memory once queued operations are done with it. */
  dispose(): void {
    if (this.waiting) makeWaiting(this);
    this.remake = undefined;
    const { from } = this;
    this.from = undefined;
    if (from) for (const t of from) if (--t.readers === 0 && t.done) t.dispose();
    if (this.id === 0) return;
    untrack(this);
    native.free(this.id);
    this.id = 0;
    const grad = this.grad;
    this.grad = undefined;
    grad?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal Gives the native handle away: another tensor owns the memory now. */
  surrender(): native.Handle {
    const id = this.handle;
    untrack(this);
    this.id = 0;
    return id;
  }

  /** The elements, in row-major order, once everything queued before has run. @throws InterruptedError when the work was interrupted. */
  async data(): Promise<Float32Array> {
    const source = this.dtype === "float32" ? this : undefined;
    if (source) {
      const out = new Float32Array(this.size);
      await native.download(this.handle, out);
      return out;
    }
    if (this.dtype === "int32" || this.dtype === "uint8") return Float32Array.from(await this.raw());
    const copy = layout.cast(this, "float32");
    try {
      return await copy.data();
    } finally {
      copy.dispose();
    }
  }

  /** The elements in their own type (16-bit floats as their bits). */
  async raw(): Promise<TensorData> {
    const out = typedArray(this.dtype, this.size);
    await native.download(this.handle, out);
    return out;
  }

  /** The only element of a tensor of size 1. */
  async item(): Promise<number> {
    if (this.size !== 1)
      throw new ShapeError(`item(): expected a tensor of one element, received shape ${shapeText(this.shape)}.`);
    return (await this.data())[0]!;
  }

  /** Overwrites the elements. */
  set(data: TensorData): this {
    if (data.length !== this.size)
      throw new ShapeError(`set(): expected ${this.size} elements, received ${data.length}.`);
    native.upload(this.handle, data);
    return this;
  }

  /** The same memory as a tensor that needs no gradient. */
  detach(): Tensor {
    return view(this, this.shape);
  }

  add(b: Tensor | number): Tensor {
    return typeof b === "number" ? elementwise.affine(this, 1, b) : elementwise.binary("add", this, b);
  }
  sub(b: Tensor | number): Tensor {
    return typeof b === "number" ? elementwise.affine(this, 1, -b) : elementwise.binary("sub", this, b);
  }
  mul(b: Tensor | number): Tensor {
    return typeof b === "number" ? elementwise.affine(this, b, 0) : elementwise.binary("mul", this, b);
  }
  div(b: Tensor | number): Tensor {
    return typeof b === "number" ? elementwise.affine(this, 1 / b, 0) : elementwise.binary("div", this, b);
  }
  maximum(b: Tensor): Tensor {
    return elementwise.binary("max", this, b);
  }
  minimum(b: Tensor): Tensor {
    return elementwise.binary("min", this, b);
  }
  neg(): Tensor {
    return elementwise.affine(this, -1, 0);
  }
  abs(): Tensor {
    return elementwise.unary("abs", this);
  }
  exp(): Tensor {
    return elementwise.unary("exp", this);
  }
  log(): Tensor {
    return elementwise.unary("log", this);
  }
  sqrt(): Tensor {
    return elementwise.unary("sqrt", this);
  }
  rsqrt(): Tensor {
    return elementwise.unary("rsqrt", this);
  }
  reciprocal(): Tensor {
    return elementwise.unary("reciprocal", this);
  }
  tanh(): Tensor {
    return elementwise.unary("tanh", this);
  }
  sigmoid(): Tensor {
    return elementwise.unary("sigmoid", this);
  }
  silu(): Tensor {
    return elementwise.unary("silu", this);
  }
  /** Gaussian error linear unit; `approximate: "tanh"` as GPT-2's. */
  gelu(approximate: "none" | "tanh" = "none"): Tensor {
    return elementwise.unary(approximate === "tanh" ? "gelu_tanh" : "gelu", this);
  }
  relu(): Tensor {
    return elementwise.unary("relu", this);
  }
  pow(exponent: number): Tensor {
    return elementwise.unary("pow", this, exponent);
  }
  square(): Tensor {
    return elementwise.unary("pow", this, 2);
  }
  clamp(min: number, max: number): Tensor {
    return elementwise.unary("clamp", this, min, max);
  }
  sin(): Tensor {
    return elementwise.unary("sin", this);
  }
  cos(): Tensor {
    return elementwise.unary("cos", this);
  }
  /** Sum over one axis, or over everything. */
  sum(axis?: number, keepDim = false): Tensor {
    return reduce.reduce("sum", this, axis, keepDim);
  }
  mean(axis?: number, keepDim = false): Tensor {
    return reduce.reduce("mean", this, axis, keepDim);
  }
  /** Largest element along an axis (no gradient). */
  max(axis?: number, keepDim = false): Tensor {
    return reduce.reduce("max", this, axis, keepDim);
  }
  /** Index (int32) of the first largest element of each row of the last axis. */
  argmax(): Tensor {
    return reduce.argmax(this);
  }
  softmax(): Tensor {
    return reduce.softmax(this);
  }
  logSoftmax(): Tensor {
    return reduce.logSoftmax(this);
  }
  /** Matrix product: (…, m, k) by (k, n) or (…, k, n). */
  matmul(b: Tensor): Tensor {
    return matmul.matmul(this, b);
  }
  /** x Wᵀ + bias for x (…, in), weight (out, in), bias (out). */
  linear(weight: Tensor, bias?: Tensor): Tensor {
    return matmul.linear(this, weight, bias);
  }
  /** The same elements under another shape; one length may be -1. */
  reshape(...shape: number[]): Tensor {
    return layout.reshape(this, shape);
  }
  /** Axes in another order. */
  permute(...order: number[]): Tensor {
    return layout.permute(this, order);
  }
  /** Two axes exchanged, by default the last two. */
  transpose(a = -2, b = -1): Tensor {
    return layout.transpose(this, a, b);
  }
  /** Elements start … end-1 of an axis. */
  slice(axis: number, start: number, end: number): Tensor {
    return layout.slice(this, axis, start, end);
  }
  clone(): Tensor {
    return layout.clone(this);
  }
  /** The same values in another dtype or on another device (through host memory); the tensor itself when it is so already. */
  to(target: DType | DTypeName | Device): Tensor {
    if (target === "cpu" || target === "cuda") return layout.move(this, target);
    const dtype = floatDType(target) ?? (target as DType);
    return dtype === this.dtype ? this : layout.cast(this, dtype);
  }
  cuda(): Tensor {
    return layout.move(this, "cuda");
  }
  cpu(): Tensor {
    return layout.move(this, "cpu");
  }
}

// A printout that shows what it is instead of its fields (computed member names cannot be declared in the class).
Object.defineProperty(Tensor.prototype, Symbol.for("nodejs.util.inspect.custom"), {
  value(this: Tensor): string {
    const grad = this.requiresGrad ? ", requiresGrad" : "";
    const place = this.disposed ? ", disposed" : this.device === "cpu" ? "" : `, ${this.device}`;
    return `Tensor(${shapeText(this.shape)}, ${this.dtype}${place}${grad})`;
  },
});

/** A typed array for `size` elements of a dtype. */
export function typedArray(dtype: DType, size: number): TensorData {
  switch (dtype) {
    case "float32":
      return new Float32Array(size);
    case "int32":
      return new Int32Array(size);
    case "uint8":
      return new Uint8Array(size);
    default:
      return new Uint16Array(size);
  }
}

/** A new tensor whose elements are not set. */
export function empty(shape: readonly number[], dtype: DType = "float32", device: Device = defaultDevice()): Tensor {
  return allocate(shape, dtype, device === "cuda" ? 1 : 0);
}

/** A new tensor on x's device whose elements are not set. */
export function emptyLike(x: Tensor, shape: readonly number[] = x.shape, dtype: DType = x.dtype): Tensor {
  return allocate(shape, dtype, x.place);
}

/** The dtype of activations beside x, of its gradient while it is on its way, and of what operations make of it: its own where the device computes in it. */
export function activationDType(x: Tensor): DType {
  return (x.dtype === "bfloat16" || x.dtype === "float16") && native.takesHalves(x.place) ? x.dtype : "float32";
}

/** A new tensor for an activation made from x: on its device, in its dtype where the device computes in it, else float32. */
export function activationLike(x: Tensor, shape: readonly number[] = x.shape): Tensor {
  return allocate(shape, activationDType(x), x.place);
}

function allocate(shape: readonly number[], dtype: DType, place: number): Tensor {
  for (const d of shape) {
    if (!Number.isInteger(d) || d < 0)
      throw new ShapeError(`A shape holds whole numbers from 0, received [${shape.join(", ")}].`);
  }
  const bytes = sizeOf(shape) * DTYPE_BYTES[dtype];
  return new Tensor(native.alloc(bytes, DTYPE_CODE[dtype], place), shape, dtype);
}

/** @throws DeviceError naming two tensors of one operation that stand on different devices. */
export function requireOneDevice(op: string, a: Tensor, b?: Tensor, c?: Tensor, d?: Tensor): void {
  const place = a.place;
  const other = b && b.place !== place ? b : c && c.place !== place ? c : d && d.place !== place ? d : undefined;
  if (other === undefined) return;
  const name = (x: Tensor): string => `${x.dtype} ${shapeText(x.shape)} on ${x.device}`;
  throw new DeviceError(
    `${op}: expected tensors on one device, received ${name(a)} and ${name(other)}. Move one of them: x.to("${a.device}") or x.to("${other.device}").`,
  );
}

/** A tensor over `source`'s memory from an element offset on. */
export function view(source: Tensor, shape: readonly number[], offset = 0): Tensor {
  const bytes = DTYPE_BYTES[source.dtype];
  const size = sizeOf(shape);
  if (offset + size > source.size)
    throw new ShapeError(`A view of ${size} elements at ${offset} does not fit ${source.size} elements.`);
  const t = new Tensor(
    native.view(source.handle, offset * bytes, size * bytes, DTYPE_CODE[source.dtype]),
    shape,
    source.dtype,
  );
  t.place = source.place; // a parameter without values has no handle that tells it
  t.aliased = true;
  source.aliased = true;
  return t;
}

/** What a new tensor may be told. */
export interface TensorOptions {
  shape?: readonly number[] | undefined;
  dtype?: DType | undefined;
  /** The default device by default. */
  device?: Device | undefined;
}

/** A tensor from numbers (float32), nested arrays, or a typed array (its own dtype; pass the shape). */
export function tensor(values: NestedNumbers | TensorData, shape?: readonly number[], dtype?: DType): Tensor;
export function tensor(values: NestedNumbers | TensorData, options: TensorOptions): Tensor;
export function tensor(
  values: NestedNumbers | TensorData,
  given?: readonly number[] | TensorOptions,
  dtype?: DType,
): Tensor {
  if (given === undefined || Array.isArray(given))
    return fromValues(values, given as readonly number[] | undefined, dtype, undefined);
  const options = given as TensorOptions;
  return fromValues(values, options.shape, options.dtype, options.device);
}

function fromValues(
  values: NestedNumbers | TensorData,
  shape: readonly number[] | undefined,
  dtype: DType | undefined,
  device: Device | undefined,
): Tensor {
  let data: TensorData;
  let dims = shape;
  if (
    values instanceof Float32Array ||
    values instanceof Int32Array ||
    values instanceof Uint8Array ||
    values instanceof Uint16Array
  ) {
    data = values;
    dims ??= [values.length];
  } else {
    const flat: number[] = [];
    const found: number[] = [];
    flatten(values, 0, found, flat);
    dims ??= found;
    const out = typedArray(dtype ?? "float32", flat.length);
    out.set(flat);
    data = out;
  }
  const own: DType =
    data instanceof Float32Array
      ? "float32"
      : data instanceof Int32Array
        ? "int32"
        : data instanceof Uint8Array
          ? "uint8"
          : "bfloat16";
  const type = dtype ?? own;
  if (sizeOf(dims) !== data.length) {
    throw new ShapeError(
      `tensor(): expected ${sizeOf(dims)} elements for shape ${shapeText(dims)}, received ${data.length}.`,
    );
  }
  if (type !== own && !(own === "bfloat16" && type === "float16")) {
    const converted = typedArray(type, data.length);
    converted.set(data);
    data = converted;
  }
  const t = empty(dims, type, device);
  native.upload(t.handle, data);
  return t;
}

function flatten(v: NestedNumbers, depth: number, shape: number[], into: number[]): void {
  if (typeof v === "number") {
    into.push(v);
    return;
  }
  if (shape.length === depth) shape.push(v.length);
  else if (shape[depth] !== v.length) throw new ShapeError("tensor(): expected nested arrays of equal lengths.");
  for (const x of v) flatten(x, depth + 1, shape, into);
}

/** True for errors that say the work was stopped on purpose. */
export function isInterrupt(error: unknown): boolean {
  return error instanceof InterruptedError || (error instanceof Error && error.name === "AbortError");
}
