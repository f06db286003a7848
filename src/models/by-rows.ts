import { discard, rest } from "../autograd/checkpoint.js";
import { tiled } from "../autograd/tiles.js";
import { type LinearLike, linears } from "../nn/layers.js";
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

/** down(activation(gate(x), up(x))) of a gated feed-forward part, row by row; what it makes on the way is let go of as soon as it can be. */
export function gatedRows(
  mlp: Module & { gate_proj: LinearLike; up_proj: LinearLike; down_proj: LinearLike },
  x: Tensor,
  activation: (gate: Tensor, up: Tensor) => Tensor,
): Tensor {
  return byRows(mlp, x, (rows) => {
    const [gate, up] = linears([mlp.gate_proj, mlp.up_proj], rows);
    const product = activation(gate, up);
    rest(rows);
    const y = mlp.down_proj.forward(product);
    discard([gate, up, product], [rows, y]);
    return y;
  });
}
