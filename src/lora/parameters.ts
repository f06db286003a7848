import { StateError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import type { Parameter } from "../nn/module.js";
import { FrozenLinear } from "../quantization/frozen.js";
import { PackedEmbedding } from "../quantization/packed.js";
import { DTYPE_BYTES } from "../tensor/dtype.js";
import { adapterParameters } from "./wrap.js";

/** One parameter of a model; quantised and packed weights come under their layer's name with dtype "nf4", "fp4", "int8", "fp8", "q4_1" … */
export interface ParameterInfo {
  name: string;
  shape: readonly number[];
  dtype: string;
  trainable: boolean;
  /** Bytes it takes (or would take once it has memory). */
  bytes: number;
}

/** Every parameter of a model in the order of its modules. */
export function listParameters(model: CausalLM): ParameterInfo[] {
  const out: ParameterInfo[] = [];
  const seen = new Set<Parameter>();
  for (const [name, module] of model.namedModules()) {
    if (module instanceof FrozenLinear || module instanceof PackedEmbedding) {
      out.push({
        name: `${name}.weight`,
        shape: module instanceof FrozenLinear ? [module.outFeatures, module.inFeatures] : module.shape,
        dtype: module.format,
        trainable: false,
        bytes: module.ownBytes(),
      });
    }
    for (const [key, child] of module.children()) {
      if (!("dtype" in child) || seen.has(child)) continue;
      seen.add(child);
      const full = name === "" ? key : `${name}.${key}`;
      out.push({
        name: full,
        shape: child.shape,
        dtype: child.dtype,
        trainable: child.requiresGrad,
        bytes: child.size * DTYPE_BYTES[child.dtype],
      });
    }
  }
  return out;
}

/** Bytes of the base model's weights and of all adapters. */
export function weightBytes(model: CausalLM): { weights: number; adapters: number } {
  let adapters = 0;
  for (const p of adapterParameters(model)) adapters += p.bytes;
  const all = listParameters(model).reduce((n, p) => n + p.bytes, 0);
  return { weights: all - adapters, adapters };
}

/** @throws StateError when nothing of a model can be trained, or something that cannot be as it is. */
export function requireTrainable(model: CausalLM): void {
  const trained = listParameters(model).filter((p) => p.trainable);
  if (trained.length === 0)
    throw new StateError(
      "train: nothing is trainable (quantised weights are frozen); call addLora({ rank: 16 }) first.",
    );
  const half = trained.find((p) => p.dtype !== "float32");
  if (half)
    throw new StateError(
      `train: ${half.name} is ${half.dtype}, and 16-bit weights are not trained themselves: call addLora({ rank: 16 }) first, or load with { dtype: "float32" }.`,
    );
}
