import { ConfigError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import { HEAD } from "../models/classifier.js";
import { isSavable, SavedModule } from "../models/saved.js";
import { Embedding, Linear } from "../nn/layers.js";
import type { Module, Parameter } from "../nn/module.js";
import { FrozenLinear } from "../quantization/frozen.js";
import { addBiases, removeBiases, useBiases } from "./biases.js";
import { LoraEmbedding } from "./embedding.js";
import { LoraLinear } from "./linear.js";
import type { LoraSettings } from "./options.js";
import { byPattern, chooseTargets, matchesTarget, nearest, savedNames } from "./targets.js";

/** A layer with adapters beside it. */
export type Adapted = LoraLinear | LoraEmbedding;

/** What stands under these names belongs to an adapted layer or a copy, and is no target itself. */
const INNER = /(^|\.)(base_layer|original_module|modules_to_save|lora_[A-Za-z_]+)(\.|$)/;

/** Layers that can be adapted, by name. */
function candidates(model: Module): Map<string, Linear | FrozenLinear | Embedding | Adapted> {
  const found = new Map<string, Linear | FrozenLinear | Embedding | Adapted>();
  for (const [name, m] of model.namedModules()) {
    if (INNER.test(name)) continue;
    if (m instanceof Linear || m instanceof FrozenLinear || m instanceof Embedding) found.set(name, m);
    else if (m instanceof LoraLinear || m instanceof LoraEmbedding) found.set(name, m);
  }
  return found;
}

/**
 * Freezes the model and puts an adapter beside the layers that its settings mean, and copies of the modules that it trains whole.
 * @param strict every name of a list must exist; an adapter that was saved may name layers that other models have.
 * @param check looks at the names and ranks of the layers before anything is made; it throws.
 * @returns the names of the adapted layers.
 * @throws ConfigError when a target matches nothing: it lists the names that exist and those most like it.
 */
export function wrapLora(
  model: CausalLM,
  settings: LoraSettings,
  strict = true,
  check: (names: readonly string[], ranks: readonly number[]) => void = () => {},
): string[] {
  const { name: adapter, modulesToSave } = settings;
  const target = settings.target ?? model.defaultTargets;
  const wantsHead = (names: readonly string[] | string): boolean => Array.isArray(names) && names.includes("lm_head");
  if (model.headName === "" && (wantsHead(target) || modulesToSave.some((m) => "lm_head".endsWith(m))))
    model.separateHead();
  const layers = candidates(model);
  const linears = [...layers]
    .filter(([, m]) => !(m instanceof Embedding || m instanceof LoraEmbedding))
    .map(([n]) => n);
  const chosen =
    target === "all-linear"
      ? chooseTargets(
          linears,
          settings,
          linears.filter((n) => n !== model.headName),
        )
      : chooseTargets([...layers.keys()], settings, target);
  checkNames(layers, chosen, target, strict);
  for (const name of chosen) {
    const module = layers.get(name)!;
    if ((module instanceof LoraLinear || module instanceof LoraEmbedding) && module.adapters.includes(adapter))
      throw new ConfigError(`addLora: "${name}" already has an adapter named "${adapter}"; give another name.`);
    const table = module instanceof Embedding || module instanceof LoraEmbedding;
    if (table && (settings.loraBias || settings.init === "pissa" || settings.init === "loftq"))
      throw new ConfigError(
        `addLora: ${settings.loraBias ? "loraBias" : `init "${settings.init}"`} is for linear layers, and "${name}" is an embedding; leave it out of target.`,
      );
  }
  const saved = wantedCopies(model, modulesToSave);
  warnOfTied(model, [...chosen, ...saved.map(([name]) => name)]);
  const ranks = byPattern(chosen, settings.rankPattern, settings.rank, "rankPattern");
  const alphas = byPattern(chosen, settings.alphaPattern, settings.alpha, "alphaPattern");
  check(chosen, ranks);
  model.setRequiresGrad(false);
  chosen.forEach((name, i) => {
    const module = layers.get(name)!;
    const layer = adaptable(module);
    layer.add({ ...settings, rank: ranks[i]!, alpha: alphas[i]! });
    for (const [, m] of layer.namedModules()) m.training = module.training;
    if (layer !== module) model.replace(name, layer);
  });
  for (const [name, module] of saved) {
    const holder = module instanceof SavedModule ? module : new SavedModule(module);
    holder.training = module.training;
    holder.add(adapter);
    if (holder !== module) model.replace(name, holder);
  }
  addBiases(model, adapter, settings.bias, chosen);
  return chosen;
}

/** With the head of a classifier among the modules that are trained whole, as PEFT does it for the task SEQ_CLS. */
export function withHead(model: CausalLM, settings: LoraSettings): LoraSettings {
  const { modulesToSave } = settings;
  if (!model.labels || modulesToSave.includes(HEAD)) return settings;
  return { ...settings, modulesToSave: [...modulesToSave, HEAD] };
}

/** What adapter_config.json says of an adapter's targets: what was asked for, or the last parts of the layers' names. */
export function targetNames({ target }: LoraSettings, layers: readonly string[]): readonly string[] | string {
  if (target !== undefined && target !== "all-linear") return target;
  return [...new Set(layers.map((n) => n.split(".").at(-1)!))].sort();
}

function adaptable(module: Linear | FrozenLinear | Embedding | Adapted): Adapted {
  if (module instanceof LoraLinear || module instanceof LoraEmbedding) return module;
  return module instanceof Embedding ? new LoraEmbedding(module) : new LoraLinear(module);
}

function checkNames(
  layers: Map<string, unknown>,
  chosen: string[],
  target: readonly string[] | string,
  strict: boolean,
): void {
  const names = [...layers.keys()];
  const missing =
    typeof target === "string" ? [] : target.filter((t) => !names.some((name) => matchesTarget(name, [t])));
  if (chosen.length > 0 && (missing.length === 0 || !strict)) return;
  const ends = [...new Set(names.map((name) => name.split(".").at(-1)!))];
  const like = missing.flatMap((m) => nearest(m.split(".").at(-1)!, ends));
  const meant = missing.map((m) => `"${m}"`).join(", ") || JSON.stringify(target);
  const reason =
    missing.length === 0 && typeof target !== "string"
      ? `no layer is left of ${meant} after exclude, layers and modulesToSave`
      : `no layer is named ${meant}`;
  throw new ConfigError(
    `addLora: ${reason}${like.length > 0 ? `, the nearest are ${[...new Set(like)].join(", ")}` : ""}; this model has ${ends.join(", ")}, or use "all-linear".`,
  );
}

// As PEFT does: the two are one before and are two afterwards.
function warnOfTied(model: CausalLM, names: readonly string[]): void {
  if (!model.config.tied) return;
  const named = names.filter((name) => name === model.headName || name === model.tableName);
  if (named.length === 1)
    console.warn(
      `addLora: the output layer is tied to the embedding, and ${named[0]} alone is adapted: the other one stays as it is, and merge() unties them.`,
    );
}

/** Modules that `modulesToSave` means; the outermost of those that stand in one another. */
function wantedCopies(
  model: Module,
  wanted: readonly string[],
): [string, Parameters<typeof model.replace>[1] & (SavedModule | SavedModule["original_module"])][] {
  if (wanted.length === 0) return [];
  const modules = new Map([...model.namedModules()].filter(([name]) => name !== "" && !INNER.test(name)));
  const found = savedNames([...modules.keys()], wanted);
  const missing = wanted.filter((w) => savedNames(found, [w]).length === 0);
  const ends = [...new Set([...modules.keys()].map((name) => name.split(".").at(-1)!).filter((n) => !/^\d+$/.test(n)))];
  if (missing.length > 0)
    throw new ConfigError(
      `addLora: modulesToSave names ${missing.map((m) => `"${m}"`).join(", ")}, which this model has not; it has ${ends.join(", ")}.`,
    );
  return found.map((name) => {
    const module = modules.get(name)!;
    if (!(module instanceof SavedModule) && !isSavable(module))
      throw new ConfigError(
        `addLora: modulesToSave: "${name}" is no linear layer, embedding or norm without an adapter; name the layers below it, or give it to target alone.`,
      );
    return [name, module];
  });
}

/** Every adapted linear layer with its name. */
export function loraLayers(model: Module): [string, LoraLinear][] {
  return [...model.namedModules()].filter((entry): entry is [string, LoraLinear] => entry[1] instanceof LoraLinear);
}

/** Every adapted layer, embeddings too, with its name. */
export function adaptedLayers(model: Module): [string, Adapted][] {
  return [...model.namedModules()].filter(
    (entry): entry is [string, Adapted] => entry[1] instanceof LoraLinear || entry[1] instanceof LoraEmbedding,
  );
}

/** Every module with copies that are trained whole. */
export function savedModules(model: Module): [string, SavedModule][] {
  return [...model.namedModules()].filter((entry): entry is [string, SavedModule] => entry[1] instanceof SavedModule);
}

/** Parameters of all adapters, for counting their memory. */
export function adapterParameters(model: Module): Parameter[] {
  const all = new Set<Parameter>();
  for (const [, layer] of adaptedLayers(model))
    for (const name of layer.adapters) for (const p of layer.parts(name)) all.add(p);
  for (const [, module] of savedModules(model))
    for (const copy of Object.values(module.modules_to_save)) for (const [, p] of copy.namedParameters()) all.add(p);
  return [...all];
}

/** Makes one adapter the active and only trained one everywhere; `undefined` switches adapters off. */
export function activate(model: Module, name: string | undefined): void {
  for (const [, layer] of adaptedLayers(model)) {
    layer.active = name !== undefined && layer.adapters.includes(name) ? name : undefined;
    for (const adapter of layer.adapters) for (const p of layer.parts(adapter)) p.requiresGrad = adapter === name;
  }
  for (const [, module] of savedModules(model)) {
    module.active = name !== undefined && name in module.modules_to_save ? name : undefined;
    for (const [adapter, copy] of Object.entries(module.modules_to_save)) copy.setRequiresGrad(adapter === name);
  }
  useBiases(model, name);
}

/**
 * Takes one adapter out; layers without any adapter are what they were before, but for those that LoftQ has quantised.
 * @throws StateError for one that began by PiSSA over weights that were quantised afterwards.
 */
export function removeLora(model: Module, name: string): void {
  for (const [, layer] of loraLayers(model)) layer.restoreBase(name);
  removeBiases(model, name);
  for (const [path, layer] of adaptedLayers(model)) {
    if (layer.adapters.includes(name)) layer.remove(name);
    if (layer.adapters.length === 0) model.replace(path, layer.base_layer);
  }
  for (const [path, module] of savedModules(model)) {
    module.remove(name);
    if (Object.keys(module.modules_to_save).length === 0) model.replace(path, module.original_module);
  }
}
