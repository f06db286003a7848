import { ConfigError } from "../errors.js";
import { Embedding, Linear } from "../nn/layers.js";
import type { Module, Parameter } from "../nn/module.js";
import type { Device } from "../tensor/device.js";
import { type Compute, computeOf, type DTypeName, type FloatDType, floatDType } from "../tensor/dtype.js";
import { quantizeFp8 } from "../tensor/ops/fp8.js";
import type { FrozenWeight } from "../tensor/ops/frozen.js";
import { quantizeInt8 } from "../tensor/ops/int8.js";
import { quantizeNf4 } from "../tensor/ops/nf4.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { sizeOf } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import { FrozenLinear } from "./frozen.js";

/** What linear layers can be quantised to. */
export type QuantizationType = "nf4" | "fp4" | "int8" | "fp8";

const TYPES: readonly QuantizationType[] = ["nf4", "fp4", "int8", "fp8"];

/** Options of `quantize`. */
export interface QuantizeOptions {
  /**
   * "nf4": 4-bit NormalFloat (QLoRA). "fp4": bitsandbytes' 4-bit float. "int8": LLM.int8()'s weights, one scale an output; inputs stay unquantised,
   * so no outlier columns are set apart. "fp8": 8-bit floats (E4M3) with one scale an output, multiplied as they are by GPUs of compute capability 8.9
   * (Ada, Hopper) and newer: on an H200 the fastest kind of training (docs/quantization.md).
   */
  type: QuantizationType;
  /** 4 bits: quantise the block scales too: 4.127 instead of 4.5 bits a parameter. */
  doubleQuant?: boolean;
  /**
   * Type in which products are computed; by default that of the model's weights. On the CPU float16 is computed in float32, which holds all of its
   * digits, and bfloat16 rounds the inputs and codes of products of any number of rows; on the GPU activations are of that type too.
   */
  compute?: DTypeName;
  /**
   * FP8: "fp8" (the default) rounds the inputs of products of 64 rows and more (and in the backward pass their gradients) to 8-bit floats too, each row by
   * a scale of its own, 2 to 3% of its size: what makes it fast on GPUs. "keep" leaves them: only the weights are quantised.
   */
  activations?: "fp8" | "keep";
  /** 4 bits: elements that share a scale: a power of two from 32; 64 by default. */
  blockSize?: number;
  /** Quantises the vision tower of a model that sees, too; by default it stays as it is, being small and sensitive. */
  vision?: boolean;
}

/** Checked options with their defaults. */
export interface QuantizeSettings {
  type: QuantizationType;
  doubleQuant: boolean;
  block: number;
  /** `undefined`: as the replaced layer's weight says. */
  compute: Compute | undefined;
  /** Dtype of activations where the device computes in 16 bits; `undefined`: as the embedding's weight. */
  activations?: FloatDType | undefined;
  /** FP8: inputs of large products are rounded too. */
  roundInputs: boolean;
}

/** Checks the user's options. @throws ConfigError for what cannot be done, naming what can. */
export function quantizeSettings(options: QuantizeOptions): QuantizeSettings {
  const type = options?.type;
  if (!TYPES.includes(type))
    throw new ConfigError(`quantize: type must be "nf4", "fp4", "int8" or "fp8", received ${JSON.stringify(type)}.`);
  const { doubleQuant = false, blockSize = 64 } = options;
  const compute = options.compute === undefined ? undefined : floatDType(options.compute);
  if (options.compute !== undefined && compute === undefined) {
    throw new ConfigError(
      `quantize: compute must be "float32", "bfloat16" or "float16", received ${JSON.stringify(options.compute)}.`,
    );
  }
  if ((type === "int8" || type === "fp8") && (doubleQuant || options.blockSize !== undefined))
    throw new ConfigError(
      `quantize: doubleQuant and blockSize belong to "nf4" and "fp4"; ${type} has one scale an output.`,
    );
  const { activations } = options;
  if (activations !== undefined && (type !== "fp8" || (activations !== "fp8" && activations !== "keep")))
    throw new ConfigError(
      type === "fp8"
        ? `quantize: activations must be "fp8" or "keep", received ${JSON.stringify(activations)}.`
        : `quantize: activations belongs to type "fp8"; inputs of ${type} weights always keep their precision.`,
    );
  if (!Number.isInteger(blockSize) || blockSize < 32 || blockSize > 4096 || (blockSize & (blockSize - 1)) !== 0) {
    throw new ConfigError(`quantize: blockSize must be a power of two from 32 to 4096, received ${blockSize}.`);
  }
  return {
    type,
    doubleQuant,
    block: blockSize,
    compute: compute && computeOf(compute),
    activations: compute,
    roundInputs: type === "fp8" && activations !== "keep",
  };
}

