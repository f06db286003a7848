import * as calls from "../calls.js";
import type { Compute } from "../dtype.js";
import { inputGradient, leafGradient } from "../gradient.js";
import { endReading, whenRead } from "../lifetime.js";
import { record } from "../record.js";
import { shapeMismatch } from "../shape.js";
import { activationLike, emptyLike, requireOneDevice, Tensor } from "../tensor.js";
import { type FrozenWeight, requireWeightDevice, weightProduct, weightProducts } from "./frozen.js";
import { widened } from "./layout.js";
import type { LoraTerm } from "./lora.js";
import { columns, lowRankGradients } from "./low-rank.js";
import { biasGradient, gemm, requireFloat32 } from "./matmul.js";
import { SharedRounding } from "./rounded.js";

/** One of several linear layers that read one input. */
export interface LoraPart {
  /** (out, in), frozen. */
  readonly weight: Tensor | FrozenWeight;
  readonly bias: Tensor | undefined;
  readonly lora: Omit<LoraTerm, "dropout">;
  /** Of the base product, by default that of its weight. */
  readonly compute?: Compute | undefined;
}

/**
 * What `linearLora` makes of x for each of several layers, without dropout. Their A stand below each other, so that one product reads x for all of
 * them, forward and for their gradients, and the gradient of x gets one update of all ranks; the sums of an output are those of `linearLora`.
 */
export function linearsLora(given: Tensor, parts: readonly LoraPart[]): Tensor[] {
  const x = widened(given);
  const inputs = x.dim(-1);
  for (const { weight, bias, lora } of parts) {
    const { a, b } = lora;
    if (weight.shape[1] !== inputs || a.dim(1) !== inputs || b.dim(0) !== weight.shape[0] || b.dim(1) !== a.dim(0))
      shapeMismatch("linearsLora", "x (…, in), A (r, in), B (out, r)", x.shape, a.shape, b.shape);
    requireWeightDevice("linearsLora", x, weight);
    requireOneDevice("linearsLora", x, a, b, bias);
  }
  const rows = x.size / inputs;
  let ranks = 0;
  const layers = parts.map((part) => {
    const rank = part.lora.a.dim(0);
    ranks += rank;
    return { ...part, ...part.lora, rank, at: ranks - rank, outputs: part.weight.shape[0]! };
  });
  /** All A (ranks, in), rounded as a product would round each. */
  const allA = (): Tensor => {
    const all = activationLike(x, [ranks, inputs]);
    for (const { a, at } of layers) calls.copy2d(a.handle, all.handle, 1, a.size, 0, a.size, at * inputs, a.size, 0);
    return all;
  };
  const reduced = whenRead(x, [rows, ranks], () => {
    const out = activationLike(x, [rows, ranks]);
    const all = allA();
    gemm(x, all, out, rows, ranks, inputs, { transB: true });
    all.dispose();
    return out;
  });
  const saved = [reduced];
  const rounding = new SharedRounding(
    x,
    rows,
    parts.map(({ weight }) => weight),
    saved,
  );
  const results = layers.map((layer) => {
    const { weight, bias, b, scale, compute, rank, at, outputs } = layer;
    const shape = [...x.shape.slice(0, -1), outputs];
    return whenRead(x, shape, () => {
      const out = activationLike(x, shape);
      columns(reduced, at, rank, (u) =>
        rounding.use(weight, (rounded) =>
          weightProduct(x, weight, out, rows, true, {
            bias,
            compute,
            rounded,
            update: { u, v: b, rank, scale, stride: ranks },
          }),
        ),
      );
      return out;
    });
  });
  const learnsA = layers.some(({ a }) => a.requiresGrad);
  record(
    "linearsLora",
    [x, ...layers.flatMap(({ a, b, bias }) => [a, b, bias])],
    results,
    (...dys) => {
      const dReduced = activationLike(x, [rows, ranks]);
      const db = layers.map(({ b, scale, at }, i) => lowRankGradients(dys[i]!, reduced, b, dReduced, scale, at));
      let da: (Tensor | undefined)[] = [];
      if (learnsA) {
        const all = emptyLike(x, [ranks, inputs], "float32");
        gemm(dReduced, x, all, ranks, inputs, rows, { transA: true });
        da = layers.map(({ a, at }) => (a.requiresGrad ? rowsGradient(a, all, at * inputs) : undefined));
        all.dispose();
        endReading(x);
      }
      let dx: Tensor | undefined;
      if (x.requiresGrad) {
        const { grad, beta, returned } = inputGradient(x);
        const all = allA();
        const weights = layers.map(({ weight }) => weight);
        const computes = layers.map(({ compute }) => compute);
        weightProducts(dys, weights, grad, rows, { beta, update: { u: dReduced, v: all, rank: ranks }, computes });
        all.dispose();
        dx = returned;
      }
      dReduced.dispose();
      return [
        dx,
        ...layers.flatMap(({ bias, outputs }, i) => [da[i], db[i], biasGradient(bias, dys[i]!, rows, outputs)]),
      ];
    },
    saved,
    [
      ...layers.flatMap(({ a, b, weight }) => [a, b, weight instanceof Tensor ? weight : undefined]),
      learnsA ? x : undefined,
    ],
  );
  if (!results[0]?.requiresGrad) {
    for (const y of results) void y.handle; // they may not have been made yet
    reduced.dispose();
  }
  return results;
}

/** The gradient of some rows of a matrix, from element `at` of the whole matrix's on: added to a leaf's, returned otherwise. */
function rowsGradient(part: Tensor, all: Tensor, at: number): Tensor | undefined {
  requireFloat32(part);
  const leaf = leafGradient(part);
  const to = leaf?.grad ?? emptyLike(part);
  calls.copy2d(all.handle, to.handle, 1, part.size, at, part.size, 0, part.size, leaf?.beta ?? 0);
  return leaf ? undefined : to;
}
