import * as calls from "../calls.js";
import { handOver, isReplaying, unmade } from "../lifetime.js";
import { isRecording, recomputable, record } from "../record.js";
import { shapeMismatch } from "../shape.js";
import { activationLike, requireOneDevice, type Tensor, view } from "../tensor.js";
import { type UnaryKind, unaryCode } from "./elementwise.js";
import { inDType, widened } from "./layout.js";

/**
 * A cheap function of tensors that the model keeps anyway: its result is freed between the forward and the backward pass and made again, and in a forward pass
 * that runs again it is made when somebody reads it.
 */
function cheap(
  op: string,
  inputs: readonly Tensor[],
  shape: readonly number[],
  make: () => Tensor,
  back: (dy: Tensor, y: Tensor) => readonly Tensor[],
): Tensor {
  const later = isReplaying() && isRecording();
  if (later) for (const t of inputs) void t.handle; // made now, while what they are made from is still there
  const y = later ? unmade(inputs[0]!, shape) : make();
  record(op, inputs, [y], (dy) => back(dy, y), [], inputs);
  recomputable(y, inputs, make);
  return y;
}

/** x · Φ(x) (Hendrycks and Gimpel 2016); "gelu_tanh": its approximation by tanh, as GPT-2's; "quick_gelu": by x · sigmoid(1.702 x), as CLIP's. */
export function gelu(given: Tensor, kind: "gelu" | "gelu_tanh" | "quick_gelu"): Tensor {
  const x = widened(given);
  const code = unaryCode(kind);
  const make = (): Tensor => activated(kind, x);
  const y = cheap(kind, [x], x.shape, make, (dy, { awaited }) => {
    const from = x.handle;
    const dx = handOver(x) ?? activationLike(x);
    madeOnTheWay(dy, awaited, (again) => calls.unaryBackward(from, dy.handle, dx.handle, again, code, x.size, 0, 0));
    return [dx];
  });
  y.madeAgain = true;
  return y;
}

/**
 * Runs a backward pass that can make the result of the forward pass again on its way, for whom `awaited` is (see `leaveToMaker`): over the gradient that it reads where
 * nobody else holds that.
 * @param run takes the handle of the tensor to be made, 0: none.
 */
function madeOnTheWay(dy: Tensor, awaited: Tensor["awaited"], run: (again: number) => void): void {
  const again = awaited && (dy.holders === 1 && !dy.aliased ? dy : activationLike(dy));
  run(again?.handle ?? 0);
  if (!again) return;
  awaited(again);
  if (again !== dy) again.dispose();
}

/** f(x) without recording. */
function activated(kind: UnaryKind, x: Tensor): Tensor {
  const y = activationLike(x);
  calls.unary(x.handle, y.handle, unaryCode(kind), x.size, 0, 0);
  return y;
}

/** silu(gate) · up (Shazeer 2020). */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  const cols = gate.dim(-1);
  if (up.size !== gate.size || up.dim(-1) !== cols) shapeMismatch("swiglu", "equal shapes", gate.shape, up.shape);
  requireOneDevice("swiglu", gate, up);
  if (up.dtype !== gate.dtype) return swiglu(gate, inDType(up, gate.dtype));
  const rows = gate.size / cols;
  const make = (): Tensor => {
    const y = activationLike(gate);
    calls.swiglu(gate.handle, up.handle, y.handle, rows, cols, cols, cols, cols);
    return y;
  };
  const y = cheap("swiglu", [gate, up], gate.shape, make, (dy, { awaited }) => {
    const [g, u] = [gate.handle, up.handle];
    const dgate = handOver(gate) ?? activationLike(gate);
    const dup = handOver(up) ?? activationLike(up);
    madeOnTheWay(dy, awaited, (again) =>
      calls.swigluBackward(g, u, dy.handle, dgate.handle, dup.handle, again, rows, cols, cols, cols, cols, cols, cols),
    );
    return [dgate, dup];
  });
  y.madeAgain = true;
  return y;
}

/** silu(first half) · second half of the last axis. */
export function swigluHalves(given: Tensor): Tensor {
  const x = widened(given);
  const width = x.dim(-1);
  if (width % 2 !== 0) shapeMismatch("swigluHalves", "an even last axis", x.shape);
  const cols = width / 2;
  const rows = x.size / width;
  const shape = [...x.shape.slice(0, -1), cols];
  const second = (t: Tensor): Tensor => view(t, [t.size - cols], cols);
  const make = (): Tensor => {
    const y = activationLike(x, shape);
    const up = second(x);
    calls.swiglu(x.handle, up.handle, y.handle, rows, cols, width, width, cols);
    up.dispose();
    return y;
  };
  return cheap("swigluHalves", [x], shape, make, (dy) => {
    const dx = activationLike(x);
    const [up, dup] = [second(x), second(dx)];
    calls.swigluBackward(
      x.handle,
      up.handle,
      dy.handle,
      dx.handle,
      dup.handle,
      0,
      rows,
      cols,
      width,
      width,
      cols,
      width,
      width,
    );
    for (const t of [up, dup]) t.dispose();
    return [dx];
  });
}

/** gelu(gate) · up by the approximation of tanh (Shazeer 2020). */
export function geglu(gate: Tensor, up: Tensor): Tensor {
  if (up.size !== gate.size || up.dim(-1) !== gate.dim(-1))
    shapeMismatch("geglu", "equal shapes", gate.shape, up.shape);
  requireOneDevice("geglu", gate, up);
  if (up.dtype !== gate.dtype) return geglu(gate, inDType(up, gate.dtype));
  const { size } = gate;
  const times = (a: Tensor, b: Tensor, into: Tensor): Tensor => {
    calls.binary(a.handle, b.handle, into.handle, 2, 1, 1, 1, size, 0, 0, 0, 1, 0, 0, 0, 1);
    return into;
  };
  const make = (): Tensor => {
    const y = activated("gelu_tanh", gate);
    return times(y, up, y);
  };
  return cheap("geglu", [gate, up], gate.shape, make, (dy) => {
    const dgate = times(dy, up, activationLike(gate));
    calls.unaryBackward(gate.handle, dgate.handle, dgate.handle, 0, unaryCode("gelu_tanh"), size, 0, 0);
    const dup = activated("gelu_tanh", gate);
    return [dgate, times(dup, dy, dup)];
  });
}
