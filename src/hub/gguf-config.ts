/** The config of a model from the metadata of its GGUF file, in the words of its config.json. */
import { ConfigError } from "../errors.js";
import { ConfigFields } from "./config.js";
import type { GgufFile, GgufValue } from "./gguf.js";
import { COUNT_KEYS, GGUF_FORMS, type GgufForm } from "./gguf-forms.js";
import { decimal, ggufRope } from "./gguf-rope.js";
import type { Json, JsonObject } from "./json.js";

/** How GPTBigCode's activation is kept, which llama.cpp always takes for GELU's approximation by tanh: a key of our own. */
export const ACTIVATION_KEY = "tunebook.activation_function";

/**
 * What config.json would say. Fields that the file leaves out are left out here.
 *
 * @throws ConfigError for an architecture that is not known, a missing count, or what such a config cannot say.
 */
export async function ggufConfig(file: GgufFile): Promise<ConfigFields> {
  const meta = new ConfigFields(metadataFields(file.metadata), `the metadata of ${file.path}`);
  const form = formFor(file, meta);
  const key = (name: string): string => `${form.architecture}.${name}`;
  refuseParts(file, meta, form.architecture);
  const size = (name: string, otherwise?: number): number =>
    meta.integer(key(name), { min: 1, ...(otherwise !== undefined && { default: otherwise }) });
  const hidden = size(COUNT_KEYS.hiddenSize);
  const heads = size(COUNT_KEYS.heads);
  const kvHeads = size(COUNT_KEYS.kvHeads, heads);
  const headDim = size(COUNT_KEYS.headDim, hidden / heads);
  const counts = {
    layers: size(COUNT_KEYS.layers),
    maxPositions: size(COUNT_KEYS.maxPositions),
    hiddenSize: hidden,
    intermediateSize: size(COUNT_KEYS.intermediateSize),
    heads,
    kvHeads,
    headDim,
  };
  checkCounts(file, meta, form, counts.layers, heads * headDim, kvHeads * headDim);
  const same = (name: string, wanted: number): void => {
    if (meta.integer(key(name), { default: wanted }) !== wanted) throw meta.wrong(key(name), `${wanted}`);
  };
  same("attention.value_length", headDim);
  if (form.turned > 0) same("rope.dimension_count", headDim * form.turned);
  if (form.counts.headDim === undefined) same(COUNT_KEYS.headDim, hidden / heads);
  const [epsKey, epsField] = form.eps;
  const fields: JsonObject = { model_type: form.modelType, [form.vocab]: file.entry("token_embd.weight").shape[0]! };
  for (const [count, field] of Object.entries(form.counts)) fields[field] = counts[count as keyof typeof counts];
  fields[epsField] = decimal(meta.number(key(epsKey)));
  fields.tie_word_embeddings = !file.has("output.weight");
  const turned = (): Promise<JsonObject> => ggufRope(file, meta, form.architecture, headDim * form.turned);
  Object.assign(fields, await OWN[form.modelType]!(file, meta, turned), tokenIds(meta));
  return new ConfigFields(fields, meta.where);
}

type Own = (file: GgufFile, meta: ConfigFields, turned: () => Promise<JsonObject>) => Promise<JsonObject>;

