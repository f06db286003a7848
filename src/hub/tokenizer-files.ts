/** The files of a tokenizer's folder, read with bounds and parsed. */
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { TokenizerError } from "../errors.js";
import { CHATGLM_TEMPLATE, chatGlmConfig, isChatGlm, withCommands } from "./chatglm-tokenizer.js";
import { describe, isObject, type Json, type JsonObject, own } from "./json.js";
import { readSentencePiece } from "./sentencepiece.js";

// The largest tokenizer.json in use has some 35 MB; a small .gz can hold far more.
const MAX_BYTES = 256 * 1024 * 1024;
const inflate = promisify(gunzip);
const NAMES = [
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
] as const;

/** What a folder has of a tokenizer: parsed, and as bytes so that it can be saved beside an adapter. */
export interface TokenizerFiles {
  folder: string;
  /** `tokenizer.json`: vocabulary, merges, normalizer, added tokens; of a folder that has `tokenizer.model` alone, what that says. */
  tokenizer: JsonObject;
  /** The vocabulary of `tokenizer`'s model, where it is known beside it. */
  vocabulary?: ReadonlyMap<string, number>;
  /** `tokenizer_config.json`; empty when there is none. */
  config: JsonObject;
  /** `special_tokens_map.json`; empty when there is none. */
  specialTokens: JsonObject;
  /** `chat_template.jinja`, else the template of the config. */
  chatTemplate: string | undefined;
  /** Further templates by name, as for tools. */
  namedTemplates: ReadonlyMap<string, string>;
  /** The bytes by file name, uncompressed. */
  bytes: ReadonlyMap<string, Uint8Array>;
}

/**
 * Reads a tokenizer's files.
 *
 * @throws TokenizerError naming the files that were looked for and where, or the one that is damaged.
 */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const bytes = new Map<string, Uint8Array>();
  for (const name of NAMES) {
    const content = await readOptional(folder, name);
    if (content !== undefined) bytes.set(name, content);
  }
  const declared = parsed(folder, bytes, "tokenizer_config.json");
  const glm = isChatGlm(declared);
  const config = glm ? chatGlmConfig(declared) : declared;
  const templates = templatesOf(folder, config, bytes.get("chat_template.jinja"));
  if (glm && !templates.has("default")) templates.set("default", CHATGLM_TEMPLATE);
  const model = bytes.get("tokenizer.model");
  let tokenizer: JsonObject;
  if (bytes.has("tokenizer.json")) tokenizer = parsed(folder, bytes, "tokenizer.json");
  else if (model !== undefined) {
    tokenizer = readSentencePiece(model, join(folder, "tokenizer.model"));
    tokenizer = glm ? withCommands(tokenizer) : withBos(withDeclared(tokenizer, config), config);
  } else throw await missing(folder);
  return {
    folder,
    tokenizer,
    config,
    specialTokens: parsed(folder, bytes, "special_tokens_map.json"),
    chatTemplate: templates.get("default"),
    namedTemplates: templates,
    bytes,
  };
}

/** Tokens that the config declares behind the pieces of a `tokenizer.model`. */
function withDeclared(tokenizer: JsonObject, config: JsonObject): JsonObject {
  const declared = own(config, "added_tokens_decoder");
  if (!isObject(declared)) return tokenizer;
  const added = own(tokenizer, "added_tokens") as JsonObject[];
  const known = new Set(added.map(({ id }) => id));
  const more = Object.entries(declared).flatMap(([id, token]): JsonObject[] =>
    isObject(token) && typeof token.content === "string" && /^\d{1,9}$/.test(id) && !known.has(Number(id))
      ? [{ normalized: false, ...token, id: Number(id) }]
      : [],
  );
  return { ...tokenizer, added_tokens: [...added, ...more] };
}

