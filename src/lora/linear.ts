import { StateError } from "../errors.js";
import { kaimingUniform, normalInit, zeros } from "../nn/init.js";
import { type Linear, LinearLike } from "../nn/layers.js";
import { Module, Parameter } from "../nn/module.js";
import { eachRoute, type RowRoute, rowRoutes } from "../nn/routes.js";
import { FrozenLinear } from "../quantization/frozen.js";
import * as calls from "../tensor/calls.js";
import type { Device } from "../tensor/device.js";
import { dryMemory } from "../tensor/native.js";
import { type FrozenWeight, linearFrozen } from "../tensor/ops/frozen.js";
import { inDType, slice } from "../tensor/ops/layout.js";
import { type LoraTerm, linearLora } from "../tensor/ops/lora.js";
import { type LoraPart, linearsLora } from "../tensor/ops/lora-shared.js";
import { gemm, linear } from "../tensor/ops/matmul.js";
import { dropout } from "../tensor/ops/random.js";
import { isRecording, noGrad } from "../tensor/record.js";
import { outsideScope, scope } from "../tensor/scope.js";
import { activationLike, Tensor, tensor } from "../tensor/tensor.js";
import { adaptedNorms, copyInto, rowSquares } from "./norms.js";
import type { LoraSettings } from "./options.js";

/** The A, B or magnitudes of one adapter: a bare weight under PEFT's name `lora_A.<adapter>.weight`. */
export class LoraMatrix extends Module {
  weight: Parameter;
  /** B's own bias (out), where it has one. */
  bias: Parameter | undefined;

  constructor(weight: Parameter, bias?: Parameter) {
    super();
    this.weight = weight;
    this.bias = bias;
  }
}

/** What a layer takes of an adapter's settings, its own rank and alpha among them. */
export type LayerSettings = Pick<
  LoraSettings,
  "rank" | "alpha" | "dropout" | "rslora" | "dora" | "loraBias" | "init" | "name"
>;

/** alpha / r, or alpha / sqrt(r). */
export function scaleOf({ alpha, rank, rslora }: LayerSettings): number {
  return alpha / (rslora ? Math.sqrt(rank) : rank);
}

/** Rows from which layers share their input's products where no gradient is needed. */
const SHARED_ROWS = 64;

interface Kind {
  scale: number;
  dropout: number;
  settings: LayerSettings;
}

/** A linear layer with low-rank updates beside it; named as PEFT names its parts. */
export class LoraLinear extends LinearLike {
  base_layer: Linear | FrozenLinear;
  lora_A: Record<string, LoraMatrix> = {};
  lora_B: Record<string, LoraMatrix> = {};
  /** DoRA's lengths of the rows of the adapted weight (out). */
  lora_magnitude_vector: Record<string, LoraMatrix> = {};
  readonly #kinds = new Map<string, Kind>();
  #squares: Tensor | undefined; // of the base weight's rows, for DoRA
  /** Values of A and B that the base weight was reduced by (PiSSA), by adapter. */
  readonly initial: Map<string, { a: Float32Array; b: Float32Array }> = new Map();
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

