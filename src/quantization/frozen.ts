import { ConfigError } from "../errors.js";
import { type Linear, LinearLike } from "../nn/layers.js";
import type { Parameter } from "../nn/module.js";
import type { Device } from "../tensor/device.js";
import type { Compute } from "../tensor/dtype.js";
import { dryMemory } from "../tensor/native.js";
import { type FrozenWeight, linearFrozen, PlannedWeight } from "../tensor/ops/frozen.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";

/** A linear layer whose weight is frozen in a form of its own; the bias stays float32. */
export abstract class FrozenLinear extends LinearLike {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly compute: Compute;
  bias: Parameter | undefined;
  private state: FrozenWeight | undefined;

  /** Takes a linear layer's place. */
  constructor(replaced: Linear, compute: Compute) {
    super();
    this.inFeatures = replaced.inFeatures;
    this.outFeatures = replaced.outFeatures;
    this.compute = compute;
    this.bias = replaced.bias;
    if (this.bias) this.bias.requiresGrad = false;
  }

  /** What its weight is called where dtypes are listed. */
  abstract get format(): string;

  /** Bytes of a weight that has no memory yet. */
  protected abstract expectedBytes(): number;

  /** Where a weight that has no memory yet will stand. */
  protected abstract get expectedDevice(): Device;

  override get device(): Device {
    return this.state?.device ?? this.expectedDevice;
  }

  protected override relocate(device: Device): void {
    super.relocate(device);
    const old = this.state;
    if (old && old.device !== device) this.adopt(outsideScope(() => noGrad(() => old.to(device))));
  }

  /** The packed weight. @throws ConfigError while there is none. */
  get quantized(): FrozenWeight {
    if (!this.state && dryMemory()) return new PlannedWeight([this.outFeatures, this.inFeatures], this.device);
    if (!this.state) throw new ConfigError("This quantised layer has no weight yet: load weights first.");
    return this.state;
  }

  /** Whether it holds a weight. */
  get materialized(): boolean {
    return this.state !== undefined;
  }

  /** Takes a packed weight. */
  adopt(state: FrozenWeight): void {
    this.state?.dispose();
    this.state = state;
  }

  forward(x: Tensor): Tensor {
    return linearFrozen(x, this.quantized, this.bias, this.compute);
  }

  override ownBytes(): number {
    return this.state?.bytes ?? this.expectedBytes();
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
