import { ShapeError } from "../../errors.js";
import * as calls from "../calls.js";
import type { Device } from "../device.js";
import type { DType } from "../dtype.js";
import * as native from "../native.js";
import { record } from "../record.js";
import { dims4, normalizeAxis, sameShape, shapeMismatch, shapeText, sizeOf } from "../shape.js";
import { activationDType, empty, emptyLike, requireOneDevice, type Tensor, view } from "../tensor.js";
import { fill } from "./elementwise.js";

/** A copy with its own memory. */
export function clone(x: Tensor): Tensor {
  const y = emptyLike(x);
  calls.copy(x.handle, y.handle, x.size);
  record("clone", [x], [y], (dy) => [dy], [], []);
  return y;
}

/** The same values in another dtype. */
export function cast(x: Tensor, dtype: DType): Tensor {
  const y = emptyLike(x, x.shape, dtype);
  calls.copy(x.handle, y.handle, x.size);
  record("cast", [x], [y], (dy) => [inDType(dy, x.leaf ? "float32" : activationDType(x))], [], []);
  return y;
}

/** x itself where it has the dtype, else a cast of it. */
export function inDType(x: Tensor, dtype: DType): Tensor {
  return x.dtype === dtype ? x : cast(x, dtype);
}

/** x in a dtype that its device computes activations in: 16 bits stay only on the GPU, whole numbers become float32. */
export function widened(x: Tensor): Tensor {
  return x.dtype === "float32" ? x : inDType(x, activationDType(x));
}

/** x on another device, through the host's memory; its gradient moves back. */
export function move(x: Tensor, device: Device): Tensor {
  const from = x.device;
  if (from === device) return x;
  const y = empty(x.shape, x.dtype, device);
  native.transfer(x.handle, y.handle);
  record("to", [x], [y], (dy) => [move(dy, from)], [], []);
  return y;
}

/** The same elements under another shape (one length may be -1), sharing memory. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  let dims = shape;
  const open = shape.indexOf(-1);
  if (open >= 0) {
    const rest = sizeOf(shape.filter((_, i) => i !== open));
    dims = shape.map((d, i) => (i === open ? x.size / rest : d));
  }
  if (sizeOf(dims) !== x.size || dims.some((d) => !Number.isInteger(d) || d < 0)) {
    throw new ShapeError(`reshape: cannot see ${shapeText(x.shape)} as [${shape.join(", ")}].`);
  }
  const y = view(x, dims);
  record("reshape", [x], [y], (dy) => [view(dy, x.shape)], [], []);
  return y;
}

/** Axes in another order (at most 4, items of 4 bytes). */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  const rank = x.rank;
  const axes = order.map((a) => normalizeAxis("permute", a, rank));
  if (axes.length !== rank || new Set(axes).size !== rank) {
    throw new ShapeError(`permute: expected each of ${rank} axes once, received [${order.join(", ")}].`);
  }
  const y = emptyLike(
    x,
    axes.map((a) => x.shape[a]!),
  );
  const lead = 4 - rank;
  const full = [0, 1, 2, 3].map((i) => (i < lead ? i : axes[i - lead]! + lead)) as [number, number, number, number];
  calls.permute(x.handle, y.handle, ...dims4("permute", x.shape), ...full);
  record(
    "permute",
    [x],
    [y],
    (dy) => {
      const inverse = new Array<number>(rank);
      axes.forEach((a, i) => {
        inverse[a] = i;
      });
      return [permute(dy, inverse)];
    },
    [],
    [],
  );
  return y;
}

/** Two axes exchanged. */
export function transpose(x: Tensor, a: number, b: number): Tensor {
  const order = x.shape.map((_, i) => i);
  const i = normalizeAxis("transpose", a, x.rank);
  const j = normalizeAxis("transpose", b, x.rank);
  order[i] = j;
  order[j] = i;
  return permute(x, order);
}