  /** Names of its adapters. */
  get adapters(): string[] {
    return [...this.#kinds.keys()];
  }

  /** Adds an adapter and makes it the active one. B starts at zero, so the layer's output does not change. */
  add(settings: LayerSettings): void {
    const { rank, name } = settings;
    const { device } = this.base_layer;
    const init = settings.init === "gaussian" ? normalInit(1 / rank) : kaimingUniform(this.inFeatures);
    const bias = settings.loraBias ? new Parameter([this.outFeatures], zeros, "float32", device) : undefined;
    this.lora_A[name] = new LoraMatrix(new Parameter([rank, this.inFeatures], init, "float32", device));
    this.lora_B[name] = new LoraMatrix(new Parameter([this.outFeatures, rank], zeros, "float32", device), bias);
    this.#kinds.set(name, { scale: scaleOf(settings), dropout: settings.dropout, settings });
    if (settings.dora) {
      const lengths = new Parameter([this.outFeatures], (p) => this.#measure(name, p), "float32", device);
      this.lora_magnitude_vector[name] = new LoraMatrix(lengths);
    }
    this.active = name;
    if (!this.base_layer.materialized) return;
    for (const part of this.parts(name)) part.materialize();
  }

  /** Parameters of one of its adapters. */
  parts(name: string): Parameter[] {
    return [this.lora_A[name], this.lora_B[name], this.lora_magnitude_vector[name]].flatMap((m) =>
      m ? [...m.namedParameters()].map(([, p]) => p) : [],
    );
  }

  /** alpha / r (or alpha / sqrt(r)) of one of its adapters. */
  scaleOf(name: string): number {
    return this.#kinds.get(name)!.scale;
  }

  /** What one of its adapters was made with. */
  settingsOf(name: string): LayerSettings {
    return this.#kinds.get(name)!.settings;
  }

  /** Frees one of its adapters. */
  remove(name: string): void {
    for (const holder of [this.lora_A, this.lora_B, this.lora_magnitude_vector]) {
      holder[name]?.dispose();
      delete holder[name];
    }
    this.#kinds.delete(name);
    this.initial.delete(name);
    if (this.active === name) this.active = undefined;
    if (this.#kinds.size === 0) this.baseChanged();
  }

  /** Gives the base weight back what PiSSA took out of it for an adapter. @throws StateError when it was quantised since. */
  restoreBase(name: string): void {
    const initial = this.initial.get(name);
    if (!initial) return;
    if (this.base_layer instanceof FrozenLinear)
      throw new StateError(
        `The adapter "${name}" took a part of the weights (PiSSA) that were quantised afterwards, and they cannot take it back: load the model again.`,
      );
    const { weight } = this.base_layer;
    const { scale, settings } = this.#kinds.get(name)!;
    scope(() =>
      noGrad(() => {
        const { device } = weight;
        const a = tensor(initial.a, { shape: [settings.rank, this.inFeatures], device });
        const b = tensor(initial.b, { shape: [this.outFeatures, settings.rank], device });
        const full = weight.to("float32"); // itself where it is float32
        gemm(b, a, full, this.outFeatures, this.inFeatures, settings.rank, { alpha: scale, beta: 1 });
        if (full !== weight) weight.adopt(outsideScope(() => full.to(weight.dtype)));
      }),
    );
    this.initial.delete(name);
    this.baseChanged();
  }

  /** The base weight has other values now. */
  baseChanged(): void {
    this.#squares?.dispose();
    this.#squares = undefined;
  }

  /** Lengths of the rows of W + s · B A (out), by a product with A: a quantised weight is restored only once, for its own rows' lengths. */
  norms(name: string): Tensor {
    const { scale } = this.#kinds.get(name)!;
    return adaptedNorms(
      this.#baseSquares(),
      this.baseWeight(),
      this.lora_A[name]!.weight,
      this.lora_B[name]!.weight,
      scale,
    );
  }

  /** The magnitudes begin as the lengths that there are. */
  remeasure(name: string): void {
    const lengths = this.lora_magnitude_vector[name]?.weight;
    if (lengths) this.#measure(name, lengths);
  }

  #measure(name: string, into: Tensor): void {
    copyInto(into, () => this.norms(name));
  }

  #baseSquares(): Tensor {
    if (dryMemory()) return rowSquares(this.baseWeight());
    this.#squares ??= outsideScope(() => rowSquares(this.baseWeight()));
    return this.#squares;
  }

  forward(x: Tensor): Tensor {
    const routes = rowRoutes();
    return routes ? this.#routed(x, routes) : this.#through(this.active, x);
  }

  override together(layers: readonly LinearLike[], x: Tensor): readonly (Tensor | undefined)[] | undefined {
    // A few tokens that are decoded read the matrices as they stand: putting them together would cost more.
    if (rowRoutes() || (!isRecording() && x.size / this.inFeatures < SHARED_ROWS)) return undefined;
    const parts = layers.map((layer) => (layer instanceof LoraLinear ? layer.#plain() : undefined));
    const shared = parts.filter((part) => part !== undefined);
    if (shared.length < 2 || !parts[layers.indexOf(this)]) return undefined;
    const results = linearsLora(x, shared).values();
    return parts.map((part) => part && results.next().value);
  }

  /** The layer as a part of `linearsLora`, when its adapter is an update without dropout and nothing else, and nobody has put a `forward` of his own here. */
  #plain(): LoraPart | undefined {
    if (this.forward !== LoraLinear.prototype.forward) return undefined;
    const name = this.active;
    const kind = name === undefined ? undefined : this.#kinds.get(name);
    if (name === undefined || !kind || (this.training && kind.dropout > 0)) return undefined;
    if (this.lora_magnitude_vector[name] || this.lora_B[name]!.bias) return undefined;
    const lora = { a: this.lora_A[name]!.weight, b: this.lora_B[name]!.weight, scale: kind.scale };
    return { weight: this.baseWeight(), bias: this.base_layer.bias, lora, compute: this.#compute() };
  }

  /** Each row through its own adapter: the base product of all rows at once, unless one of the adapters has magnitudes. */
  #routed(x: Tensor, routes: readonly RowRoute[]): Tensor {
    const has = ({ adapter }: RowRoute): boolean => adapter !== undefined && this.#kinds.has(adapter);
    const single = routes.length === 1;
    if (single || routes.some(({ adapter }) => adapter !== undefined && this.lora_magnitude_vector[adapter]))
      return eachRoute(routes, [x], (name, [x]) => [
        this.#through(this.#kinds.has(name ?? "") ? name : undefined, x!),
      ])[0]!;
    const y = this.base_layer.forward(x);
    for (const route of routes.filter(has)) {
      const name = route.adapter!;
      const [a, { weight: b, bias }] = [this.lora_A[name]!.weight, this.lora_B[name]!];
      const { scale } = this.#kinds.get(name)!;
      const rows = route.end - route.begin;
      const rank = a.shape[0]!;
      // The sums are those of linearLora, into the rows of y themselves.
      const mine = slice(y, 0, route.begin, route.end);
      const reduced = activationLike(x, [rows, rank]);
      gemm(slice(x, 0, route.begin, route.end), a, reduced, rows, rank, this.inFeatures, { transB: true });
      gemm(reduced, b, mine, rows, this.outFeatures, rank, { transB: true, alpha: scale, beta: 1 });
      if (!bias) continue;
      const shifted = inDType(mine.add(bias.mul(scale)), mine.dtype);
      calls.copy(shifted.handle, mine.handle, mine.size);
    }
    return y;
  }

  #through(name: string | undefined, x: Tensor): Tensor {
    if (name === undefined) return this.base_layer.forward(x);
    const { scale, dropout } = this.#kinds.get(name)!;
    const p = this.training ? dropout : 0;
    const term = { a: this.lora_A[name]!.weight, b: this.lora_B[name]!.weight, scale, dropout: p };
    const compute = this.#compute();
    if (this.lora_magnitude_vector[name]) return this.#directed(name, x, term, compute);
    const y = linearLora(x, this.baseWeight(), this.base_layer.bias, term, compute);
    const bias = this.lora_B[name]?.bias;
    return bias ? inDType(y.add(bias.mul(scale)), y.dtype) : y;
  }

  #compute(): FrozenLinear["compute"] | undefined {
    return this.base_layer instanceof FrozenLinear ? this.base_layer.compute : undefined;
  }

