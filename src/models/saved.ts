import { ConfigError } from "../errors.js";
import { Embedding, EmbeddingLike, LayerNorm, Linear, type LinearLike, RMSNorm } from "../nn/layers.js";
import { Module, type Parameter } from "../nn/module.js";
import { eachRoute, rowRoutes } from "../nn/routes.js";
import { FrozenLinear } from "../quantization/frozen.js";
import type { FrozenWeight } from "../tensor/ops/frozen.js";
import { clone } from "../tensor/ops/layout.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";

/** A linear layer, an embedding or a norm: what can be trained whole. */
export type Savable = Linear | FrozenLinear | Embedding | RMSNorm | LayerNorm;

/** Whether a module can be trained whole beside its adapterless self. */
export function isSavable(m: Module): m is Savable {
  return [Linear, FrozenLinear, Embedding, RMSNorm, LayerNorm].some((kind) => m instanceof kind);
}

/**
 * A module and copies of it that adapters train whole (PEFT's `modules_to_save`), in float32. It stands where a linear layer, an embedding or a norm
 * stood; a tied output layer keeps the original table, as in PEFT.
 */
export class SavedModule extends Module {
  original_module: Savable;
  modules_to_save: Record<string, Savable> = {};
  /** The adapter in use; `undefined`: the original. */
  active: string | undefined;

  constructor(original: Savable) {
    super();
    this.original_module = original;
    original.setRequiresGrad(false);
  }

  /** Adds a copy for an adapter. */
  add(name: string): void {
    const copy = copied(this.original_module);
    copy.train(this.training);
    this.modules_to_save[name] = copy;
    this.active = name;
  }

  /** Frees an adapter's copy. */
  remove(name: string): void {
    this.modules_to_save[name]?.dispose();
    delete this.modules_to_save[name];
    if (this.active === name) this.active = undefined;
  }

  /** The module in use. */
  get current(): Savable {
    return this.#of(this.active);
  }

  #of(name: string | undefined): Savable {
    return (name === undefined ? undefined : this.modules_to_save[name]) ?? this.original_module;
  }

  /** The rows or the product of the module in use. */
  forward(x: Tensor): Tensor {
    const routes = rowRoutes();
    if (!routes) return this.current.forward(x);
    return eachRoute(routes, [x], (name, [x]) => {
      return [this.#of(name).forward(x!)];
    })[0]!;
  }

  /** As the norm in use. */
  forwardAdd(x: Tensor, residual: Tensor, share = 0): [Tensor, Tensor] {
    const add = (module: Savable, x: Tensor, residual: Tensor): [Tensor, Tensor] => {
      if (module instanceof RMSNorm || module instanceof LayerNorm) return module.forwardAdd(x, residual, share);
      throw new ConfigError("This module is no norm.");
    };
    const routes = rowRoutes();
    if (!routes) return add(this.current, x, residual);
    return eachRoute(routes, [x, residual], (name, [x, r]) => add(this.#of(name), x!, r!)) as [Tensor, Tensor];
  }

  /** The original table, for a tied output layer. */
  table(): Tensor | FrozenWeight {
    if (this.original_module instanceof EmbeddingLike) return this.original_module.table();
    throw new ConfigError("This module has no table.");
  }

  get inFeatures(): number {
    return (this.original_module as LinearLike).inFeatures;
  }

  get outFeatures(): number {
    return (this.original_module as LinearLike).outFeatures;
  }
}

function copied(module: Savable): Savable {
  if (module instanceof FrozenLinear || module instanceof Linear) {
    const made = new Linear(module.inFeatures, module.outFeatures, { bias: module.bias !== undefined });
    if (module instanceof Linear) fill(made.weight, module.weight);
    else if (module.materialized) adopt(made.weight, () => module.quantized.restore(), module);
    if (made.bias && module.bias) fill(made.bias, module.bias);
    return made;
  }
  if (module instanceof Embedding) {
    const made = new Embedding(module.weight.shape[0]!, module.weight.shape[1]!);
    fill(made.weight, module.weight);
    made.activations = module.activations ?? (module.weight.dtype as NonNullable<typeof made.activations>);
    return made;
  }
  const [dim] = module.weight.shape as [number];
  const made =
    module instanceof RMSNorm
      ? new RMSNorm(dim, { eps: module.eps, offset: module.offset })
      : new LayerNorm(dim, { eps: module.eps, bias: module.bias !== undefined });
  fill(made.weight, module.weight);
  if (made instanceof LayerNorm && made.bias && module instanceof LayerNorm) fill(made.bias, module.bias!);
  return made;
}

function adopt(into: Parameter, make: () => Tensor, where: Module): void {
  into.placeOn(where.device!);
  into.adopt(outsideScope(() => noGrad(make)));
}

function fill(into: Parameter, from: Parameter): void {
  into.placeOn(from.device);
  if (from.materialized)
    into.adopt(outsideScope(() => noGrad(() => (from.dtype === "float32" ? clone(from) : from.to("float32")))));
}
