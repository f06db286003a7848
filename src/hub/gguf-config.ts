/** The config of a model from the metadata of its GGUF file, in the words of its config.json. */
import { ConfigError } from "../errors.js";
import { ConfigFields } from "./config.js";
import type { GgufFile, GgufValue } from "./gguf.js";
import { describe, type Json, type JsonObject } from "./json.js";

const ARCHITECTURES = ["llama"];
const ROPE_FACTORS = "rope_freqs.weight";

/**
 * What config.json would say. Fields that the file leaves out are left out here.
 *
 * @throws ConfigError for an architecture that is not known, a missing count, or what such a config cannot say.
 */
export async function ggufConfig(file: GgufFile): Promise<ConfigFields> {
  const meta = new ConfigFields(metadataFields(file.metadata), `the metadata of ${file.path}`);
  const arch = meta.string("general.architecture");
  if (!ARCHITECTURES.includes(arch))
    throw new ConfigError(
      `${file.path}: general.architecture is "${arch}", expected ${ARCHITECTURES.map((a) => `"${a}"`).join(" or ")}. Other architectures are loaded from a folder with config.json and safetensors.`,
    );
  refuseParts(file, meta, arch);
  const size = (key: string) => meta.integer(`${arch}.${key}`, { min: 1 });
  const heads = size("attention.head_count");
  const hidden = size("embedding_length");
  const headDim = meta.integer(`${arch}.attention.key_length`, { default: hidden / heads, min: 1 });
  checkCounts(file, meta, arch, heads * headDim);
  const same = (key: string) => {
    const value = meta.integer(`${arch}.${key}`, { default: headDim });
    if (value !== headDim) throw meta.wrong(`${arch}.${key}`, `${headDim}, as the keys of a head have`);
  };
  same("attention.value_length");
  same("rope.dimension_count");
  const fields: JsonObject = {
    model_type: arch,
    vocab_size: file.entry("token_embd.weight").shape[0]!,
    hidden_size: hidden,
    num_hidden_layers: size("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: meta.integer(`${arch}.attention.head_count_kv`, { default: heads, min: 1 }),
    head_dim: headDim,
    intermediate_size: size("feed_forward_length"),
    max_position_embeddings: size("context_length"),
    rms_norm_eps: decimal(meta.number(`${arch}.attention.layer_norm_rms_epsilon`)),
    rope_theta: decimal(meta.number(`${arch}.rope.freq_base`, { default: 10000 })),
    tie_word_embeddings: !file.has("output.weight"),
    attention_bias: file.has("blk.0.attn_q.bias"),
    mlp_bias: file.has("blk.0.ffn_up.bias"),
    hidden_act: "silu",
    ...tokenIds(meta),
  };
  const scaling = await ropeScaling(file, meta, arch, fields.rope_theta as number, headDim);
  if (scaling !== undefined) fields.rope_scaling = scaling;
  return new ConfigFields(fields, meta.where);
}

function metadataFields(metadata: ReadonlyMap<string, GgufValue>): JsonObject {
  const fields: JsonObject = Object.create(null);
  // Vocabularies are read by the tokenizer alone.
  for (const [key, value] of metadata) if (!Array.isArray(value)) fields[key] = value as Json;
  return fields;
}

function refuseParts(file: GgufFile, meta: ConfigFields, arch: string): void {
  if (meta.integer("split.count", { default: 1 }) > 1)
    throw new ConfigError(
      `${file.path} is one of ${meta.get("split.count")} parts of a model, which are not read one by one. Join them with llama.cpp's llama-gguf-split --merge.`,
    );
  if (meta.integer(`${arch}.expert_count`, { default: 0 }) > 0)
    throw new ConfigError(
      `${file.path} is a mixture of ${meta.get(`${arch}.expert_count`)} experts: expected a dense model.`,
    );
  const heads = file.metadata.get(`${arch}.attention.head_count`);
  if (Array.isArray(heads))
    throw new ConfigError(
      `${file.path}: ${arch}.attention.head_count differs from layer to layer, expected one number.`,
    );
}

// A model is made as large as its config says before its tensors are compared: so these counts must be those of the tensors.
function checkCounts(file: GgufFile, meta: ConfigFields, arch: string, rows: number): void {
  const blocks = file.names().filter((name) => /^blk\.\d+\.attn_q\.weight$/.test(name)).length;
  if (blocks !== meta.integer(`${arch}.block_count`, { min: 1 }))
    throw meta.wrong(`${arch}.block_count`, `${blocks}, the number of blk.*.attn_q.weight in the file`);
  const query = file.entry("blk.0.attn_q.weight").shape[0];
  if (query !== rows) throw meta.wrong(`${arch}.attention.head_count`, `heads that share the ${query} rows of Q`);
}

function tokenIds(meta: ConfigFields): JsonObject {
  const id = (name: string) =>
    meta.has(`tokenizer.ggml.${name}`) ? meta.integer(`tokenizer.ggml.${name}`, { min: 0 }) : undefined;
  const ids: JsonObject = {};
  // A chat's turn may end with another token than a text.
  const ends = [id("eos_token_id"), id("eot_token_id")].filter((end) => end !== undefined);
  if (ends.length > 0) ids.eos_token_id = [...new Set(ends)];
  const bos = id("bos_token_id");
  if (bos !== undefined) ids.bos_token_id = bos;
  const pad = id("padding_token_id");
  if (pad !== undefined) ids.pad_token_id = pad;
  return ids;
}

async function ropeScaling(
  file: GgufFile,
  meta: ConfigFields,
  arch: string,
  theta: number,
  dim: number,
): Promise<JsonObject | undefined> {
  if (file.has(ROPE_FACTORS)) return llama3Scaling(file, await file.readFloat32(ROPE_FACTORS), theta, dim);
  const old = `${arch}.rope.scale_linear`;
  const linear = (key: string) => {
    const factor = decimal(meta.number(key));
    return factor === 1 || factor === 0 ? undefined : { rope_type: "linear", factor };
  };
  const type = meta.string(`${arch}.rope.scaling.type`, { default: meta.has(old) ? "old" : "none" });
  if (type === "none") return undefined;
  if (type === "old") return linear(old);
  if (type !== "linear") throw meta.wrong(`${arch}.rope.scaling.type`, '"none" or "linear"');
  return linear(`${arch}.rope.scaling.factor`);
}

/**
 * Llama 3.1's scaling: GGUF files hold what each frequency is divided by instead of the numbers it follows from. The largest divisor is
 * the factor; the other numbers are those that all published models have, and the divisors they give are compared.
 */
function llama3Scaling(file: GgufFile, divisors: Float32Array, theta: number, dim: number): JsonObject {
  const scaling = {
    rope_type: "llama3",
    factor: divisors.reduce((a, b) => Math.max(a, b), 1),
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  const wrong = divisors.findIndex((divisor, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / dim);
    const smooth = (scaling.original_max_position_embeddings / wavelength - 1) / (scaling.high_freq_factor - 1);
    const expected = 1 / (Math.min(1, Math.max(0, smooth)) * (1 - 1 / scaling.factor) + 1 / scaling.factor);
    return !(Math.abs(divisor - expected) <= 1e-3 * expected);
  });
  if (wrong >= 0 || divisors.length !== dim / 2)
    throw new ConfigError(
      `${file.path}: the divisors of ${ROPE_FACTORS} (number ${wrong}: ${describe(divisors[wrong])}) are not those of Llama 3's rope scaling with factor ${scaling.factor}, which is the only such form that is known. Load the model from a folder with config.json and safetensors.`,
    );
  return scaling;
}

/** The shortest decimal that gives the same 32-bit float: 1e-5 for the 9.999999747378752e-6 that the file holds. */
function decimal(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}
