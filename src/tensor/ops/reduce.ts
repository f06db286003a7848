import * as calls from "../calls.js";
import { record } from "../record.js";
import { broadcastShape, broadcastStrides, dims4, normalizeAxis, sameShape, shapeMismatch, sizeOf } from "../shape.js";
import { activationLike, empty, emptyLike, requireOneDevice, type Tensor } from "../tensor.js";
import { binary, fill } from "./elementwise.js";
import { widened } from "./layout.js";

/** Codes of `reduce` in native/ops.def. */
const KINDS = { sum: 0, mean: 1, max: 2, min: 3 } as const;
export type ReduceKind = keyof typeof KINDS;

/**
 * Reduction over one axis, or over all elements when no axis is given. Sum and mean have gradients.
 * @param dtype of the result, x's by default.
 */
export function reduce(kind: ReduceKind, given: Tensor, axis?: number, keepDim = false, dtype?: "float32"): Tensor {
  const x = widened(given);
  const all = axis === undefined;
  const a = all ? 0 : normalizeAxis(kind, axis, x.rank);
  const outer = all ? 1 : sizeOf(x.shape.slice(0, a));
  const n = all ? x.size : x.shape[a]!;
  const inner = all ? 1 : sizeOf(x.shape.slice(a + 1));
  const kept = all ? x.shape.map(() => 1) : x.shape.map((d, i) => (i === a ? 1 : d));
  const shape = keepDim ? kept : all ? [] : x.shape.toSpliced(a, 1);
  const y = emptyLike(x, shape, dtype ?? x.dtype);
  calls.reduce(x.handle, y.handle, KINDS[kind], outer, n, inner);
  record(
    kind,
    [x],
    [y],
    kind === "sum" || kind === "mean" ? (dy) => [spread(dy, kept, x.shape, kind === "mean" ? 1 / n : 1)] : "none",
    [],
    [],
  );
  return y;
}

/** A gradient repeated over the axes that were summed. */
function spread(dy: Tensor, kept: readonly number[], shape: readonly number[], scale: number): Tensor {
  const d = dims4("spread", shape);
  const dx = emptyLike(dy, shape);
  const factor = fill(emptyLike(dy, [1]), scale);
  const from = broadcastStrides("spread", kept, d);
  calls.binary(dy.handle, factor.handle, dx.handle, 2, ...d, ...from, 0, 0, 0, 0);
  return dx;
}

/** Index (int32) of the first largest element of each row of the last axis; whole numbers, so nothing to differentiate. */
export function argmax(given: Tensor): Tensor {
  const x = widened(given);
  const cols = x.dim(-1);
  const y = emptyLike(x, x.shape.slice(0, -1), "int32");
  calls.argmax(x.handle, y.handle, x.size / cols, cols);
  return y;
}

/** Softmax over the last axis. */
export function softmax(x: Tensor): Tensor {
  return rowwise("softmax", x, calls.softmax, calls.softmaxBackward);
}

/** log softmax over the last axis. */
export function logSoftmax(x: Tensor): Tensor {
  return rowwise("logSoftmax", x, calls.logSoftmax, calls.logSoftmaxBackward);
}

// A row of y of each row of x; the gradient is made of y.
function rowwise(
  name: string,
  given: Tensor,
  forward: typeof calls.softmax,
  backward: typeof calls.softmaxBackward,
): Tensor {
  const x = widened(given);
  const cols = x.dim(-1);
  const y = activationLike(x);
  forward(x.handle, y.handle, x.size / cols, cols);
  const back = (dy: Tensor): Tensor[] => {
    const dx = activationLike(x);
    backward(y.handle, dy.handle, dx.handle, x.size / cols, cols);
    return [dx];
  };
  record(name, [x], [y], back, [], [y]);
  return y;
}

/** y[r] = x[r, index[r]] over the last axis; index int32, -100 gives 0. */
export function pick(given: Tensor, index: Tensor): Tensor {
  const x = widened(given);
  const cols = x.dim(-1);
  const rows = x.size / cols;
  if (index.size !== rows) shapeMismatch("pick", `${rows} indices`, index.shape);
  requireOneDevice("pick", x, index);
  const y = activationLike(x, x.shape.slice(0, -1));
  calls.pick(x.handle, index.handle, y.handle, rows, cols);
  record(
    "pick",
    [x, index],
    [y],
    (dy) => {
      const dx = activationLike(x);
      calls.pickBackward(dy.handle, index.handle, dx.handle, rows, cols);
      return [dx, undefined];
    },
    [],
    [index],
  );
  return y;
}

/** Sum of squares over many tensors, one element (no gradient). */
export function sumSquares(tensors: readonly Tensor[]): Tensor {
  const y = tensors[0] ? emptyLike(tensors[0], [1], "float32") : empty([1]);
  calls.sumSquares(
    tensors.map((t) => t.handle),
    y.handle,
  );
  return y;
}

/** x repeated to a larger shape. */
export function broadcastTo(x: Tensor, shape: readonly number[]): Tensor {
  if (!sameShape(broadcastShape("broadcastTo", x.shape, shape), shape))
    shapeMismatch("broadcastTo", "a shape it broadcasts to", x.shape, shape);
  return binary("add", x, fill(activationLike(x, shape), 0));
}
