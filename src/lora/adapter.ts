import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, ConfigError } from "../errors.js";
import { type ConfigFields, readFields } from "../hub/config.js";
import type { JsonObject } from "../hub/json.js";
import { SafetensorsFile } from "../hub/safetensors.js";
import { replaceFile, writeSafetensors } from "../hub/safetensors-write.js";
import { Linear } from "../nn/layers.js";
import type { Module, Parameter } from "../nn/module.js";
import { FrozenLinear } from "../quantization/frozen.js";
import { outsideScope } from "../tensor/scope.js";
import { shapeText } from "../tensor/shape.js";
import { tensor } from "../tensor/tensor.js";
import type { LoraSettings } from "./options.js";
import { LoraLinear, loraLayers, matchesTarget, wrapLora } from "./wrap.js";

/** What an adapter was made with, and the fields of its config file that tunebook does not use but keeps. */
export interface AdapterInfo {
  settings: LoraSettings;
  /** Names (or ends of names) of the adapted layers. */
  targets: readonly string[];
  base: string;
  /** adapter_config.json as it was read. */
  raw: JsonObject | undefined;
}

const PREFIX = "base_model.model.";

/** Fields of PEFT's LoraConfig that change the result and are not supported: each with the values that change nothing. */
const INERT: Readonly<Record<string, readonly unknown[]>> = {
  use_dora: [false, null],
  bias: ["none"],
  fan_in_fan_out: [false],
  modules_to_save: [null],
  rank_pattern: [null],
  alpha_pattern: [null],
  layers_to_transform: [null],
  layers_pattern: [null],
  exclude_modules: [null],
  target_parameters: [null],
  layer_replication: [null],
  trainable_token_indices: [null],
  use_qalora: [false, null],
  lora_bias: [false, null],
  alora_invocation_tokens: [null],
  arrow_config: [null],
  use_bdlora: [false, null],
  kasa_config: [null],
  velora_config: [null],
  monteclora_config: [null],
};

/** Saves one adapter as PEFT lays it out: adapter_config.json and adapter_model.safetensors. */
export async function saveAdapter(model: Module, info: AdapterInfo, folder: string): Promise<void> {
  const { settings } = info;
  const tensors: { name: string; dtype: string; shape: readonly number[]; data: () => Promise<Uint8Array> }[] = [];
  for (const [name, layer] of loraLayers(model)) {
    for (const [part, matrices] of [
      ["lora_A", layer.lora_A],
      ["lora_B", layer.lora_B],
    ] as const) {
      const weight = matrices[settings.name]?.weight;
      if (weight)
        tensors.push({
          name: `${PREFIX}${name}.${part}.weight`,
          dtype: "F32",
          shape: weight.shape,
          data: () => bytesOf(weight),
        });
    }
  }
  if (tensors.length === 0)
    throw new ConfigError(`save: the model has no adapter named "${settings.name}"; add one with addLora first.`);
  await mkdir(folder, { recursive: true });
  await writeSafetensors(join(folder, "adapter_model.safetensors"), tensors, { format: "pt" });
  const text = `${JSON.stringify({ ...info.raw, ...peftConfig(info) }, null, 2)}\n`;
  await replaceFile(join(folder, "adapter_config.json"), async (file) => void (await file.writeFile(text)));
}

