/** The sections of a training job as one JSON says them, checked against unknown names before anything is loaded. */
import type { LoadDatasetOptions } from "./data/dataset-load.js";
import type { SplitOptions } from "./data/dataset-order.js";
import { ConfigError } from "./errors.js";
import { EVALUATE_METRICS, type EvaluateOptions } from "./evaluation/evaluate.js";
import type { AdapterOptions } from "./fetch.js";
import { describe, isObject, type Json, type JsonObject } from "./hub/json.js";
import { LORA_OPTIONS, type LoraOptions, loraSettings } from "./lora/options.js";
import { nearest } from "./lora/targets.js";
import { checkExport, type ExportOptions } from "./models/export-options.js";
import type { LoadOptions } from "./plan.js";
import { type QuantizeOptions, quantizeSettings } from "./quantization/nf4.js";
import { TRAIN_OPTIONS, type TrainOptions, trainSettings } from "./training/options.js";

/** A data set of a job: its path or name on the hub, alone or with options of `loadDataset`. */
export type JobData = string | ({ path: string } & Omit<LoadDatasetOptions, "signal">);

/** What a training job is: sections with the options of the calls they stand for. Functions have no place in JSON. */
export interface JobConfig {
  /** A name on the hub, a folder or a .gguf file; alone, or as `id` with options of `loadModel`. */
  model: string | ({ id: string } & Omit<LoadOptions, "signal">);
  quantize?: QuantizeOptions;
  addLora?: LoraOptions;
  /** An adapter to go on with, alone or as `id` with options of `loadAdapter`. */
  loadAdapter?: string | ({ id: string } & Omit<AdapterOptions, "signal">);
  data: {
    train: JobData;
    validation?: JobData;
    test?: JobData;
    /** Shares or numbers of rows that are taken out of `train` for validation and test. */
    split?: SplitOptions;
    /** Rows of `train` that are used, from its beginning; all by default. */
    rows?: number;
    /** What is made of a row, with {column} for its values: a text, { prompt, completion }, messages … Without it the row's own fields are read. */
    format?: unknown;
  };
  train?: Omit<TrainOptions, "validation" | "format" | "signal" | "callbacks" | "progress">;
  /** Measured before and after, on `data.test` or else `data.validation`. */
  evaluate?: Omit<EvaluateOptions, "format" | "references" | "signal" | "adapters" | "progress">;
  save?: {
    /** Folder of the adapter (without one, of the whole model). */
    adapter?: string;
    /** Merges the adapter and writes the whole model. */
    export?: { folder: string } & ExportOptions;
  };
}

type Names<T> = Readonly<Record<keyof T, true>>;

const MODEL: Names<Extract<JobConfig["model"], object>> = {
  ...{ id: true, device: true, dtype: true, weights: true, seed: true, task: true, labels: true },
  ...{ revision: true, token: true, cacheDir: true, progress: true },
};
const ADAPTER: Names<Extract<NonNullable<JobConfig["loadAdapter"]>, object>> = {
  ...{ id: true, name: true, revision: true, token: true, cacheDir: true, progress: true },
};
const DATA: Names<JobConfig["data"]> = {
  ...{ train: true, validation: true, test: true, split: true, rows: true, format: true },
};
const ROWS: Names<Extract<JobData, object>> = {
  ...{ path: true, split: true, format: true, revision: true, token: true, cacheDir: true, name: true },
  ...{ maxBytes: true, delimiter: true, columns: true, quote: true },
};
const SPLIT: Names<SplitOptions> = { validation: true, test: true, seed: true, shuffle: true };
const QUANTIZE: Names<QuantizeOptions> = {
  type: true,
  doubleQuant: true,
  compute: true,
  activations: true,
  blockSize: true,
  vision: true,
};
const EVALUATE: Names<NonNullable<JobConfig["evaluate"]>> = {
  ...{ metrics: true, batch: true, labels: true, positive: true, by: true, normalize: true, maxLength: true },
  ...{ textField: true, stemmer: true, maxNewTokens: true, temperature: true, topK: true, topP: true, minP: true },
  ...{ repetitionPenalty: true, stop: true, seed: true, images: true, kvCache: true },
};
const NOT_JSON = ["validation", "format", "signal", "callbacks", "progress"];
const SECTIONS: Readonly<Record<keyof JobConfig, readonly string[] | undefined>> = {
  model: Object.keys(MODEL),
  quantize: Object.keys(QUANTIZE),
  addLora: LORA_OPTIONS,
  loadAdapter: Object.keys(ADAPTER),
  data: Object.keys(DATA),
  train: TRAIN_OPTIONS.filter((name) => !NOT_JSON.includes(name)),
  evaluate: Object.keys(EVALUATE),
  save: ["adapter", "export"],
};

/**
 * Puts values into a config: each is "section.option=value", the value JSON or else text. A section that is a text alone (model, loadAdapter, a data
 * set) becomes one with options.
 * @throws ConfigError for what has no "=", or goes through something that is no section.
 */
