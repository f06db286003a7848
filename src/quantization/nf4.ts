import { ConfigError } from "../errors.js";
import { Linear, LinearLike } from "../nn/layers.js";
import type { Module, Parameter } from "../nn/module.js";
import { linearNf4, type Nf4Weight, quantizeNf4 } from "../tensor/ops/nf4.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { sizeOf } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";

/** Options of `quantize` (api.md): block-wise 4-bit NormalFloat is what this version offers. */
export interface QuantizeOptions {
  type: "nf4" | "fp4" | "int8";
  /** Quantise the block scales too: 4.127 instead of 4.5 bits a parameter. */
  doubleQuant?: boolean;
  /** Type in which products are computed. */
  compute?: "float32" | "bfloat16" | "float16" | "fp32" | "bf16" | "fp16";
  /** Elements that share a scale: a power of two from 32; 64 by default. */
  blockSize?: number;
}

/** Checked options with their defaults. */
export interface Nf4Options {
  doubleQuant: boolean;
  block: number;
}

/** Checks the user's options. @throws ConfigError for what cannot be done, naming what can. */
export function nf4Options(options: QuantizeOptions): Nf4Options {
  if (options?.type !== "nf4") {
    throw new ConfigError(
      `quantize: expected { type: "nf4" }, received type ${JSON.stringify(options?.type)}; fp4 and int8 are not available yet.`,
    );
  }
  const { compute = "float32", blockSize = 64 } = options;
  if (compute !== "float32" && compute !== "fp32") {
    throw new ConfigError(
      `quantize: compute "${compute}" is not available yet; use compute: "float32" (or leave it out).`,
    );
  }
  if (!Number.isInteger(blockSize) || blockSize < 32 || blockSize > 4096 || (blockSize & (blockSize - 1)) !== 0) {
    throw new ConfigError(`quantize: blockSize must be a power of two from 32 to 4096, received ${blockSize}.`);
  }
  return { doubleQuant: options.doubleQuant ?? false, block: blockSize };
}

/** A linear layer whose frozen weight is NF4; the bias stays float32. */
export class QuantizedLinear extends LinearLike {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly options: Nf4Options;
  bias: Parameter | undefined;
  private state: Nf4Weight | undefined;
  readonly #dense: Parameter; // hidden from the module tree: it has no values of its own any more

  /** Takes a linear layer's place: its weight is quantised now if it is in memory, otherwise when it comes. */
  constructor(replaced: Linear, options: Nf4Options) {
    super();
    this.inFeatures = replaced.inFeatures;
    this.outFeatures = replaced.outFeatures;
    this.options = options;
    this.#dense = replaced.weight;
    this.bias = replaced.bias;
    if (this.bias) this.bias.requiresGrad = false;
    if (replaced.materialized) this.initialize();
  }

  /** Quantises the values that the dense weight has, or would be initialised with. */
  initialize(): void {
    this.load(this.#dense.materialize());
    this.#dense.dispose();
  }

  /** The packed weight. @throws ConfigError while nothing was quantised into it. */
  get quantized(): Nf4Weight {
    if (!this.state) throw new ConfigError("This quantised layer has no weight yet: load weights first.");
    return this.state;
  }

  /** Whether it holds a weight. */
  get materialized(): boolean {
    return this.state !== undefined;
  }

  /** Quantises a float32 weight (out, in) into this layer; the source is the caller's to free. */
  load(weight: Tensor): void {
    this.state?.dispose();
    this.state = outsideScope(() => noGrad(() => quantizeNf4(weight, this.options)));
  }

  /** Takes packed weights as a checkpoint holds them. */
  adopt(state: Nf4Weight): void {
    this.state?.dispose();
    this.state = state;
  }

  forward(x: Tensor): Tensor {
    return linearNf4(x, this.quantized, this.bias);
  }

  override ownBytes(): number {
    if (this.state) return this.state.bytes;
    return nf4Bytes(this.inFeatures * this.outFeatures, this.options);
  }

  override ownElements(): number {
    return this.inFeatures * this.outFeatures;
  }

  protected override release(): void {
    super.release();
    this.state?.dispose();
    this.state = undefined;
  }
}

/** Bytes of `n` elements in NF4: codes, scales and, doubly quantised, the scales' scales. */
export function nf4Bytes(n: number, options: Nf4Options): number {
  const blocks = Math.ceil(n / options.block);
  return Math.ceil(n / 2) + (options.doubleQuant ? blocks + 4 * Math.ceil(blocks / 256) + 4 : 4 * blocks);
}

/**
 * Freezes the model and replaces every linear layer but those under `skip` (embeddings and the head stay as they are, as in bitsandbytes). Layers whose weights are in memory are
 * quantised at once and the dense weight freed; the others are quantised while they load.
 * @returns the names of the replaced layers.
 */
export function quantizeModule(model: Module, options: Nf4Options, skip: readonly string[]): string[] {
  const replaced: string[] = [];
  model.setRequiresGrad(false); // what is quantised is trained through adapters, and so is what stands between
  for (const [name, module] of [...model.namedModules()]) {
    if (!(module instanceof Linear) || skip.some((s) => name === s || name.endsWith(`.${s}`))) continue;
    model.replace(name, new QuantizedLinear(module, options));
    replaced.push(name);
  }
  if (replaced.length === 0)
    throw new ConfigError("quantize: the model has no linear layer left to quantise; was it quantised before?");
  return replaced;
}

/** Bits a parameter takes with these options. */
export function bitsPerParameter(options: Nf4Options, shape: readonly number[]): number {
  const n = sizeOf(shape);
  return (8 * nf4Bytes(n, options)) / n;
}
