import { SavedModule } from "../models/saved.js";
import type { Module, Parameter } from "../nn/module.js";
import { biasesOf } from "./biases.js";
import { LoraEmbedding } from "./embedding.js";
import { LoraLinear } from "./linear.js";

/** What stands before every name in PEFT's files. */
export const PREFIX = "base_model.model.";

/** Everything that one adapter consists of, by PEFT's names. */
export function adapterTensors(model: Module, name: string): Map<string, Parameter> {
  const found = new Map<string, Parameter>();
  const set = (key: string, p: Parameter | undefined): void => {
    if (p) found.set(`${PREFIX}${key}`, p);
  };
  for (const [path, m] of model.namedModules()) {
    if (m instanceof LoraLinear) {
      set(`${path}.lora_A.weight`, m.lora_A[name]?.weight);
      set(`${path}.lora_B.weight`, m.lora_B[name]?.weight);
      set(`${path}.lora_B.bias`, m.lora_B[name]?.bias);
    } else if (m instanceof LoraEmbedding) {
      set(`${path}.lora_embedding_A`, m.lora_embedding_A[name]);
      set(`${path}.lora_embedding_B`, m.lora_embedding_B[name]);
    } else if (m instanceof SavedModule) {
      for (const [key, p] of m.modules_to_save[name]?.namedParameters() ?? []) set(`${path}.${key}`, p);
    }
    if (m instanceof LoraLinear || m instanceof LoraEmbedding)
      set(`${path}.lora_magnitude_vector`, m.lora_magnitude_vector[name]?.weight);
  }
  for (const [key, p] of biasesOf(model, name)) set(key, p);
  return found;
}