export function withSettings(config: JsonObject, settings: readonly string[]): JsonObject {
  const made = structuredClone(config);
  for (const setting of settings) {
    const at = setting.indexOf("=");
    const path = setting.slice(0, at).split(".");
    if (at < 1 || path.some((name) => name === "" || name === "__proto__"))
      throw new ConfigError(`--set ${setting}: expected SECTION.OPTION=VALUE, such as train.lr=1e-4.`);
    let place = made;
    for (const [i, name] of path.slice(0, -1).entries()) {
      const there = Object.hasOwn(place, name) ? place[name] : undefined;
      if (typeof there === "string") place[name] = { [path[i - 1] === "data" ? "path" : "id"]: there };
      else if (there === undefined) place[name] = {};
      else if (!isObject(there))
        throw new ConfigError(`--set ${setting}: ${path.slice(0, i + 1).join(".")} has no options.`);
      place = place[name] as JsonObject;
    }
    place[path.at(-1)!] = jsonOrText(setting.slice(at + 1));
  }
  return made;
}

function jsonOrText(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return text;
  }
}

/**
 * Checks a job: names of sections and options, and the values that can be checked without model and rows.
 * @throws ConfigError naming the option and, for a wrong name, the ones that are most like it.
 */
export function checkJob(config: unknown): JobConfig {
  const job = section(config as Json, "", Object.keys(SECTIONS));
  for (const name of ["model", "data"])
    if (job[name] === undefined) throw new ConfigError(`The config has no section "${name}".`);
  for (const [name, known] of Object.entries(SECTIONS)) {
    const value = job[name];
    if (value === undefined || (typeof value === "string" && (name === "model" || name === "loadAdapter"))) continue;
    section(value, name, known!);
  }
  const checked = job as unknown as JobConfig;
  for (const name of ["model", "loadAdapter"] as const) {
    const given = checked[name];
    if (typeof given === "object" && typeof given.id !== "string")
      throw new ConfigError(`${name} must have an "id": a folder, a file, or a name on the hub.`);
  }
  checkData(checked.data);
  if (checked.quantize) quantizeSettings(checked.quantize);
  if (checked.addLora) loraSettings(checked.addLora);
  const { split = {}, validation } = checked.data;
  trainSettings({ ...checked.train, ...(validation || split.validation ? { validation: [] } : {}) });
  if (checked.evaluate) checkEvaluate(checked);
  const { export: whole } = checked.save ?? {};
  if (whole) {
    section(whole as unknown as Json, "save.export", ["folder", "format", "dtype", "shardBytes"]);
    if (typeof whole.folder !== "string") throw new ConfigError("save.export must have a folder.");
    checkExport(whole);
  }
  return checked;
}

function checkData(data: JobConfig["data"]): void {
  for (const name of ["train", "validation", "test"] as const) {
    const rows = data[name];
    if (rows === undefined && name !== "train") continue;
    if (typeof rows === "string") continue;
    section(rows as unknown as Json, `data.${name}`, Object.keys(ROWS));
    if (typeof rows!.path !== "string") throw new ConfigError(`data.${name} must have a "path".`);
  }
  if (data.split === undefined) return;
  section(data.split as unknown as Json, "data.split", Object.keys(SPLIT));
  for (const name of ["validation", "test"] as const)
    if (data.split[name] !== undefined && data[name] !== undefined)
      throw new ConfigError(
        `data.split.${name} takes rows out of data.train, and there is data.${name}: leave one out.`,
      );
}

function checkEvaluate({ data, evaluate }: JobConfig): void {
  const { metrics } = evaluate!;
  if (!Array.isArray(metrics) || metrics.length === 0)
    throw new ConfigError(`evaluate.metrics must list some of ${EVALUATE_METRICS.join(", ")}.`);
  for (const name of metrics)
    if (!EVALUATE_METRICS.includes(name)) throw unknown("evaluate.metrics", name, EVALUATE_METRICS);
  if (!data.test && !data.validation && !data.split?.test && !data.split?.validation)
    throw new ConfigError(
      "evaluate needs rows that are not trained on: give data.test, data.validation, or data.split.",
    );
}

function section(value: Json | undefined, name: string, known: readonly string[]): JsonObject {
  const where = name === "" ? "The config" : name;
  if (!isObject(value)) throw new ConfigError(`${where} must be an object, received ${describe(value)}.`);
  for (const key of Object.keys(value)) if (!known.includes(key)) throw unknown(where, key, known);
  return value;
}

function unknown(where: string, key: string, known: readonly string[]): ConfigError {
  const [like] = nearest(key, known);
  const hint = like === undefined ? "" : ` Did you mean "${like}"?`;
  return new ConfigError(`${where}: "${key}" is not known.${hint} There are ${[...known].sort().join(", ")}.`);
}
