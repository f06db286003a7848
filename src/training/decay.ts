import { LayerNorm, RMSNorm } from "../nn/layers.js";
import type { Module, Parameter } from "../nn/module.js";

// As in transformers' Trainer: names that mean a bias or a norm, in whatever class they stand.
const SPARED = /bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)/i;

/** Which parameters of a model weight decay applies to: all but biases and the weights of norms, by transformers' rule. */
export function decaying(model: Module): (p: Parameter) => boolean {
  const spared = new Set<Parameter>();
  for (const [, m] of model.namedModules())
    if (m instanceof RMSNorm || m instanceof LayerNorm) for (const [, p] of m.namedParameters()) spared.add(p);
  for (const [name, p] of model.namedParameters()) if (SPARED.test(name)) spared.add(p);
  return (p) => !spared.has(p);
}
