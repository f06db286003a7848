import type { Device } from "../tensor/device.js";
import type { FloatDType } from "../tensor/dtype.js";
import type { FrozenWeight } from "../tensor/ops/frozen.js";
import { embedding } from "../tensor/ops/loss.js";
import { linear } from "../tensor/ops/matmul.js";
import { addLayerNorm, addRmsNorm, layerNorm, rmsNorm } from "../tensor/ops/norm.js";
import { dropout } from "../tensor/ops/random.js";
import type { Tensor } from "../tensor/tensor.js";
import { constant, kaimingUniform, normalInit, ones, zeros } from "./init.js";
import { Module, Parameter } from "./module.js";

/** Anything that stands where a linear layer stood: plain, quantised, or with an adapter. */
export abstract class LinearLike extends Module {
  abstract readonly inFeatures: number;
  abstract readonly outFeatures: number;
  abstract forward(x: Tensor): Tensor;

  /** What those of `layers` that can share work with this one, itself included, make of the input that all of them read; `undefined`: it works alone. */
  together(_layers: readonly LinearLike[], _x: Tensor): readonly (Tensor | undefined)[] | undefined {
    return undefined;
  }
}

/** What each of several linear layers, or of modules in their places, makes of one input. */
export function linears<L extends readonly LinearLike[]>(
  layers: readonly [...L],
  x: Tensor,
): { [I in keyof L]: Tensor } {
  const made: (Tensor | undefined)[] = layers.map(() => undefined);
  for (const [i, layer] of layers.entries()) {
    if (made[i]) continue;
    const shared = layer instanceof LinearLike ? layer.together(layers, x) : undefined;
    for (const [j, y] of shared?.entries() ?? [[i, layer.forward(x)] as const]) made[j] ??= y;
  }
  return made as { [I in keyof L]: Tensor };
}

/** y = x Wᵀ + b; weight (out, in), bias (out). */
export class Linear extends LinearLike {
  weight: Parameter;
  bias: Parameter | undefined;

  constructor(inFeatures: number, out: number, options: { bias?: boolean; std?: number } = {}) {
    super();
    const init = options.std === undefined ? kaimingUniform(inFeatures) : normalInit(options.std);
    this.weight = new Parameter([out, inFeatures], init);
    this.bias =
      (options.bias ?? true)
        ? new Parameter([out], options.std === undefined ? kaimingUniform(inFeatures) : zeros)
        : undefined;
  }

  override get device(): Device {
    return this.weight.device;
  }

  /** Whether its weight has memory. */
  get materialized(): boolean {
    return this.weight.materialized;
  }

  get inFeatures(): number {
    return this.weight.shape[1]!;
  }

  get outFeatures(): number {
    return this.weight.shape[0]!;
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}

/** A table of rows (vocab, dim) that may also be the output layer's weight. */
export abstract class EmbeddingLike extends Module {
  /** ids int32 (…) → (…, dim). */
  abstract forward(ids: Tensor): Tensor;
  /** The whole table. */
  abstract table(): Tensor | FrozenWeight;
}

/** Rows of a table: weight (vocab, dim). */
export class Embedding extends EmbeddingLike {
  weight: Parameter;
  /** Dtype of its rows where the device computes in 16 bits: that of the weight unless set. All activations after it follow. */
  activations: FloatDType | undefined;

  constructor(vocab: number, dim: number, options: { std?: number } = {}) {
    super();
    this.weight = new Parameter([vocab, dim], normalInit(options.std ?? 1));
  }

  forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids, this.activations);
  }

  table(): Tensor {
    return this.weight;
  }
}

/** Root-mean-square norm over the last axis. */
export class RMSNorm extends Module {
  weight: Parameter;
  readonly eps: number;
  /** What is added to the weight: 1 where a checkpoint holds the difference to one (Gemma), else 0. */
  readonly offset: number;

  constructor(dim: number, options: { eps?: number; offset?: number } = {}) {
    super();
    this.eps = options.eps ?? 1e-6;
    this.offset = options.offset ?? 0;
    this.weight = new Parameter([dim], constant(1 - this.offset));
  }

  private get gain(): Tensor {
    return this.offset === 0 ? this.weight : this.weight.add(this.offset);
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.gain, this.eps);
  }

  /** [dropout(x) + residual, its norm] in one pass; `share` is dropped of x, nothing by default. */
  forwardAdd(x: Tensor, residual: Tensor, share = 0): [Tensor, Tensor] {
    return addRmsNorm(dropout(x, share), residual, this.gain, this.eps);
  }
}

/** Layer norm over the last axis. */
export class LayerNorm extends Module {
  weight: Parameter;
  bias: Parameter | undefined;
  readonly eps: number;

  constructor(dim: number, options: { eps?: number; bias?: boolean } = {}) {
    super();
    this.weight = new Parameter([dim], ones);
    this.bias = (options.bias ?? true) ? new Parameter([dim], zeros) : undefined;
    this.eps = options.eps ?? 1e-5;
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.eps);
  }

  /** [dropout(x) + residual, its norm] in one pass; `share` is dropped of x, nothing by default. */
  forwardAdd(x: Tensor, residual: Tensor, share = 0): [Tensor, Tensor] {
    return addLayerNorm(x, residual, this.weight, this.bias, this.eps, share);
  }
}

/** Zeroes elements with probability p while training. */
export class Dropout extends Module {
  readonly p: number;

  constructor(p: number) {
    super();
    this.p = p;
  }

  forward(x: Tensor): Tensor {
    return dropout(x, this.share);
  }

  /** What it drops now: nothing unless it trains. */
  get share(): number {
    return this.training ? this.p : 0;
  }
}