/** Llama's way for a `tokenizer.model`: a BOS before each text unless the config says no, an EOS behind it if it says so. */
function withBos(tokenizer: JsonObject, config: JsonObject): JsonObject {
  const added = (own(tokenizer, "added_tokens") as JsonObject[]).filter(({ special }) => special === true);
  const token = (name: string, standard: string): JsonObject | undefined => {
    const value = own(config, name);
    const content = isObject(value) ? own(value, "content") : value;
    return added.find((entry) => entry.content === (typeof content === "string" ? content : standard));
  };
  const before = own(config, "add_bos_token") === false ? undefined : token("bos_token", "<s>");
  const after = own(config, "add_eos_token") === true ? token("eos_token", "</s>") : undefined;
  if (before === undefined && after === undefined) return tokenizer;
  const special = (entry: JsonObject | undefined): Json[] =>
    entry === undefined ? [] : [{ SpecialToken: { id: entry.content!, type_id: 0 } }];
  const single = [...special(before), { Sequence: { id: "A", type_id: 0 } }, ...special(after)];
  const used = [before, after].filter((entry) => entry !== undefined);
  return {
    ...tokenizer,
    post_processor: {
      type: "TemplateProcessing",
      single,
      pair: [...single, { Sequence: { id: "B", type_id: 1 } }],
      special_tokens: Object.fromEntries(
        used.map(({ id, content }) => [content, { id: content!, ids: [id!], tokens: [content!] }]),
      ),
    },
  };
}

async function readOptional(folder: string, name: string): Promise<Uint8Array | undefined> {
  const path = join(folder, name);
  const plain = await readBounded(path);
  if (plain !== undefined) return plain;
  const packed = await readBounded(`${path}.gz`);
  if (packed === undefined) return undefined;
  try {
    return await inflate(packed, { maxOutputLength: MAX_BYTES });
  } catch (cause) {
    throw new TokenizerError(`${path}.gz cannot be unpacked: ${(cause as Error).message}.`, { cause });
  }
}

async function readBounded(path: string): Promise<Uint8Array | undefined> {
  try {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    if (size > MAX_BYTES) throw new TokenizerError(`${path} has ${size} bytes: at most ${MAX_BYTES} are read.`);
    return await file.readFile();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    if (cause instanceof TokenizerError) throw cause;
    throw new TokenizerError(`${path} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}

function parsed(folder: string, files: ReadonlyMap<string, Uint8Array>, name: string): JsonObject {
  const bytes = files.get(name);
  if (bytes === undefined) return Object.create(null);
  let value: Json;
  try {
    // Megabytes of vocabulary: the engine's own parser, whose objects are only looked into by own names.
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as Json;
  } catch (cause) {
    throw new TokenizerError(`${join(folder, name)} is not JSON: ${(cause as Error).message}.`, { cause });
  }
  if (!isObject(value))
    throw new TokenizerError(`${join(folder, name)} should hold an object, got ${describe(value)}.`);
  return value;
}

function templatesOf(folder: string, config: JsonObject, file: Uint8Array | undefined): Map<string, string> {
  const templates = new Map<string, string>();
  const declared = own(config, "chat_template");
  const wrong = () =>
    new TokenizerError(
      `"chat_template" in ${join(folder, "tokenizer_config.json")} should be a string or a list of { name, template }, got ${describe(declared)}.`,
    );
  if (typeof declared === "string") templates.set("default", declared);
  else if (Array.isArray(declared)) {
    for (const entry of declared) {
      if (!isObject(entry) || typeof entry.name !== "string" || typeof entry.template !== "string") throw wrong();
      templates.set(entry.name, entry.template);
    }
  } else if (declared !== undefined && declared !== null) throw wrong();
  // The file is the newer form and wins, as in transformers.
  if (file !== undefined) templates.set("default", new TextDecoder().decode(file));
  return templates;
}

async function missing(folder: string): Promise<TokenizerError> {
  const looked = `looked for tokenizer.json and tokenizer.model (each plain or as .gz) in ${folder}`;
  let present: string[];
  try {
    present = await readdir(folder);
  } catch (cause) {
    return new TokenizerError(`No tokenizer: ${looked}, a folder that cannot be read: ${(cause as Error).message}.`, {
      cause,
    });
  }
  const convert =
    'Write one in Python: `from transformers import AutoTokenizer as T; T.from_pretrained("FOLDER").save_pretrained("FOLDER")`.';
  if (present.includes("vocab.json"))
    return new TokenizerError(`No tokenizer: ${looked}. There is only the older vocab.json. ${convert}`);
  return new TokenizerError(`No tokenizer: ${looked}. Copy the tokenizer's files of the base model there.`);
}