/** Elements start … end-1 of an axis; along the first axis it shares memory. */
export function slice(x: Tensor, axis: number, start: number, end: number): Tensor {
  const a = normalizeAxis("slice", axis, x.rank);
  const length = x.shape[a]!;
  const from = start < 0 ? start + length : start;
  const to = end < 0 ? end + length : end;
  if (from < 0 || to > length || from > to) {
    throw new ShapeError(`slice: ${start} … ${end} does not fit axis ${axis} of shape ${shapeText(x.shape)}.`);
  }
  const shape = x.shape.map((d, i) => (i === a ? to - from : d));
  const outer = sizeOf(x.shape.slice(0, a));
  const inner = sizeOf(x.shape.slice(a + 1));
  const cols = (to - from) * inner;
  let y: Tensor;
  if (outer === 1) y = view(x, shape, from * inner);
  else {
    y = emptyLike(x, shape);
    calls.copy2d(x.handle, y.handle, outer, cols, from * inner, length * inner, 0, cols, 0);
  }
  record(
    "slice",
    [x],
    [y],
    (dy) => {
      const dx = fill(emptyLike(dy, x.shape), 0);
      calls.copy2d(dy.handle, dx.handle, outer, cols, 0, cols, from * inner, length * inner, 0);
      return [dx];
    },
    [],
    [],
  );
  return y;
}

/** The last axis cut into pieces of these widths. A single row shares memory with its pieces. */
export function split(x: Tensor, widths: readonly number[]): Tensor[] {
  const width = x.dim(-1);
  if (widths.reduce((a, b) => a + b, 0) !== width)
    throw new ShapeError(`split: ${widths.join(" + ")} is not the last axis of shape ${shapeText(x.shape)}.`);
  const rows = x.size / width;
  const lead = x.shape.slice(0, -1);
  let end = 0;
  const places = widths.map((cols) => ({ cols, at: (end += cols) - cols }));
  const parts = places.map(({ cols, at }) => {
    if (rows === 1) return view(x, [...lead, cols], at);
    const y = emptyLike(x, [...lead, cols]);
    calls.copy2d(x.handle, y.handle, rows, cols, at, width, 0, cols, 0);
    return y;
  });
  const back = (...gradients: Tensor[]): [Tensor] => {
    const dx = emptyLike(gradients[0]!, x.shape);
    places.forEach(({ cols, at }, i) => {
      calls.copy2d(gradients[i]!.handle, dx.handle, rows, cols, 0, cols, at, width, 0);
    });
    return [dx];
  };
  record("split", [x], parts, back, [], []);
  return parts;
}

/** Tensors one after another along an axis; the other lengths must be equal. */
export function concat(tensors: readonly Tensor[], axis = 0): Tensor {
  const first = tensors[0];
  if (!first) throw new ShapeError("concat: expected at least one tensor.");
  const a = normalizeAxis("concat", axis, first.rank);
  for (const t of tensors) {
    requireOneDevice("concat", first, t);
    if (t.dtype !== first.dtype)
      throw new ShapeError(
        `concat: expected ${first.dtype} throughout, received ${t.dtype} too; cast it: x.to("${first.dtype}").`,
      );
    if (t.rank !== first.rank || !sameShape(t.shape.toSpliced(a, 1), first.shape.toSpliced(a, 1))) {
      shapeMismatch("concat", `equal shapes but for axis ${axis}`, first.shape, t.shape);
    }
  }
  const total = tensors.reduce((n, t) => n + t.shape[a]!, 0);
  const y = emptyLike(
    first,
    first.shape.map((d, i) => (i === a ? total : d)),
  );
  const outer = sizeOf(first.shape.slice(0, a));
  const inner = sizeOf(first.shape.slice(a + 1));
  const stride = total * inner;
  const offsets: number[] = [];
  let at = 0;
  for (const t of tensors) {
    const cols = t.shape[a]! * inner;
    offsets.push(at);
    calls.copy2d(t.handle, y.handle, outer, cols, 0, cols, at, stride, 0);
    at += cols;
  }
  record(
    "concat",
    tensors,
    [y],
    (dy) =>
      tensors.map((t, i) => {
        if (!t.requiresGrad) return undefined;
        const dx = emptyLike(dy, t.shape);
        const cols = t.shape[a]! * inner;
        calls.copy2d(dy.handle, dx.handle, outer, cols, offsets[i]!, stride, 0, cols, 0);
        return dx;
      }),
    [],
    [],
  );
  return y;
}
