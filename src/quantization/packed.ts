import { CheckpointError, ConfigError } from "../errors.js";
import type { WeightSource } from "../hub/weight-source.js";
import { rounded } from "../nn/init.js";
import { Embedding, EmbeddingLike, Linear } from "../nn/layers.js";
import type { Module } from "../nn/module.js";
import type { Device } from "../tensor/device.js";
import type { DType } from "../tensor/dtype.js";
import { dryMemory } from "../tensor/native.js";
import { type BlockWeight, embeddingBlocks } from "../tensor/ops/blocks.js";
import { type FrozenWeight, PlannedWeight } from "../tensor/ops/frozen.js";
import { empty, type Tensor } from "../tensor/tensor.js";
import { FrozenLinear } from "./frozen.js";

/** Bytes of a block of 32 elements, by the type's name in the file. */
const BLOCK_BYTES: Readonly<Record<string, number>> = { Q8_0: 34, Q4_0: 20, Q4_1: 20 };

const blockBytes = (size: number, format: string): number => (size / 32) * BLOCK_BYTES[format.toUpperCase()]!;

/** A linear layer that keeps its weight in the blocks of the file it came from. Products are computed in bfloat16. */
export class PackedLinear extends FrozenLinear {
  /** "q8_0", "q4_0" or "q4_1". */
  readonly format: string;

  constructor(replaced: Linear, format: string) {
    super(replaced, "bfloat16");
    this.format = format;
  }

  protected override get expectedDevice(): Device {
    return "cpu";
  }

  get shape(): readonly number[] {
    return [this.outFeatures, this.inFeatures];
  }

  protected override expectedBytes(): number {
    return blockBytes(this.ownElements(), this.format);
  }
}

/** An embedding that keeps its table in the blocks of the file it came from. */
export class PackedEmbedding extends EmbeddingLike {
  /** "q8_0", "q4_0" or "q4_1". */
  readonly format: string;
  readonly shape: readonly number[];
  private state: BlockWeight | undefined;

  constructor(replaced: Embedding, format: string) {
    super();
    this.format = format;
    this.shape = replaced.weight.shape;
  }

  override get device(): Device {
    return "cpu";
  }

  protected override relocate(device: Device): void {
    this.state?.to(device);
  }

  get quantized(): BlockWeight {
    if (!this.state) throw new ConfigError("This packed embedding has no table yet: load weights first.");
    return this.state;
  }

  get materialized(): boolean {
    return this.state !== undefined;
  }

  /** Takes its table. */
  adopt(state: BlockWeight): void {
    this.state?.dispose();
    this.state = state;
  }

  forward(ids: Tensor): Tensor {
    if (!this.state && dryMemory()) return empty([...ids.shape, this.shape[1]!], "float32", this.device);
    return embeddingBlocks(this.quantized, ids);
  }

  table(): FrozenWeight {
    if (!this.state && dryMemory()) return new PlannedWeight(this.shape, this.device);
    return this.quantized;
  }

  override ownBytes(): number {
    return this.state?.bytes ?? blockBytes(this.ownElements(), this.format);
  }

  override ownElements(): number {
    return this.shape[0]! * this.shape[1]!;
  }

  protected override release(): void {
    super.release();
    this.state?.dispose();
    this.state = undefined;
  }
}

const DTYPES: Readonly<Record<string, DType>> = { F16: "float16", BF16: "bfloat16" };

/**
 * Prepares a model without weights to take the matrices of a file as they stand in it: blocks stay blocks, 16-bit ones stay 16-bit. Layers that
 * something else has replaced (a quantised one) are left alone. The model is frozen.
 * @throws ConfigError when the file holds no matrix in blocks.
 */
export function packModule(model: Module, source: WeightSource): void {
  model.setRequiresGrad(false);
  let packed = 0;
  for (const [name, module] of [...model.namedModules()]) {
    if (!(module instanceof Linear || module instanceof Embedding) || !source.has(`${name}.weight`)) continue;
    const { dtype, shape } = source.entry(`${name}.weight`);
    if (dtype in BLOCK_BYTES && source.locateBlocks) {
      if (shape[1]! % 32 !== 0)
        throw new CheckpointError(`${source.where}: ${name}.weight has rows of ${shape[1]}, no whole blocks of 32.`);
      const format = dtype.toLowerCase();
      model.replace(
        name,
        module instanceof Linear ? new PackedLinear(module, format) : new PackedEmbedding(module, format),
      );
      packed++;
    } else if (dtype in DTYPES) module.weight = module.weight.inDType(DTYPES[dtype]!, rounded);
  }
  if (packed === 0)
    throw new ConfigError(
      `loadModel: dtype "packed" keeps blocks of Q8_0, Q4_0 or Q4_1 as they are, and ${source.where} has none; give another dtype.`,
    );
}
