import { ShapeError } from "../errors.js";

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const d of shape) size *= d;
  return size;
}

/** "2x3x4", for messages. */
export function shapeText(shape: readonly number[]): string {
  return shape.length === 0 ? "scalar" : shape.join("x");
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Throws a ShapeError in the common form: who, what was expected, what came. */
export function shapeMismatch(op: string, expected: string, ...received: readonly (readonly number[])[]): never {
  throw new ShapeError(`${op}: expected ${expected}, received ${received.map(shapeText).join(" and ")}.`);
}

/** Axis counted from the end when negative. */
export function normalizeAxis(op: string, axis: number, rank: number): number {
  const a = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(a) || a < 0 || a >= rank) {
    throw new ShapeError(`${op}: axis ${axis} does not exist in a tensor of rank ${rank}.`);
  }
  return a;
}

/** Shape of a broadcast as NumPy defines it. */
export function broadcastShape(op: string, a: readonly number[], b: readonly number[]): readonly number[] {
  if (sameShape(a, b)) return a;
  const rank = Math.max(a.length, b.length);
  const out = new Array<number>(rank);
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) shapeMismatch(op, "shapes that broadcast", a, b);
    out[i] = x === 1 ? y : x;
  }
  return out;
}

/** A shape of at most four axes as exactly four, leading ones added. */
export function dims4(op: string, shape: readonly number[]): [number, number, number, number] {
  if (shape.length > 4) throw new ShapeError(`${op}: at most 4 axes are supported, received ${shapeText(shape)}.`);
  const n = shape.length;
  return [shape[n - 4] ?? 1, shape[n - 3] ?? 1, shape[n - 2] ?? 1, shape[n - 1] ?? 1];
}

/** Element strides of `shape` seen as `target` (4 axes): 0 where it is broadcast. */
export function broadcastStrides(
  op: string,
  shape: readonly number[],
  target: readonly [number, number, number, number],
): [number, number, number, number] {
  const d = dims4(op, shape);
  const strides: [number, number, number, number] = [0, 0, 0, 0];
  let stride = 1;
  for (let i = 3; i >= 0; i--) {
    strides[i] = d[i] === 1 && target[i] !== 1 ? 0 : stride;
    if (d[i] === 1) strides[i] = 0;
    stride *= d[i]!;
  }
  return strides;
}