function quantizeWeight(weight: Tensor, settings: QuantizeSettings): FrozenWeight {
  const { type, doubleQuant, block, roundInputs } = settings;
  // The GPU's own op widens 16 bits by itself; elsewhere the matrix exists in 32 bits for a moment.
  const asItIs = weight.dtype === "float32" || (type !== "int8" && weight.device === "cuda");
  const full = asItIs ? weight : weight.to("float32");
  const state =
    type === "fp8"
      ? quantizeFp8(full, { roundInputs })
      : type === "int8"
        ? quantizeInt8(full)
        : quantizeNf4(full, { doubleQuant, block, kind: type });
  if (full !== weight) full.dispose();
  return state;
}

/** A linear layer whose frozen weight is quantised; the bias stays float32. */
export class QuantizedLinear extends FrozenLinear {
  readonly options: QuantizeSettings;
  readonly #dense: Parameter; // hidden from the module tree: it has no values of its own any more

  /** Takes a linear layer's place: its weight is quantised now if it is in memory, otherwise when it comes. */
  constructor(replaced: Linear, options: QuantizeSettings) {
    super(replaced, options.compute ?? computeOf(replaced.weight.dtype));
    this.options = options;
    this.#dense = replaced.weight;
    if (replaced.materialized) this.initialize();
  }

  protected override get expectedDevice(): Device {
    return this.#dense.device;
  }

  protected override relocate(device: Device): void {
    super.relocate(device);
    this.#dense.placeOn(device);
  }

  get format(): string {
    return this.options.type;
  }

  /** Quantises the values that the dense weight has, or would be initialised with. */
  initialize(): void {
    this.load(this.#dense.materialize());
    this.#dense.dispose();
  }

  /** Quantises a weight (out, in) into this layer; the source is the caller's to free. */
  load(weight: Tensor): void {
    this.adopt(outsideScope(() => noGrad(() => quantizeWeight(weight, this.options))));
  }

  protected override expectedBytes(): number {
    return quantizedBytes([this.outFeatures, this.inFeatures], this.options);
  }
}

/** Bytes of a quantised matrix (out, in): codes, scales and, doubly quantised, the scales' scales. */
export function quantizedBytes(shape: readonly number[], options: QuantizeSettings): number {
  const n = sizeOf(shape);
  if (options.type === "int8" || options.type === "fp8") return n + 4 * shape[0]!;
  const blocks = Math.ceil(n / options.block);
  return Math.ceil(n / 2) + (options.doubleQuant ? blocks + 4 * Math.ceil(blocks / 256) + 4 : 4 * blocks);
}

/**
 * Freezes the model and replaces every linear layer but those named or under a name of `skip` (embeddings and the head stay as they are, as in bitsandbytes). Layers whose weights are in memory are
 * quantised at once and the dense weight freed; the others are quantised while they load.
 * @param rest an adapter is there already: what it trains stays as it is, and nothing need be left.
 * @returns the names of the replaced layers.
 */
export function quantizeModule(
  model: Module,
  options: QuantizeSettings,
  skip: readonly string[],
  rest = false,
): string[] {
  const replaced: string[] = [];
  if (!rest) model.setRequiresGrad(false); // what is quantised is trained through adapters, and so is what stands between
  for (const [name, module] of [...model.namedModules()]) {
    if (module instanceof Embedding) module.activations = options.activations ?? module.activations;
    const plain = name.replace(/\.(base_layer|original_module)$/, "");
    if (
      !(module instanceof Linear) ||
      skip.some((s) => plain === s || plain.endsWith(`.${s}`) || plain.startsWith(`${s}.`))
    )
      continue;
    if (rest && name.includes("modules_to_save.")) continue;
    model.replace(name, new QuantizedLinear(module, options));
    replaced.push(name);
  }
  if (replaced.length === 0 && !rest)
    throw new ConfigError("quantize: the model has no linear layer left to quantise; was it quantised before?");
  return replaced;
}

/** Bits a parameter takes with these options. */
export function bitsPerParameter(options: QuantizeSettings, shape: readonly number[]): number {
  return (8 * quantizedBytes(shape, options)) / sizeOf(shape);
}