  /**
   * DoRA: y = m/n · (x Wᵀ + s x Aᵀ Bᵀ) + bias with n = ‖W + s B A‖ taken as a constant (Liu et al. 2024, section 4.3). As in PEFT a dropped input
   * goes through both products, and what was dropped through the base layer as it is.
   */
  #directed(name: string, x: Tensor, term: LoraTerm, compute: FrozenLinear["compute"] | undefined): Tensor {
    const gain = this.lora_magnitude_vector[name]!.weight.div(this.norms(name)); // (out)
    const { bias } = this.base_layer;
    const w = this.baseWeight();
    const kept = term.dropout > 0 ? dropout(x, term.dropout) : x;
    const z = linearLora(kept, w, undefined, { ...term, dropout: 0 }, compute);
    const y = z.mul(gain);
    if (kept === x) return inDType(bias ? y.add(bias) : y, z.dtype);
    const rest = x.sub(kept);
    const plain = w instanceof Tensor ? linear(rest, w, bias) : linearFrozen(rest, w, bias, compute);
    return inDType(y.add(plain), z.dtype);
  }

  /** The base layer's weight (out, in). */
  baseWeight(): Tensor | FrozenWeight {
    return this.base_layer instanceof FrozenLinear ? this.base_layer.quantized : this.base_layer.weight;
  }

  /** The base layer when its weight is dense. @throws StateError for a quantised one. */
  denseBase(what: string): Linear {
    if (this.base_layer instanceof FrozenLinear)
      throw new StateError(
        `${what} needs the weight as it was before it was quantised: say it in the plan, loadModel(…).quantize(…).addLora(…), which quantises afterwards.`,
      );
    return this.base_layer;
  }

  protected override relocate(device: Device): void {
    super.relocate(device);
    this.baseChanged();
  }

  protected override release(): void {
    super.release();
    this.baseChanged();
  }
}
