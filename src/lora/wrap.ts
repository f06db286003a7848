import { ConfigError } from "../errors.js";
import { kaimingUniform, normalInit, zeros } from "../nn/init.js";
import { Linear, LinearLike } from "../nn/layers.js";
import { Module, Parameter } from "../nn/module.js";
import { FrozenLinear } from "../quantization/frozen.js";
import type { FrozenWeight } from "../tensor/ops/frozen.js";
import { linearLora } from "../tensor/ops/lora.js";
import type { Tensor } from "../tensor/tensor.js";
import type { LoraSettings } from "./options.js";

/** The A or B of one adapter: a bare weight under PEFT's name `lora_A.<adapter>.weight`. */
export class LoraMatrix extends Module {
  weight: Parameter;

  constructor(weight: Parameter) {
    super();
    this.weight = weight;
  }
}

/** A linear layer with low-rank updates beside it; named as PEFT names its parts. */
export class LoraLinear extends LinearLike {
  base_layer: Linear | FrozenLinear;
  lora_A: Record<string, LoraMatrix> = {};
  lora_B: Record<string, LoraMatrix> = {};
  private readonly scales = new Map<string, { scale: number; dropout: number }>();
  /** The adapter in use; `undefined`: the base layer alone. */
  active: string | undefined;

  constructor(base: Linear | FrozenLinear) {
    super();
    this.base_layer = base;
    base.setRequiresGrad(false);
  }

  get inFeatures(): number {
    return this.base_layer.inFeatures;
  }

  get outFeatures(): number {
    return this.base_layer.outFeatures;
  }

  /** Adds an adapter and makes it the active one. B starts at zero, so the layer's output does not change. */
  add(settings: LoraSettings): void {
    const { rank, name } = settings;
    const { device } = this.base_layer;
    const init = settings.init === "gaussian" ? normalInit(1 / rank) : kaimingUniform(this.inFeatures);
    this.lora_A[name] = new LoraMatrix(new Parameter([rank, this.inFeatures], init, "float32", device));
    this.lora_B[name] = new LoraMatrix(new Parameter([this.outFeatures, rank], zeros, "float32", device));
    this.scales.set(name, {
      scale: settings.alpha / (settings.rslora ? Math.sqrt(rank) : rank),
      dropout: settings.dropout,
    });
    this.active = name;
    if (!this.base_layer.materialized) return;
    this.lora_A[name].weight.materialize();
    this.lora_B[name].weight.materialize();
  }

  /** alpha / r (or alpha / sqrt(r)) of one of its adapters. */
  scaleOf(name: string): number {
    return this.scales.get(name)!.scale;
  }

  /** Frees one of its adapters. */
  remove(name: string): void {
    this.lora_A[name]?.dispose();
    this.lora_B[name]?.dispose();
    delete this.lora_A[name];
    delete this.lora_B[name];
    this.scales.delete(name);
    if (this.active === name) this.active = undefined;
  }

  forward(x: Tensor): Tensor {
    const name = this.active;
    if (name === undefined) return this.base_layer.forward(x);
    const { scale, dropout } = this.scales.get(name)!;
    const term = {
      a: this.lora_A[name]!.weight,
      b: this.lora_B[name]!.weight,
      scale,
      dropout: this.training ? dropout : 0,
    };
    const compute = this.base_layer instanceof FrozenLinear ? this.base_layer.compute : undefined;
    return linearLora(x, this.baseWeight(), this.base_layer.bias, term, compute);
  }

  private baseWeight(): Tensor | FrozenWeight {
    return this.base_layer instanceof FrozenLinear ? this.base_layer.quantized : this.base_layer.weight;
  }
}

/** Whether a layer's full name is meant by one of the targets: equal, or its end after a dot (PEFT's rule for lists). */
export function matchesTarget(name: string, targets: readonly string[]): boolean {
  return targets.some((t) => name === t || name.endsWith(`.${t}`));
}

/**
 * Freezes the model and puts adapters beside the targeted linear layers.
 * @param defaults the architecture's targets when the options name none.
 * @param head name of the output layer, which "all-linear" leaves out.
 * @returns the names of the adapted layers.
 * @throws ConfigError when a target matches nothing: it lists the names that exist.
 */
export function wrapLora(model: Module, settings: LoraSettings, defaults: readonly string[], head: string): string[] {
  const target = settings.target ?? defaults;
  const linears = [...model.namedModules()].filter(
    ([, m]) => m instanceof Linear || m instanceof FrozenLinear || m instanceof LoraLinear,
  );
  const bases = linears.filter(([name]) => !name.endsWith(".base_layer"));
  const chosen = bases.filter(([name]) => (target === "all-linear" ? name !== head : matchesTarget(name, target)));
  const missing =
    target === "all-linear" ? [] : target.filter((t) => !bases.some(([name]) => matchesTarget(name, [t])));
  if (missing.length > 0 || chosen.length === 0) {
    const known = [...new Set(bases.map(([name]) => name.split(".").at(-1)))].join(", ");
    throw new ConfigError(
      `addLora: no linear layer is named ${missing.map((m) => `"${m}"`).join(", ") || JSON.stringify(target)}; this model has ${known}, or use "all-linear".`,
    );
  }
  for (const [name, module] of chosen) {
    if (module instanceof LoraLinear && settings.name in module.lora_A) {
      throw new ConfigError(`addLora: "${name}" already has an adapter named "${settings.name}"; give another name.`);
    }
  }
  model.setRequiresGrad(false);
  for (const [name, module] of chosen) {
    const layer = module instanceof LoraLinear ? module : new LoraLinear(module as Linear | FrozenLinear);
    layer.add(settings);
    layer.training = module.training;
    if (layer !== module) model.replace(name, layer);
  }
  return chosen.map(([name]) => name);
}

/** Every adapted layer with its name. */
export function loraLayers(model: Module): [string, LoraLinear][] {
  return [...model.namedModules()].filter((entry): entry is [string, LoraLinear] => entry[1] instanceof LoraLinear);
}

/** Makes one adapter the active and only trained one everywhere; `undefined` switches adapters off. */
export function activate(model: Module, name: string | undefined): void {
  for (const [, layer] of loraLayers(model)) {
    layer.active = name !== undefined && name in layer.lora_A ? name : undefined;
    for (const matrices of [layer.lora_A, layer.lora_B]) {
      for (const [key, matrix] of Object.entries(matrices)) matrix.weight.requiresGrad = key === name;
    }
  }
}
