import { ShapeError } from "../errors.js";
import * as calls from "../tensor/calls.js";
import { replay, whenRead } from "../tensor/lifetime.js";
import { fill } from "../tensor/ops/elementwise.js";
import { clone } from "../tensor/ops/layout.js";
import { randomState, reserveRandom, restoreRandomState } from "../tensor/ops/random.js";
import { isRecording, noGrad, withGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { shapeText } from "../tensor/shape.js";
import { activationLike, type Tensor, view } from "../tensor/tensor.js";
import { discard, recomputing } from "./checkpoint.js";
import { recordApart, recordEntry, spread, takeAdjoint } from "./tape.js";

// Products of so many rows run as fast as products of more.
const TILE = 16384;
let tile = TILE;

/** Rows that `tiled` takes at once; without a number the default again. For tests and measurements. @internal */
export function setTile(rows: number = TILE): void {
  tile = rows;
}

/**
 * fn(x) for a function that gives each row of x (rows, cols) a row of the same width, whatever the other rows are. Many rows (over two tiles) go through it a tile at a
 * time, so that what it makes on the way exists for one tile only. While gradients are wanted this is done where a part of the model runs again anyway
 * (checkpointing "full" and "offload"): the backward pass then runs each tile again instead of all rows. Values of a row are the same; gradients of parameters are
 * sums over tiles, and random numbers are drawn for the rows anew.
 * @param trained whether fn reads parameters that need gradients.
 */
export function tiled(fn: (x: Tensor) => Tensor, x: Tensor, trained: () => boolean): Tensor {
  if (x.rank !== 2 || x.dim(0) <= 2 * tile) return fn(x);
  const needed = isRecording() && (x.requiresGrad || trained());
  if (needed && !recomputing()) return fn(x);
  const [rows, cols] = [x.dim(0), x.dim(1)];
  const size = tile;
  const run = (part: Tensor): Tensor => {
    const y = fn(part);
    if (y.size !== part.size)
      throw new ShapeError(
        `tiled: expected rows of the same width ${shapeText(part.shape)}, got ${shapeText(y.shape)}.`,
      );
    return y === part || !y.scoped ? clone(y) : y;
  };
  // One number of the stream stands for those of all tiles: so it goes on alike whether or not they are gone through.
  const { seed, offset } = reserveRandom(4);
  const state = { key: (seed ^ Math.imul(offset + 1, 0x9e3779b1)) | 0, drawn: 0 };
  const each = (use: (part: Tensor, at: number) => void): void => {
    const after = randomState();
    restoreRandomState(state);
    for (let at = 0; at < rows; at += size)
      scope(() => use(view(x, [Math.min(size, rows - at), cols], at * cols), at * cols));
    restoreRandomState(after);
  };
  const put = (from: Tensor, to: Tensor, at: number): void =>
    calls.copy(from.handle, view(to, from.shape, at).handle, from.size);
  const y = whenRead(x, x.shape, () => {
    const out = activationLike(x);
    each((part, at) =>
      put(
        noGrad(() => replay(() => run(part), false)),
        out,
        at,
      ),
    );
    return out;
  });
  if (!needed) return y;
  const back = (dy: Tensor): [Tensor | undefined] => {
    const dx = x.requiresGrad ? activationLike(x) : undefined;
    each((part, at) => {
      Object.assign(part, { requiresGrad: x.requiresGrad, leaf: false });
      const { result, entries } = recordApart(() => withGrad(() => replay(() => run(part))));
      discard([part, result]); // read by gradients alone from here on
      const upstream = view(dy, part.shape, at);
      upstream.holders++; // taken over by `spread`
      noGrad(() => spread(entries, [result], [upstream]));
      const gradient = takeAdjoint(part);
      if (!dx) return;
      if (gradient) put(gradient, dx, at);
      else fill(view(dx, part.shape, at), 0);
    });
    return [dx];
  };
  Object.assign(y, { requiresGrad: true, leaf: false });
  x.readers++;
  recordEntry({ op: "tiles", inputs: [x], outputs: [y], saved: [], reads: [x], backward: back });
  return y;
}
