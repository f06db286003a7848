import type { FloatDType } from "../tensor/dtype.js";
import { rounded } from "./init.js";
import { Embedding, Linear } from "./layers.js";
import type { Module, Parameter } from "./module.js";

/**
 * Keeps the matrices of a model that has no memory yet in 16 bits: weights of linear layers and embedding tables. Norms and biases stay float32;
 * they are a thousandth of it.
 */
export function setWeightDType(model: Module, dtype: FloatDType): void {
  const made = new Map<Parameter, Parameter>(); // a weight that stands in two places stays one
  for (const [, module] of model.namedModules()) {
    if (!(module instanceof Linear || module instanceof Embedding) || module.weight.dtype === dtype) continue;
    const current = module.weight;
    const weight = made.get(current) ?? current.inDType(dtype, dtype === "float32" ? (init) => init : rounded);
    made.set(current, weight);
    module.weight = weight;
  }
}

/** The dtype of a model's matrices: that of the first linear layer or embedding that is not quantised. */
export function weightDType(model: Module): FloatDType {
  for (const [, module] of model.namedModules()) {
    if (module instanceof Linear || module instanceof Embedding) return module.weight.dtype as FloatDType;
  }
  return "float32";
}
