import { tiled } from "../autograd/tiles.js";
import type { Module } from "../nn/module.js";
import { rowRoutes } from "../nn/routes.js";
import type { Tensor } from "../tensor/tensor.js";

/**
 * What a module's `forward` makes of each row of x (rows, hidden) by itself: a feed-forward part, whose inner width is several times the hidden size. Of long
 * rows it is done in tiles (`tiled`), unless rows go through several adapters.
 */
export function byRows(module: Module, x: Tensor, forward: (x: Tensor) => Tensor): Tensor {
  if (rowRoutes()) return forward(x);
  return tiled(forward, x, () => module.trainableParameters().length > 0);
}