/** What is an architecture's own, by model_type; `turned` reads the rotary positions. */
const OWN: Readonly<Record<string, Own>> = {
  llama: async (file, _, turned) => ({
    attention_bias: file.has("blk.0.attn_q.bias"),
    mlp_bias: file.has("blk.0.ffn_up.bias"),
    hidden_act: "silu",
    ...(await turned()),
  }),
  mistral: async (_, meta, turned) => ({ sliding_window: meta.integer(WINDOW_KEY), ...(await turned()) }),
  qwen2: (_, __, turned) => turned(),
  qwen3: async (file, _, turned) => ({ attention_bias: file.has("blk.0.attn_q.bias"), ...(await turned()) }),
  gemma: async (file, _, turned) => ({
    attention_bias: file.has("blk.0.attn_q.bias"),
    hidden_act: "gelu_pytorch_tanh",
    ...(await turned()),
  }),
  gpt_bigcode: async (_, meta) => {
    const groups = `starcoder.${COUNT_KEYS.kvHeads}`;
    if (meta.integer(groups) !== 1) throw meta.wrong(groups, "1: all heads share one of keys and values");
    const activation = meta.string(ACTIVATION_KEY, { default: "gelu_pytorch_tanh" });
    return { multi_query: true, activation_function: activation };
  },
  chatglm: async (file, meta, turned) => {
    const { rope_theta, rope_scaling } = await turned();
    if (rope_scaling !== undefined) throw meta.wrong("chatglm.rope.scaling.type", '"none"');
    return {
      rope_ratio: (rope_theta as number) / 10000,
      multi_query_attention: true,
      add_qkv_bias: file.has("blk.0.attn_qkv.bias") || file.has("blk.0.attn_q.bias"),
    };
  },
};

/** A window over the keys of Llama makes it Mistral. */
export const WINDOW_KEY = "llama.attention.sliding_window";

function formFor(file: GgufFile, meta: ConfigFields): GgufForm {
  const arch = meta.string("general.architecture");
  const known = GGUF_FORMS.filter(({ architecture }) => architecture === arch);
  if (known.length === 0) {
    const names = [...new Set(GGUF_FORMS.map(({ architecture }) => `"${architecture}"`))];
    const images =
      arch === "qwen2vl" || arch === "clip"
        ? `: ${arch === "clip" ? "the eyes of a model that sees (an mmproj file)" : "Qwen2-VL without its eyes, which llama.cpp keeps in an mmproj file"}. Such pairs are not read; load the model from its folder with config.json and safetensors, or by its name on the hub`
        : `, expected ${names.slice(0, -1).join(", ")} or ${names.at(-1)}. Other architectures are loaded from a folder with config.json and safetensors`;
    throw new ConfigError(`${file.path}: general.architecture is "${arch}"${images}.`);
  }
  const windowed = arch === "llama" && meta.integer(WINDOW_KEY, { default: 0, min: 0 }) > 0;
  return known.find(({ modelType }) => (modelType === "mistral") === windowed)!;
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
function checkCounts(
  file: GgufFile,
  meta: ConfigFields,
  form: GgufForm,
  layers: number,
  queries: number,
  keys: number,
): void {
  const fused = Object.hasOwn(form.inBlock, "attn_qkv") && file.has("blk.0.attn_qkv.weight");
  const part = fused ? "attn_qkv" : "attn_q";
  const pattern = new RegExp(`^blk\\.\\d+\\.${part}\\.weight$`);
  const blocks = file.names().filter((name) => pattern.test(name)).length;
  if (blocks !== layers)
    throw meta.wrong(
      `${form.architecture}.${COUNT_KEYS.layers}`,
      `${blocks}, the number of blk.*.${part}.weight in the file`,
    );
  const rows = file.entry(`blk.0.${part}.weight`).shape[0];
  const wanted = fused ? queries + 2 * keys : queries;
  if (rows !== wanted)
    throw meta.wrong(
      `${form.architecture}.${COUNT_KEYS.heads}`,
      `heads that share the ${rows} rows of ${fused ? "Q, K and V" : "Q"}`,
    );
}

function tokenIds(meta: ConfigFields): JsonObject {
  const id = (name: string) =>
    meta.has(`tokenizer.ggml.${name}`) ? meta.integer(`tokenizer.ggml.${name}`, { min: 0 }) : undefined;
  const ids: JsonObject = {};
  // A chat's turn may end with another token than a text, and a message to a tool with a third.
  const ends = ["eos_token_id", "eot_token_id", "eom_token_id"].map(id).filter((end) => end !== undefined);
  if (ends.length > 0) ids.eos_token_id = [...new Set(ends)];
  const bos = id("bos_token_id");
  if (bos !== undefined) ids.bos_token_id = bos;
  const pad = id("padding_token_id");
  if (pad !== undefined) ids.pad_token_id = pad;
  return ids;
}
