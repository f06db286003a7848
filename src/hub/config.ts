/** `config.json` and `generation_config.json` as plain data, read field by field with the kind that each must have. */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "../errors.js";
import { describe, isObject, type Json, type JsonObject, own, parseStrict } from "./json.js";

const MAX_CONFIG_BYTES = 16 * 1024 * 1024;

/** Bounds of a number, and what stands for an absent field (without `default` an absent field is an error). */
export interface NumberField {
  default?: number;
  min?: number;
  max?: number;
}

/**
 * The fields of a config, each read with its kind. Absent and null are told apart where models need it: `integer`, `number` … refuse null;
 * `optional` gives null for null and undefined for an absent field.
 */
export class ConfigFields {
  /** The object itself, without a prototype. */
  readonly values: JsonObject;
  /** Where it came from, for messages. */
  readonly where: string;

  constructor(values: object, where: string) {
    this.values = plain(values) as JsonObject;
    this.where = where;
  }

  /** The value as it stands, or undefined. */
  get(name: string): Json | undefined {
    return own(this.values, name);
  }

  /** True when the field stands there, null included. */
  has(name: string): boolean {
    return Object.hasOwn(this.values, name);
  }

  /** True when the field has a value: old config files write null where a key is not used. */
  given(name: string): boolean {
    const value = this.get(name);
    return value !== undefined && value !== null;
  }

  /** A whole number within ±2^53. @throws ConfigError */
  integer(name: string, field: NumberField = {}): number {
    const value = this.#number(name, field, "an integer");
    if (!Number.isSafeInteger(value)) throw this.wrong(name, bounded("an integer", field));
    return value;
  }

  /** A finite number. @throws ConfigError */
  number(name: string, field: NumberField = {}): number {
    return this.#number(name, field, "a number");
  }

  /** true or false. @throws ConfigError */
  boolean(name: string, field: { default?: boolean } = {}): boolean {
    const value = this.get(name);
    if (value === undefined && field.default !== undefined) return field.default;
    if (typeof value !== "boolean") throw this.wrong(name, "true or false");
    return value;
  }

  /** A string, of `oneOf` where given. @throws ConfigError */
  string(name: string, field: { default?: string; oneOf?: readonly string[] } = {}): string {
    const value = this.get(name);
    if (value === undefined && field.default !== undefined) return field.default;
    const wanted = field.oneOf === undefined ? "a string" : `one of ${field.oneOf.map((s) => `"${s}"`).join(", ")}`;
    if (typeof value !== "string" || (field.oneOf !== undefined && !field.oneOf.includes(value)))
      throw this.wrong(name, wanted);
    return value;
  }

  /** An array whose elements `check` accepts; `of` names them in the message. @throws ConfigError */
  array<T extends Json>(
    name: string,
    of: string,
    check: (value: Json) => value is T,
    field: { default?: T[] } = {},
  ): T[] {
    const value = this.get(name);
    if (value === undefined && field.default !== undefined) return field.default;
    if (!Array.isArray(value) || !value.every(check)) throw this.wrong(name, `an array of ${of}`);
    return value as T[];
  }

  /** A nested object, or undefined when it is absent or null. @throws ConfigError */
  object(name: string): ConfigFields | undefined {
    const value = this.get(name);
    if (value === undefined || value === null) return undefined;
    if (!isObject(value)) throw this.wrong(name, "an object");
    return new ConfigFields(value, `"${name}" of ${this.where}`);
  }

  /** What `read` gives, null when the field is null, undefined when it is absent. */
  optional<T>(name: string, read: (fields: this) => T): T | null | undefined {
    const value = this.get(name);
    if (value === undefined || value === null) return value;
    return read(this);
  }

  /** The error for a field: what was expected, what came, where. */
  wrong(name: string, expected: string): ConfigError {
    const value = this.get(name);
    const came = value === undefined ? "is missing" : `is ${describe(value)}`;
    return new ConfigError(`"${name}" ${came} in ${this.where}: expected ${expected}.`);
  }

  #number(name: string, field: NumberField, kind: string): number {
    const value = this.get(name);
    if (value === undefined && field.default !== undefined) return field.default;
    const fits =
      typeof value === "number" &&
      Number.isFinite(value) &&
      value >= (field.min ?? Number.NEGATIVE_INFINITY) &&
      value <= (field.max ?? Number.POSITIVE_INFINITY);
    if (!fits) throw this.wrong(name, bounded(kind, field));
    return value;
  }
}