async function bytesOf(p: Parameter): Promise<Uint8Array> {
  const data = await p.data();
  for (const v of data) {
    if (!Number.isFinite(v))
      throw new CheckpointError(
        `save: an adapter matrix of shape ${shapeText(p.shape)} holds NaN or infinity; it was not saved.`,
      );
  }
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function peftConfig(info: AdapterInfo): Record<string, unknown> {
  const { settings, targets, base } = info;
  return {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: base,
    revision: info.raw?.revision ?? null,
    inference_mode: true,
    r: settings.rank,
    lora_alpha: settings.alpha,
    lora_dropout: settings.dropout,
    target_modules: targets,
    exclude_modules: null,
    bias: "none",
    fan_in_fan_out: false,
    use_rslora: settings.rslora,
    use_dora: false,
    modules_to_save: null,
    init_lora_weights: settings.init === "gaussian" ? "gaussian" : true,
    layers_to_transform: null,
    layers_pattern: null,
    rank_pattern: {},
    alpha_pattern: {},
    loftq_config: {},
  };
}

/**
 * Loads an adapter that PEFT or `save` wrote and makes it the active one. Every tensor must have its place and every targeted layer its tensors.
 * @throws ConfigError for a field that changes the result and is not supported; CheckpointError for tensors that do not fit.
 */
export async function loadAdapterFiles(model: Module, folder: string, name: string): Promise<AdapterInfo> {
  const fields = await readFields(join(folder, "adapter_config.json"));
  checkSupported(fields);
  const targetModules = fields.get("target_modules");
  const targets =
    typeof targetModules === "string"
      ? targetModules
      : fields.array("target_modules", "names", (v): v is string => typeof v === "string");
  const settings: LoraSettings = {
    rank: fields.integer("r", { min: 1 }),
    alpha: fields.number("lora_alpha"),
    dropout: fields.number("lora_dropout", { default: 0, min: 0, max: 1 }),
    target: undefined,
    rslora: fields.boolean("use_rslora", { default: false }),
    init: fields.get("init_lora_weights") === "gaussian" ? "gaussian" : "default",
    seed: undefined,
    name,
  };
  await using file = await SafetensorsFile.open(join(folder, "adapter_model.safetensors"));
  const layers = adaptedLayers(model, targets, file, folder);
  check(model, layers, file, settings, folder);
  wrapLora(model, { ...settings, target: layers }, layers, "");
  const byName = new Map(loraLayers(model));
  for (const layer of layers) {
    const lora = byName.get(layer)!;
    for (const [part, matrix] of [
      ["lora_A", lora.lora_A[name]!],
      ["lora_B", lora.lora_B[name]!],
    ] as const) {
      const data = await file.readFloat32(`${PREFIX}${layer}.${part}.weight`);
      matrix.weight.adopt(
        outsideScope(() => tensor(data, { shape: matrix.weight.shape, device: matrix.weight.device })),
      );
    }
  }
  return {
    settings,
    targets: Array.isArray(targets) ? targets : layers,
    base: fields.string("base_model_name_or_path", { default: "" }),
    raw: fields.values,
  };
}

function checkSupported(fields: ConfigFields): void {
  const type = fields.string("peft_type", { default: "LORA" });
  if (type !== "LORA")
    throw new ConfigError(`${fields.where}: peft_type "${type}" is not supported; only LORA adapters can be loaded.`);
  for (const [key, inert] of Object.entries(INERT)) {
    const value = fields.get(key);
    const empty =
      (Array.isArray(value) && value.length === 0) ||
      (typeof value === "object" && value !== null && Object.keys(value).length === 0);
    if (value !== undefined && !empty && !inert.includes(value)) {
      throw new ConfigError(
        `${fields.where}: ${key} = ${JSON.stringify(value)} changes what the adapter computes and is not supported yet.`,
      );
    }
  }
  const init = fields.get("init_lora_weights");
  if (typeof init === "string" && init !== "gaussian") {
    throw new ConfigError(
      `${fields.where}: init_lora_weights "${init}" needs a base model that was changed with it, which is not supported yet.`,
    );
  }
}

/** Full names of the layers the adapter speaks of: those of the file, which must be what target_modules says. */
function adaptedLayers(
  model: Module,
  targets: string | readonly string[],
  file: SafetensorsFile,
  folder: string,
): string[] {
  const linears = [...model.namedModules()]
    .filter(
      ([n, m]) =>
        (m instanceof Linear || m instanceof FrozenLinear || m instanceof LoraLinear) && !n.endsWith(".base_layer"),
    )
    .map(([n]) => n);
  const found = new Set<string>();
  const strange: string[] = [];
  for (const key of file.names()) {
    const match = /^base_model\.model\.(.+)\.lora_[AB]\.weight$/.exec(key);
    if (match && linears.includes(match[1]!)) found.add(match[1]!);
    else strange.push(key);
  }
  if (strange.length > 0) {
    throw new CheckpointError(
      `${folder}: ${strange.length} tensors of the adapter have no place in this model (${strange.slice(0, 3).join(", ")}); was it made for another base model?`,
    );
  }
  const expected = typeof targets === "string" ? [] : linears.filter((n) => matchesTarget(n, targets));
  const without = expected.filter((n) => !found.has(n));
  if (without.length > 0 || found.size === 0) {
    throw new CheckpointError(
      `${folder}: the adapter names ${without.slice(0, 3).join(", ") || "layers"} in target_modules but holds no tensors for them; the file is incomplete.`,
    );
  }
  return linears.filter((n) => found.has(n));
}

function check(
  model: Module,
  layers: readonly string[],
  file: SafetensorsFile,
  settings: LoraSettings,
  folder: string,
): void {
  for (const layer of layers) {
    const module = model.module(layer) as Linear;
    for (const [part, shape] of [
      ["lora_A", [settings.rank, module.inFeatures]],
      ["lora_B", [module.outFeatures, settings.rank]],
    ] as const) {
      const key = `${PREFIX}${layer}.${part}.weight`;
      const entry = file.entry(key);
      if (shapeText(entry.shape) !== shapeText(shape)) {
        throw new CheckpointError(
          `${folder}: ${key} should have shape ${shapeText(shape)} for this model and r ${settings.rank}, the file holds ${shapeText(entry.shape)}.`,
        );
      }
    }
  }
}
