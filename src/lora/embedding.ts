import { normalInit, zeros } from "../nn/init.js";
import { type Embedding, EmbeddingLike } from "../nn/layers.js";
import { Parameter } from "../nn/module.js";
import { eachRoute, rowRoutes } from "../nn/routes.js";
import type { Device } from "../tensor/device.js";
import { dryMemory } from "../tensor/native.js";
import { inDType, permute } from "../tensor/ops/layout.js";
import { embedding } from "../tensor/ops/loss.js";
import { linear } from "../tensor/ops/matmul.js";
import { outsideScope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { type LayerSettings, LoraMatrix, scaleOf } from "./linear.js";
import { adaptedColumnNorms, columnSquares, copyInto } from "./norms.js";

/** A table with low-rank updates beside it, W + s · (B A)ᵀ with A (r, vocab) and B (dim, r); named as PEFT names its parts. An output layer that is tied to the table does not see them, as in PEFT. */
export class LoraEmbedding extends EmbeddingLike {
  base_layer: Embedding;
  lora_embedding_A: Record<string, Parameter> = {};
  lora_embedding_B: Record<string, Parameter> = {};
  /** DoRA's lengths of the columns of the adapted table (dim). */
  lora_magnitude_vector: Record<string, LoraMatrix> = {};
  readonly #kinds = new Map<string, { scale: number; settings: LayerSettings }>();
  #squares: Tensor | undefined;
  /** The adapter in use; `undefined`: the table alone. */
  active: string | undefined;

  constructor(base: Embedding) {
    super();
    this.base_layer = base;
    base.setRequiresGrad(false);
  }

  /** Names of its adapters. */
  get adapters(): string[] {
    return [...this.#kinds.keys()];
  }

  /** Adds an adapter and makes it the active one. A starts at zero, so the rows do not change. */
  add(settings: LayerSettings): void {
    const { rank, name } = settings;
    const { weight } = this.base_layer;
    const [vocab, dim] = weight.shape as [number, number];
    this.lora_embedding_A[name] = new Parameter([rank, vocab], zeros, "float32", weight.device);
    this.lora_embedding_B[name] = new Parameter([dim, rank], normalInit(1), "float32", weight.device);
    this.#kinds.set(name, { scale: scaleOf(settings), settings });
    if (settings.dora) {
      const lengths = new Parameter([dim], (p) => copyInto(p, () => this.norms(name)), "float32", weight.device);
      this.lora_magnitude_vector[name] = new LoraMatrix(lengths);
    }
    this.active = name;
    if (weight.materialized) for (const part of this.parts(name)) part.materialize();
  }

  /** Parameters of one of its adapters. */
  parts(name: string): Parameter[] {
    const all = [this.lora_embedding_A[name], this.lora_embedding_B[name], this.lora_magnitude_vector[name]?.weight];
    return all.filter((p) => p !== undefined);
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
    for (const part of this.parts(name)) part.dispose();
    delete this.lora_embedding_A[name];
    delete this.lora_embedding_B[name];
    delete this.lora_magnitude_vector[name];
    this.#kinds.delete(name);
    if (this.active === name) this.active = undefined;
    if (this.#kinds.size === 0) this.baseChanged();
  }

  /** The table has other values now. */
  baseChanged(): void {
    this.#squares?.dispose();
    this.#squares = undefined;
  }

  /** Lengths of the columns of the adapted table (dim). */
  norms(name: string): Tensor {
    const { weight } = this.base_layer;
    if (!dryMemory()) this.#squares ??= outsideScope(() => columnSquares(weight));
    const squares = this.#squares ?? columnSquares(weight);
    const [a, b] = [this.lora_embedding_A[name]!, this.lora_embedding_B[name]!];
    return adaptedColumnNorms(squares, weight, a, b, this.scaleOf(name));
  }

  forward(ids: Tensor): Tensor {
    const routes = rowRoutes();
    if (!routes) return this.#through(this.active, ids);
    return eachRoute(routes, [ids], (name, [ids]) => [this.#through(name, ids!)])[0]!;
  }

  #through(name: string | undefined, ids: Tensor): Tensor {
    const rows = this.base_layer.forward(ids); // (…, dim)
    if (name === undefined || !this.#kinds.has(name)) return rows;
    const a = permute(this.lora_embedding_A[name]!, [1, 0]); // (vocab, r)
    const update = linear(embedding(a, ids), this.lora_embedding_B[name]!).mul(this.scaleOf(name));
    const sum = rows.add(update);
    const lengths = this.lora_magnitude_vector[name]?.weight;
    return inDType(lengths ? sum.mul(lengths.div(this.norms(name))) : sum, rows.dtype);
  }

  table(): Tensor {
    return this.base_layer.table();
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