function bounded(kind: string, field: NumberField): string {
  const low = field.min === undefined ? "" : ` of at least ${field.min}`;
  const high = field.max === undefined ? "" : ` of at most ${field.max}`;
  return kind + low + (low && high ? " and" : "") + high;
}

// A user's own config object may carry prototypes and functions: only its data is taken.
function plain(value: unknown): Json {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) {
    return typeof value === "function" || typeof value === "symbol" ? null : (value as Json);
  }
  const copy: JsonObject = Object.create(null);
  for (const [name, entry] of Object.entries(value)) if (entry !== undefined) copy[name] = plain(entry);
  return copy;
}

/** A small JSON file as fields. @throws ConfigError when it cannot be read or is no JSON object. */
export async function readFields(path: string): Promise<ConfigFields> {
  const text = await readText(path);
  let value: Json;
  try {
    value = parseStrict(text);
  } catch (cause) {
    throw new ConfigError(`${path} is not JSON that can be used: ${(cause as Error).message}.`, { cause });
  }
  if (!isObject(value)) throw new ConfigError(`${path} should hold a JSON object, got ${describe(value)}.`);
  return new ConfigFields(value, path);
}

async function readText(path: string): Promise<string> {
  try {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    if (size > MAX_CONFIG_BYTES)
      throw new ConfigError(`${path} has ${size} bytes: a config of at most ${MAX_CONFIG_BYTES} was expected.`);
    return (await file.readFile("utf8")).replace(/^\ufeff/, "");
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause;
    throw new ConfigError(`${path} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}

/**
 * `config.json` of a model folder.
 *
 * @throws ConfigError when it is missing or damaged, or has no `model_type`.
 */
export async function readConfig(folder: string): Promise<ConfigFields> {
  const fields = await readFields(join(folder, "config.json"));
  fields.string("model_type");
  return fields;
}

/** What `generation_config.json` says; a field that is absent or null there is undefined here. */
export interface GenerationConfig {
  eosIds: number[];
  bosId?: number;
  padId?: number;
  doSample?: boolean;
  temperature?: number;
  topP?: number;
  topK?: number;
  repetitionPenalty?: number;
  maxNewTokens?: number;
}

/** `generation_config.json` of a folder, or undefined when there is none. @throws ConfigError when a field has a wrong kind. */
export async function readGenerationConfig(folder: string): Promise<GenerationConfig | undefined> {
  let fields: ConfigFields;
  try {
    fields = await readFields(join(folder, "generation_config.json"));
  } catch (error) {
    if (((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === "ENOENT") return undefined;
    throw error;
  }
  return generationConfig(fields);
}

/** Takes the generation fields out of a config that was read. @throws ConfigError */
export function generationConfig(fields: ConfigFields): GenerationConfig {
  const config: GenerationConfig = { eosIds: tokenIds(fields, "eos_token_id") };
  const set = <K extends keyof GenerationConfig>(key: K, value: GenerationConfig[K] | null | undefined) => {
    if (value !== null && value !== undefined) config[key] = value;
  };
  set(
    "bosId",
    fields.optional("bos_token_id", (f) => f.integer("bos_token_id", { min: 0 })),
  );
  set(
    "padId",
    fields.optional("pad_token_id", (f) => f.integer("pad_token_id", { min: 0 })),
  );
  set(
    "doSample",
    fields.optional("do_sample", (f) => f.boolean("do_sample")),
  );
  set(
    "temperature",
    fields.optional("temperature", (f) => f.number("temperature", { min: 0 })),
  );
  set(
    "topP",
    fields.optional("top_p", (f) => f.number("top_p", { min: 0, max: 1 })),
  );
  set(
    "topK",
    fields.optional("top_k", (f) => f.integer("top_k", { min: 0 })),
  );
  set(
    "repetitionPenalty",
    fields.optional("repetition_penalty", (f) => f.number("repetition_penalty", { min: 0 })),
  );
  set(
    "maxNewTokens",
    fields.optional("max_new_tokens", (f) => f.integer("max_new_tokens", { min: 0 })),
  );
  return config;
}

/** One id, or a list of ids, or none: how configs spell `eos_token_id`. @throws ConfigError */
export function tokenIds(fields: ConfigFields, name: string): number[] {
  const value = fields.get(name);
  if (value === undefined || value === null) return [];
  const list = Array.isArray(value) ? value : [value];
  const isId = (id: Json): id is number => typeof id === "number" && Number.isSafeInteger(id) && id >= 0;
  if (!list.every(isId)) throw fields.wrong(name, "a token id or a list of them");
  return list;
}
