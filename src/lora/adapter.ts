import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, ConfigError, StateError } from "../errors.js";
import { readFields } from "../hub/config.js";
import type { JsonObject } from "../hub/json.js";
import { convertPickle, PICKLE_REASON, PICKLED, SafetensorsFile } from "../hub/safetensors.js";
import { replaceFile, type TensorToWrite, writeSafetensors } from "../hub/safetensors-write.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalLM } from "../models/causal.js";
import type { Parameter } from "../nn/module.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { shapeText } from "../tensor/shape.js";
import { tensor } from "../tensor/tensor.js";
import { type AdapterFile, adapterFile } from "./adapter-file.js";
import { adapterConfig, settingsFromConfig } from "./config.js";
import { adapterTensors, PREFIX } from "./files.js";
import { headSettings, saveLabels } from "./head.js";
import { initialise } from "./initialise.js";
import type { LoraSettings } from "./options.js";
import { baseTables, resizeTables, tableRows } from "./tables.js";
import { loraLayers, removeLora, wrapLora } from "./wrap.js";

/** What an adapter was made with, and the fields of its config file that tunebook does not use but keeps. */
export interface AdapterInfo {
  settings: LoraSettings;
  /** Names (or ends of names) of the adapted layers, or a pattern for them. */
  targets: readonly string[] | string;
  base: string;
  /** adapter_config.json as it was read. */
  raw: JsonObject | undefined;
  /** Whether the tables have other rows than the base model has: they are saved with it. */
  resized?: boolean;
  /** What it was trained with, where the model's own tokenizer differs. */
  tokenizer?: Tokenizer | undefined;
}

/** adapter_config.json of an adapter: as it was read, or as it is written for one that was made here. */
export function savedConfig(
  model: CausalLM,
  { settings, ...info }: AdapterInfo,
  doubled: boolean = settings.init === "pissa",
): Record<string, unknown> {
  return info.raw ?? adapterConfig({ settings, ...info }, doubled, model.labels ? "SEQ_CLS" : "CAUSAL_LM");
}

/**
 * Saves one adapter as PEFT lays it out: adapter_config.json and adapter_model.safetensors. One that began by PiSSA is written as a plain adapter
 * of twice the rank beside the original weights, W + s (B A - B₀ A₀), which is what PEFT's `path_initial_model_for_weight_conversion` makes of it.
 */
export async function saveAdapter(model: CausalLM, info: AdapterInfo, folder: string): Promise<void> {
  const { name, init, loftq, dora } = info.settings;
  const parts = adapterTensors(model, name);
  if (parts.size === 0)
    throw new ConfigError(`save: the model has no adapter named "${name}"; add one with addLora first.`);
  const made = info.raw === undefined;
  if (made && init === "loftq" && loftq.iterations > 1)
    throw new StateError(
      `save: LoftQ of ${loftq.iterations} iterations has changed the quantised weights, and the adapter alone does not hold them: merge() and export() the model, or use one iteration.`,
    );
  if (made && init === "pissa" && dora)
    throw new StateError(
      "save: DoRA that began by PiSSA has no plain form beside the original weights: merge() and export() the model.",
    );
  const initial = new Map(
    loraLayers(model).flatMap(([path, layer]) => {
      const values = made && init === "pissa" ? layer.initial.get(name) : undefined;
      return values ? [[`${PREFIX}${path}`, values] as const] : [];
    }),
  );
  const tensors: TensorToWrite[] = [...parts].map(([key, p]) => written(key, p, initial));
  if (info.resized) {
    const seen = new Set<Parameter>();
    for (const [key, p] of baseTables(model)) {
      if (!seen.has(p) && !parts.has(`${PREFIX}${key}`)) tensors.push(written(`${PREFIX}${key}`, p, initial));
      seen.add(p);
    }
  }
  await mkdir(folder, { recursive: true });
  await writeSafetensors(join(folder, "adapter_model.safetensors"), tensors, { format: "pt" });
  const text = `${JSON.stringify(savedConfig(model, info, initial.size > 0), null, 2)}\n`;
  await replaceFile(join(folder, "adapter_config.json"), async (file) => void (await file.writeFile(text)));
  await saveLabels(model, folder);
}

type Initial = ReadonlyMap<string, { a: Float32Array; b: Float32Array }>;

/** One tensor of the file; A and B of a layer with initial values stand side by side with them. */
function written(key: string, p: Parameter, initial: Initial): TensorToWrite {
  const match = /^(.*)\.lora_([AB])\.weight$/.exec(key);
  const first = match ? initial.get(match[1]!) : undefined;
  if (!match || !first)
    return { name: key, dtype: "F32", shape: p.shape, data: async () => bytes(await finite(p, key)) };
  const [rows, columns] = p.shape as [number, number];
  if (match[2] === "A") {
    const data = async (): Promise<Uint8Array> => bytes(Float32Array.from([...(await finite(p, key)), ...first.a]));
    return { name: key, dtype: "F32", shape: [2 * rows, columns], data };
  }
  const data = async (): Promise<Uint8Array> => {
    const now = await finite(p, key);
    const both = new Float32Array(2 * p.size);
    for (let i = 0; i < rows; i++)
      for (let r = 0; r < columns; r++) {
        both[2 * i * columns + r] = now[i * columns + r]!;
        both[2 * i * columns + columns + r] = -first.b[i * columns + r]!;
      }
    return bytes(both);
  };
  return { name: key, dtype: "F32", shape: [rows, 2 * columns], data };
}

