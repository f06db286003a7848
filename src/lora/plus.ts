import type { CausalLM } from "../models/causal.js";
import type { Parameter } from "../nn/module.js";
import { LoraEmbedding } from "./embedding.js";

/**
 * LoRA+ (Hayou et al. 2024): factors of the learning rate by parameter, grouped as PEFT's `create_loraplus_optimizer` does: adapters of embeddings
 * have a rate of their own, B and every vector the ratio's, all else the plain one. `undefined` for a ratio of 1.
 */
export function loraPlusRates(
  model: CausalLM,
  options: { lr: number; loraPlusRatio: number; loraPlusEmbeddingRate: number },
): Map<Parameter, number> | undefined {
  const { lr, loraPlusRatio, loraPlusEmbeddingRate } = options;
  if (loraPlusRatio === 1 || lr === 0) return undefined;
  const tables = new Set<Parameter>();
  for (const [, m] of model.namedModules())
    if (m instanceof LoraEmbedding) for (const name of m.adapters) for (const p of m.parts(name)) tables.add(p);
  const rates = new Map<Parameter, number>();
  for (const [name, p] of model.namedParameters()) {
    if (!p.requiresGrad) continue;
    if (tables.has(p)) rates.set(p, loraPlusEmbeddingRate / lr);
    else if (name.includes("lora_B") || p.rank === 1) rates.set(p, loraPlusRatio);
  }
  return rates;
}
