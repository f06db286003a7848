import { ConfigError, StateError } from "../errors.js";
import type { SafetensorsFile } from "../hub/safetensors.js";
import type { CausalLM } from "../models/causal.js";
import { SavedModule } from "../models/saved.js";
import { Embedding, Linear } from "../nn/layers.js";
import { type Module, Parameter } from "../nn/module.js";
import { concat } from "../tensor/ops/layout.js";
import { broadcastTo } from "../tensor/ops/reduce.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope, scope } from "../tensor/scope.js";
import { LoraEmbedding } from "./embedding.js";
import { PREFIX } from "./files.js";
import { LoraLinear } from "./linear.js";

/** Where the table of the inputs and the output layer stand. */
function places(model: CausalLM): [string, Module][] {
  const found: [string, Module][] = [];
  for (const [path, m] of model.namedModules()) {
    const inner = /(^|\.)(base_layer|original_module|modules_to_save)(\.|$)/.test(path);
    const table =
      m instanceof Embedding ||
      m instanceof LoraEmbedding ||
      (m instanceof SavedModule && m.original_module instanceof Embedding);
    const head = path !== "" && path === model.headName && !model.labels;
    if (!inner && ((table && path === model.tableName) || head)) found.push([path, m]);
  }
  return found;
}

/** The base model's own tables by the names that PEFT gives them beside adapters. A tied output layer comes under its name too. */
export function baseTables(model: CausalLM): Map<string, Parameter> {
  const found = new Map<string, Parameter>();
  for (const [path, m] of places(model)) {
    const wrapped = m instanceof LoraEmbedding || m instanceof LoraLinear;
    const base = wrapped ? m.base_layer : m;
    if (base instanceof Embedding || base instanceof Linear)
      found.set(wrapped ? `${path}.base_layer.weight` : `${path}.weight`, base.weight);
  }
  const [first] = found.values();
  if (model.headName === "" && first) found.set("lm_head.weight", first);
  return found;
}

/** How many rows the tables of an adapter's file have, where it holds any. */
export function tableRows(model: CausalLM, file: SafetensorsFile): number | undefined {
  for (const [path] of [...places(model), ["lm_head"] as const])
    for (const key of [`${PREFIX}${path}.base_layer.weight`, `${PREFIX}${path}.weight`])
      if (file.has(key)) return file.entry(key).shape[0];
  return undefined;
}

/**
 * Gives the tables of a model other numbers of rows; new ones are the mean of the old, as transformers begins them.
 * @returns what makes it final (`keep`, frees the old tables) or takes it back (`undo`). Without a call both tables stay.
 * @throws StateError when an adapter stands on a table.
 */
export function resizeTables(model: CausalLM, rows: number): { keep(): void; undo(): void } {
  const vocab = model.config.vocabSize;
  if (!Number.isInteger(rows) || rows < vocab || rows > 2 ** 24)
    throw new ConfigError(`The tables can have ${vocab} to ${2 ** 24} rows, received ${rows}.`);
  const made = new Map<Parameter, Parameter>();
  const set: (() => void)[] = [];
  for (const [path, m] of places(model)) {
    if (!(m instanceof Embedding || m instanceof Linear))
      throw new StateError(
        `Tokens cannot be added while an adapter stands on "${path}", or when it is quantised: add them first.`,
      );
    const old = m.weight;
    const weight = made.get(old) ?? grown(old, rows);
    made.set(old, weight);
    m.weight = weight;
    set.push(() => {
      m.weight = old;
    });
  }
  if (made.size === 0)
    throw new StateError("Tokens cannot be added to a packed table; load the model with another dtype.");
  const { raw } = model.config;
  Object.assign(model.config, { vocabSize: rows, raw: { ...raw, [model.vocabField]: rows } });
  return {
    keep: () => {
      for (const old of made.keys()) old.dispose();
    },
    undo: () => {
      for (const back of set) back();
      for (const weight of made.values()) weight.dispose();
      Object.assign(model.config, { vocabSize: vocab, raw });
    },
  };
}

function grown(old: Parameter, rows: number): Parameter {
  const [vocab, dim] = old.shape as [number, number];
  const made = new Parameter([rows, dim], undefined, old.dtype, old.device);
  made.requiresGrad = old.requiresGrad;
  if (!old.materialized) return made;
  const table = outsideScope(() =>
    scope(() =>
      noGrad(() => {
        const mean = old.to("float32").mean(0);
        const added = rows - vocab;
        return added === 0 ? old.clone() : concat([old, broadcastTo(mean, [added, dim]).to(old.dtype)]);
      }),
    ),
  );
  return made.adopt(table);
}
