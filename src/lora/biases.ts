import { LayerNorm, Linear } from "../nn/layers.js";
import type { Module, Parameter } from "../nn/module.js";
import { FrozenLinear } from "../quantization/frozen.js";
import { clone } from "../tensor/ops/layout.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";

type Holder = Linear | FrozenLinear | LayerNorm;

/** The biases of one adapter: copies that take the originals' places while it is the active one. */
interface Bias {
  path: string;
  holder: Holder;
  original: Parameter;
  own: Parameter;
}

const all = new WeakMap<Module, Map<string, Bias[]>>();

/** Copies the biases that an adapter trains: of all layers, or of its own (`layers`). */
export function addBiases(
  model: Module,
  adapter: string,
  which: "none" | "all" | "lora_only",
  layers: readonly string[],
): void {
  if (which === "none") return;
  useBiases(model, undefined); // copies are made of the originals
  const found: Bias[] = [];
  for (const [path, holder] of model.namedModules()) {
    if (!(holder instanceof Linear || holder instanceof FrozenLinear || holder instanceof LayerNorm)) continue;
    if (path.includes("modules_to_save.") || !holder.bias) continue;
    if (which === "lora_only" && !layers.includes(path.replace(/\.base_layer$/, ""))) continue;
    const original = holder.bias;
    const own = original.inDType("float32", (init) => init);
    if (original.materialized) own.adopt(outsideScope(() => noGrad(() => clone(original))));
    found.push({ path, holder, original, own });
  }
  const sets = all.get(model) ?? new Map<string, Bias[]>();
  all.set(model, sets.set(adapter, found));
}

/** Biases of an adapter by PEFT's names. */
export function biasesOf(model: Module, adapter: string): [string, Parameter][] {
  return (all.get(model)?.get(adapter) ?? []).map(({ path, own }) => [`${path}.bias`, own]);
}

/** Whether an adapter has biases of its own. */
export function hasBiases(model: Module, adapter: string): boolean {
  return biasesOf(model, adapter).length > 0;
}

/** Puts an adapter's biases in place; `undefined`: the originals. */
export function useBiases(model: Module, adapter: string | undefined): void {
  const sets = all.get(model);
  if (!sets) return;
  for (const set of sets.values())
    for (const { holder, original, own } of set) {
      holder.bias = original;
      original.requiresGrad = own.requiresGrad = false;
    }
  for (const { holder, own } of (adapter === undefined ? undefined : sets.get(adapter)) ?? []) {
    holder.bias = own;
    own.requiresGrad = true;
  }
}

/** Frees an adapter's biases; `keep`: they become the model's own, and the originals are freed. */
export function removeBiases(model: Module, adapter: string, keep = false): void {
  const sets = all.get(model);
  const set = sets?.get(adapter);
  if (!set) return;
  useBiases(model, undefined);
  for (const { holder, original, own } of set) {
    if (keep) holder.bias = own;
    (keep ? original : own).dispose();
  }
  sets!.delete(adapter);
}

/** Frees all copies. */
export function disposeBiases(model: Module): void {
  for (const adapter of [...(all.get(model)?.keys() ?? [])]) removeBiases(model, adapter);
}
