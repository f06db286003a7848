import type { Parameter } from "../nn/module.js";
import * as calls from "../tensor/calls.js";
import { fill } from "../tensor/ops/elementwise.js";
import { sumSquares } from "../tensor/ops/reduce.js";
import { outsideScope } from "../tensor/scope.js";
import { emptyLike, type Tensor } from "../tensor/tensor.js";

/** Options of the optimizers of `train`. */
export interface OptimizerOptions {
  name: "adamw" | "sgd";
  weightDecay: number;
  epsilon: number;
  beta1: number;
  beta2: number;
  momentum: number;
}

/** Whether weight decay applies: not to biases and norm weights (rank below 2), as transformers' Trainer. */
function decays(p: Parameter): boolean {
  return p.rank >= 2;
}

/** AdamW (Loshchilov and Hutter 2019) as torch computes it, or SGD with momentum, over all trainable parameters at once. */
export class Optimizer implements Disposable {
  readonly options: OptimizerOptions;
  /** Steps taken. */
  steps = 0;
  private readonly parameters: readonly Parameter[];
  private readonly first = new Map<Parameter, Tensor>();
  private readonly second = new Map<Parameter, Tensor>();

  constructor(parameters: readonly Parameter[], options: OptimizerOptions) {
    this.parameters = parameters;
    this.options = options;
  }

  /**
   * Takes a step with the accumulated gradients and clears them. The gradient's norm is clipped on the device, nothing is waited for.
   * @returns the squared norm of the gradient before clipping, one element; the caller's to free.
   */
  step(lr: number, maxGradNorm: number): Tensor {
    const trained = this.parameters.filter((p) => p.grad);
    const norm = sumSquares(trained.map((p) => p.grad!));
    this.steps++;
    const { weightDecay } = this.options;
    for (const decay of [true, false]) {
      const group = trained.filter((p) => decays(p) === decay);
      if (group.length > 0) this.update(group, norm, lr, decay ? weightDecay : 0, maxGradNorm);
    }
    for (const p of trained) {
      p.grad!.dispose();
      p.grad = undefined;
    }
    return norm;
  }

  private update(group: Parameter[], norm: Tensor, lr: number, decay: number, maxGradNorm: number): void {
    const { name, beta1, beta2, epsilon, momentum } = this.options;
    const params = group.map((p) => p.handle);
    const grads = group.map((p) => p.grad!.handle);
    const m = name === "sgd" && momentum === 0 ? [] : group.map((p) => this.state(this.first, p).handle);
    if (name === "sgd") calls.sgd(params, grads, m, norm.handle, this.steps, lr, momentum, decay, maxGradNorm);
    else {
      const v = group.map((p) => this.state(this.second, p).handle);
      calls.adamw(params, grads, m, v, norm.handle, this.steps, lr, beta1, beta2, epsilon, decay, maxGradNorm);
    }
  }

  private state(of: Map<Parameter, Tensor>, p: Parameter): Tensor {
    let t = of.get(p);
    if (!t) {
      t = outsideScope(() => fill(emptyLike(p, p.shape, "float32"), 0));
      of.set(p, t);
    }
    return t;
  }

  /** Bytes of the moments. */
  get bytes(): number {
    let n = 0;
    for (const state of [this.first, this.second]) for (const t of state.values()) n += t.bytes;
    return n;
  }

  /** Frees the moments. */
  dispose(): void {
    for (const state of [this.first, this.second]) {
      for (const t of state.values()) t.dispose();
      state.clear();
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
