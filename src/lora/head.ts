/** What an adapter's folder says of a classification head, which PEFT saves beside the adapter as a module trained whole. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, ConfigError } from "../errors.js";
import type { SafetensorsFile } from "../hub/safetensors.js";
import type { CausalLM } from "../models/causal.js";
import { HEAD, labelNames } from "../models/classifier.js";
import { writeJson } from "../models/export.js";
import { PREFIX } from "./files.js";
import type { LoraSettings } from "./options.js";

/** The classes' names: PEFT's own files have no place for them. */
const LABELS_FILE = "labels.json";
/** Names under which PEFT looks for a head; a model has one of them. */
const HEADS = [HEAD, "classifier"];

/** Writes the names of a classifier's classes beside its adapter; nothing for other models. */
export async function saveLabels(model: CausalLM, folder: string): Promise<void> {
  if (model.labels) await writeJson(folder, LABELS_FILE, { id2label: Object.fromEntries(model.labels.entries()) });
}

/**
 * The settings with those of PEFT's names for heads that this model has.
 * @throws ConfigError when the adapter's head and the model's differ: it says how the model is to be loaded.
 */
export async function headSettings(
  model: CausalLM,
  folder: string,
  settings: LoraSettings,
  file: SafetensorsFile,
  task: unknown,
): Promise<LoraSettings> {
  const { labels } = model;
  const key = `${PREFIX}${HEAD}.weight`;
  const count = file.has(key) ? file.entry(key).shape[0]! : undefined;
  const named = await savedLabels(folder);
  const wanted = named ?? Array.from({ length: count ?? 2 }, (_, i) => `LABEL_${i}`);
  const remedy = `load the model with { task: "classification", labels: ${JSON.stringify(wanted)} }`;
  if (!labels) {
    if (task !== "SEQ_CLS" && count === undefined) return settings;
    throw new ConfigError(
      `${folder}: this adapter belongs to a head for ${wanted.length} classes (task_type SEQ_CLS), and the model gives tokens: ${remedy}.`,
    );
  }
  if (count !== undefined && count !== labels.length)
    throw new ConfigError(
      `${folder}: this adapter has a head for ${count} classes, the model one for ${labels.length} (${labels.join(", ")}): ${remedy}.`,
    );
  if (named?.some((name, i) => name !== labels[i]))
    throw new ConfigError(
      `${folder}: the classes of this adapter are ${named.join(", ")}, the model's are ${labels.join(", ")}: ${remedy}.`,
    );
  const { modulesToSave } = settings;
  return { ...settings, modulesToSave: modulesToSave.filter((name) => name === HEAD || !HEADS.includes(name)) };
}

async function savedLabels(folder: string): Promise<string[] | undefined> {
  const path = join(folder, LABELS_FILE);
  const text = await readFile(path, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    const names = labelNames((JSON.parse(text) as { id2label?: unknown }).id2label);
    if (names) return names;
  } catch {}
  throw new CheckpointError(`${path} should be { "id2label": { "0": "…", "1": "…" } }; mend it, or take it away.`);
}