async function finite(p: Parameter, key: string): Promise<Float32Array> {
  const data = await p.data();
  for (const v of data) {
    if (!Number.isFinite(v))
      throw new CheckpointError(
        `save: ${key.replace(PREFIX, "")} of shape ${shapeText(p.shape)} holds NaN or infinity; it was not saved.`,
      );
  }
  return data;
}

const bytes = (data: Float32Array): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/**
 * Loads an adapter that PEFT or `save` wrote and makes it the active one. Every tensor must have its place and every targeted layer its tensors; a
 * model whose tables have fewer rows than the adapter's gets the rows that were added.
 * @throws ConfigError for a field that changes the result and is not supported; CheckpointError for tensors that do not fit. The model is left as it
 * was then.
 */
export async function loadAdapterFiles(model: CausalLM, folder: string, name: string): Promise<AdapterInfo> {
  const fields = await readFields(join(folder, "adapter_config.json"));
  const base =
    fields.get("base_model_name_or_path") === null ? "" : fields.string("base_model_name_or_path", { default: "" });
  await using opened = await openWeights(folder);
  const file = adapterFile(model, opened);
  const settings = await headSettings(model, folder, settingsFromConfig(fields, name), file, fields.get("task_type"));
  const rows = tableRows(model, file) ?? 0;
  const larger = rows > model.config.vocabSize ? resizeTables(model, rows) : undefined;
  let layers: string[];
  try {
    layers = wrapLora(model, settings, false, (names, ranks) => checkRanks(names, ranks, file, folder));
    checkFile(model, name, file, folder);
    await initialise(model, settings);
    for (const [key, p] of [...adapterTensors(model, name), ...tablesOf(model, file)]) await read(file, key, p);
  } catch (error) {
    removeLora(model, name);
    larger?.undo();
    throw error;
  }
  larger?.keep();
  for (const [, layer] of loraLayers(model)) layer.baseChanged();
  return {
    settings,
    targets: settings.target === undefined || settings.target === "all-linear" ? layers : settings.target,
    base,
    raw: fields.values,
    resized: tablesOf(model, file).length > 0,
  };
}

async function openWeights(folder: string): Promise<SafetensorsFile> {
  const path = join(folder, "adapter_model.safetensors");
  const present = await readdir(folder);
  const pickled = present.includes("adapter_model.safetensors")
    ? undefined
    : present.find((name) => PICKLED.test(name));
  if (pickled !== undefined)
    throw new CheckpointError(`${join(folder, pickled)} is not loaded: ${PICKLE_REASON}. ${convertPickle(pickled)}`);
  return SafetensorsFile.open(path);
}

async function read(file: AdapterFile, key: string, p: Parameter): Promise<void> {
  const data = await file.readFloat32(key);
  for (const v of data)
    if (!Number.isFinite(v))
      throw new CheckpointError(`${file.path}: ${key} holds NaN or infinity; it cannot be used.`);
  const full = outsideScope(() => tensor(data, { shape: p.shape, device: p.device }));
  p.adopt(p.dtype === "float32" ? full : outsideScope(() => noGrad(() => full.to(p.dtype))));
  full.dispose();
}

/** The base model's own tables that PEFT saves beside adapters of them, or where tokens were added. */
function tablesOf(model: CausalLM, file: AdapterFile): [string, Parameter][] {
  return [...baseTables(model)]
    .map(([key, p]) => [`${PREFIX}${key}`, p] as [string, Parameter])
    .filter(([key]) => file.has(key));
}

/** Compares ranks with the file before memory is taken for them: a config may speak of any. */
function checkRanks(names: readonly string[], ranks: readonly number[], file: AdapterFile, folder: string): void {
  const keys = names.map((name) =>
    ["lora_A.weight", "lora_embedding_A"].map((part) => `${PREFIX}${name}.${part}`).find((key) => file.has(key)),
  );
  requireThere(
    folder,
    names.filter((_, i) => keys[i] === undefined).map((name) => `${PREFIX}${name}.lora_A.weight`),
  );
  for (const [i, key] of keys.entries()) {
    const { shape } = file.entry(key!);
    if (shape[0] !== ranks[i]) throw otherShape(folder, key!, [ranks[i]!, ...shape.slice(1)], shape);
  }
}

function requireThere(folder: string, without: readonly string[]): void {
  if (without.length > 0)
    throw new CheckpointError(
      `${folder}: the adapter's config speaks of ${without.slice(0, 3).join(", ")}${without.length > 3 ? ` and ${without.length - 3} more` : ""}, which its file does not hold; the file is incomplete.`,
    );
}

function otherShape(
  folder: string,
  key: string,
  expected: readonly number[],
  found: readonly number[],
): CheckpointError {
  return new CheckpointError(
    `${folder}: ${key} should have shape ${shapeText(expected)} for this model and the adapter's config, the file holds ${shapeText(found)}.`,
  );
}

/** Compares names and shapes before anything is read. */
function checkFile(model: CausalLM, name: string, file: AdapterFile, folder: string): void {
  const expected = adapterTensors(model, name);
  const places = new Map<string, Parameter>([...tablesOf(model, file), ...expected]);
  const strange = file.names().filter((key) => !places.has(key));
  if (strange.length > 0)
    throw new CheckpointError(
      `${folder}: ${strange.length} tensors of the adapter have no place in this model (${strange.slice(0, 3).join(", ")}); was it made for another base model?`,
    );
  requireThere(
    folder,
    [...expected.keys()].filter((key) => !file.has(key)),
  );
  for (const [key, p] of places) {
    const { shape } = file.entry(key);
    if (shapeText(shape) !== shapeText(p.shape)) throw otherShape(folder, key, p.shape, shape);
  }
}
