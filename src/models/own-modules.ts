import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { StateError } from "../errors.js";
import { ConfigFields } from "../hub/config.js";
import { Embedding, Linear } from "../nn/layers.js";
import type { Module } from "../nn/module.js";
import { FrozenLinear } from "../quantization/frozen.js";
import { PackedEmbedding } from "../quantization/packed.js";
import type { CausalLM } from "./causal.js";
import { SequenceClassifier } from "./classifier.js";
import { saveParameters } from "./parameter-file.js";
import { createModel } from "./registry.js";

/** Modules that somebody has put into a model without adapters and that its architecture does not have, by name; the outermost ones. */
export function ownModules(model: CausalLM): [name: string, module: Module][] {
  const plain = createModel(new ConfigFields(model.config.raw, "the model's config"));
  const usual = new Map((model.labels ? new SequenceClassifier(plain, model.labels) : plain).namedModules());
  const found: [string, Module][] = [];
  for (const [name, module] of model.namedModules()) {
    const within = found.some(([outer]) => name.startsWith(`${outer}.`));
    const usualHere = usual.get(name)?.constructor === module.constructor;
    if (!within && !usualHere && !isOfTheLibrary(module)) found.push([name, module]);
  }
  return found;
}

/** Plain layers, and what the library itself puts in their places. */
function isOfTheLibrary(module: Module): boolean {
  return (
    module.constructor === Linear ||
    module.constructor === Embedding ||
    module instanceof FrozenLinear ||
    module instanceof PackedEmbedding
  );
}

/** @throws StateError naming modules that no file of this architecture has a place for. */
export function refuseOwnModules(model: CausalLM, what: string): void {
  const own = ownModules(model);
  if (own.length === 0) return;
  const [name, module] = own[0]!;
  throw new StateError(
    `${what}: ${own.length} of the model's modules are none of its architecture, the first is ${name} (${module.constructor.name}), and its files have no place for them. Save their parameters with saveParameters(model.module, file), or put what they have learned into plain layers and these back with model.module.replace(name, layer).`,
  );
}

/** Writes what was trained of them into a folder, as `parameters.safetensors`. */
export async function saveOwn(model: CausalLM, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  await saveParameters(model, join(folder, "parameters.safetensors"));
}
