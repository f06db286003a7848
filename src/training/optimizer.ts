import type { Parameter } from "../nn/module.js";
import * as calls from "../tensor/calls.js";
import type { DType } from "../tensor/dtype.js";
import { fill } from "../tensor/ops/elementwise.js";
import { sumSquares } from "../tensor/ops/reduce.js";
import { outsideScope } from "../tensor/scope.js";
import { emptyLike, type Tensor } from "../tensor/tensor.js";
import { PagedStates } from "./paged.js";

/** Options of the optimizers of `train`. */
export interface OptimizerOptions {
  name: "adamw" | "adamw8bit" | "sgd";
  weightDecay: number;
  epsilon: number;
  beta1: number;
  beta2: number;
  momentum: number;
  /** Keeps states in the GPU's host memory; without effect on the CPU. */
  paged?: boolean;
  /** Factors of the learning rate (LoRA+), 1 for a parameter that is not among them. */
  rates?: ReadonlyMap<Parameter, number> | undefined;
  /** Which parameters weight decay applies to; those of rank 2 and more by default. */
  decays?: (p: Parameter) => boolean;
}

/** Elements that share a scale in an 8-bit moment. */
export const STATE_BLOCK = 256;
/** Parameters of fewer elements keep float32 moments (bitsandbytes' `min_8bit_size`). */
export const LEAST_8BIT = 4096;
/** Parameters of fewer elements keep their states on the GPU (bitsandbytes' bound). */
export const LEAST_PAGED = 100_000;

/** What an optimizer remembers of a parameter. Names are those under which it is saved. */
export interface OptimizerState {
  /** First moment, or SGD's momentum. float32, or uint8 codes of the signed dynamic map. */
  m: Tensor;
  /** Second moment. float32, or uint8 codes of the unsigned dynamic map. */
  v?: Tensor;
  /** Scales of 8-bit moments, one a block of 256 elements. */
  absmaxM?: Tensor;
  absmaxV?: Tensor;
}

/** Name, dtype and number of elements of each tensor of a state. */
export type StateLayout = [keyof OptimizerState, DType, number][];

/** What is kept for a parameter of `size` elements. */
export function stateLayout(name: OptimizerOptions["name"], size: number, momentum = 0): StateLayout {
  if (name === "sgd") return momentum === 0 ? [] : [["m", "float32", size]];
  if (name === "adamw" || size < LEAST_8BIT)
    return [
      ["m", "float32", size],
      ["v", "float32", size],
    ];
  const blocks = Math.ceil(size / STATE_BLOCK);
  return [
    ["m", "uint8", size],
    ["v", "uint8", size],
    ["absmaxM", "float32", blocks],
    ["absmaxV", "float32", blocks],
  ];
}

// Biases and norm weights have one axis.
function isMatrix(p: Parameter): boolean {
  return p.rank >= 2;
}

/**
 * AdamW (Loshchilov and Hutter 2019) as torch computes it, AdamW with 8-bit moments (Dettmers et al. 2022) as bitsandbytes does, or SGD with momentum,
 * over all trainable parameters at once.
 */
export class Optimizer implements Disposable {
  readonly options: OptimizerOptions;
  /** Steps taken. */
  steps = 0;
  private readonly parameters: readonly Parameter[];
  private readonly states = new Map<Parameter, OptimizerState>();
  private paged: PagedStates | undefined;

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
    const { weightDecay, rates, decays = isMatrix } = this.options;
    const rate = (p: Parameter): number => rates?.get(p) ?? 1;
    const factors = [...new Set(trained.map(rate))];
    const update = (parameters: readonly Parameter[], states: readonly OptimizerState[]): void => {
      for (const decay of [true, false]) {
        for (const [bits, factor] of [8, 32].flatMap((b) => factors.map((f) => [b, f] as const))) {
          const fits = (p: Parameter): boolean => decays(p) === decay && this.bits(p) === bits && rate(p) === factor;
          const at = parameters.flatMap((p, i) => (fits(p) ? [i] : []));
          const group = at.map((i) => parameters[i]!);
          const own = at.map((i) => states[i]!);
          if (group.length > 0) this.update(group, own, bits, norm, lr * factor, decay ? weightDecay : 0, maxGradNorm);
        }
      }
    };
    const here = trained.filter((p) => !this.pages(p));
    update(
      here,
      here.map((p) => this.state(p)),
    );
    if (here.length < trained.length) this.away().each(new Set(trained.filter((p) => this.pages(p))), update);
    for (const p of trained) {
      p.grad!.dispose();
      p.grad = undefined;
    }
    return norm;
  }

  private bits(p: Parameter): number {
    return this.options.name === "adamw8bit" && p.size >= LEAST_8BIT ? 8 : 32;
  }

  /** Whether a parameter's state stands in host memory. */
  private pages(p: Parameter): boolean {
    return this.options.paged === true && p.device === "cuda" && p.size >= LEAST_PAGED;
  }

  private layout(p: Parameter): StateLayout {
    return stateLayout(this.options.name, p.size, this.options.momentum);
  }

  private away(): PagedStates {
    this.paged ??= new PagedStates(
      this.parameters.filter((p) => this.pages(p)),
      (p) => this.layout(p),
    );
    return this.paged;
  }

  /** One call for parameters that decay alike and whose states have the same form. */
  private update(
    group: readonly Parameter[],
    states: readonly OptimizerState[],
    bits: number,
    norm: Tensor,
    lr: number,
    decay: number,
    maxGradNorm: number,
  ): void {
    const { name, beta1, beta2, epsilon, momentum } = this.options;
    const params = group.map((p) => p.handle);
    const grads = group.map((p) => p.grad!.handle);
    const part = (key: keyof OptimizerState): number[] => states.flatMap((s) => s[key]?.handle ?? []);
    const [m, v] = [part("m"), part("v")];
    const { steps } = this;
    if (name === "sgd") calls.sgd(params, grads, m, norm.handle, steps, lr, momentum, decay, maxGradNorm);
    else if (bits === 8) {
      const [am, av] = [part("absmaxM"), part("absmaxV")];
      calls.adamw8bit(
        params, grads, m, v, am, av, norm.handle, steps, lr, beta1, beta2, epsilon, decay, maxGradNorm,
      ); // biome-ignore format: one line a group
    } else calls.adamw(params, grads, m, v, norm.handle, steps, lr, beta1, beta2, epsilon, decay, maxGradNorm);
  }

  /** What it remembers of a parameter: zeros before its first step. A run is saved by reading these tensors, and resumed by setting them. */
  state(p: Parameter): OptimizerState {
    if (this.pages(p)) return this.away().state(p);
    let state = this.states.get(p);
    if (!state) {
      state = {} as OptimizerState;
      for (const [key, dtype, size] of this.layout(p)) {
        const shape = size === p.size ? p.shape : [size];
        state[key] = outsideScope(() => fill(emptyLike(p, shape, dtype), 0));
      }
      this.states.set(p, state);
    }
    return state;
  }

  /** Bytes of the moments. */
  get bytes(): number {
    let n = 0;
    for (const state of this.states.values()) for (const t of Object.values(state) as Tensor[]) n += t.bytes;
    return n + (this.paged?.bytes ?? 0);
  }

  /** Frees the moments. */
  dispose(): void {
    for (const state of this.states.values()) for (const t of Object.values(state) as Tensor[]) t.dispose();
    this.states.clear();
    this.paged?.dispose();
    this.paged = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
