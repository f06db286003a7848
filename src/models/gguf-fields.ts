/** What a GGUF file says of a model beside its weights: the inverse of gguf-config.ts. */
import { isDeepStrictEqual } from "node:util";
import { ConfigError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import { ACTIVATION_KEY, WINDOW_KEY } from "../hub/gguf-config.js";
import { COUNT_KEYS, type Count, formOf, GGUF_FORMS, type GgufForm } from "../hub/gguf-forms.js";
import { tokenizerFields } from "../hub/gguf-tokenizer-write.js";
import type { GgufField } from "../hub/gguf-write.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalConfig, CausalLM } from "./causal.js";
import { ChatGLMForConditionalGeneration } from "./chatglm.js";
import type { GgufDType } from "./export-options.js";
import { GemmaForCausalLM } from "./gemma.js";
import { GPTBigCodeForCausalLM } from "./gpt-bigcode.js";
import { MistralForCausalLM } from "./mistral.js";
import { Qwen2ForCausalLM } from "./qwen2.js";
import { Qwen3ForCausalLM } from "./qwen3.js";
import { createModel } from "./registry.js";
import { inverseFrequencies, type RopeConfig } from "./rope.js";

/** llama.cpp's number of a file's type (general.file_type). */
const FILE_TYPE: Readonly<Record<GgufDType, number>> = { F32: 0, F16: 1, BF16: 32, Q8_0: 7, Q4_0: 2, Q4_K_M: 15 };

/** What the file says beside the weights. */
export interface GgufParts {
  readonly name: string;
  /** An error stands for none. */
  readonly tokenizer: Tokenizer | Error | undefined;
  /** Where generation ends. */
  readonly eosIds: readonly number[];
}

/** The form of a model's architecture. @throws ConfigError when it has none, or the model has what llama.cpp has no place for. */
export function ggufForm(model: CausalLM): GgufForm {
  const form = formOf(model.config.modelType);
  const refused = (reason: string): ConfigError =>
    new ConfigError(`export: ${reason}. Export as "safetensors"; llama.cpp has no place for it.`);
  if (form === undefined) {
    const known = GGUF_FORMS.map(({ modelType }) => `"${modelType}"`).join(", ");
    const images = model.sight ? " Qwen2-VL's file for llama.cpp comes in two parts, which are not written." : "";
    throw new ConfigError(
      `export: models of the type "${model.config.modelType}" are not written to GGUF files, ${known} are.${images} Export as "safetensors", and let llama.cpp's convert_hf_to_gguf.py make the file.`,
    );
  }
  const scaling = ropeOf(model.config)?.scaling;
  if (scaling?.type === "llama3" && form.architecture !== "llama")
    throw refused(`a rope scaling "llama3" of the type "${form.modelType}" cannot be written to a GGUF file`);
  if ((model instanceof Qwen2ForCausalLM || model instanceof Qwen3ForCausalLM) && model.config.windows.some((w) => w))
    throw refused("a sliding window in some of the layers cannot be written to a GGUF file");
  if ((model instanceof Qwen3ForCausalLM || model instanceof GemmaForCausalLM) && model.config.attentionBias)
    throw refused(
      `the attention's biases (attention_bias) of the type "${form.modelType}" cannot be written to a GGUF file`,
    );
  if (model instanceof GemmaForCausalLM && !model.config.tied)
    throw refused("an output layer of Gemma's that is not its table cannot be written to a GGUF file");
  if (model instanceof ChatGLMForConditionalGeneration) {
    if (model.config.linearBias)
      throw refused("biases of all layers (add_bias_linear) cannot be written to a GGUF file");
    if (model.config.heads * model.config.headDim !== model.config.hiddenSize)
      throw refused("heads that are wider together than the model (kv_channels) cannot be written to a GGUF file");
  }
  if (model instanceof GPTBigCodeForCausalLM) {
    if (!model.config.multiQuery)
      throw refused("heads with keys of their own (multi_query: false) cannot be written to a GGUF file");
    if (model.config.scale === 1 && model.config.headDim > 1)
      throw refused("scores without a factor (scale_attn_weights: false) cannot be written to a GGUF file");
  }
  return form;
}

/** How a config says that positions turn queries and keys; undefined where they are learned. */
function ropeOf(config: CausalConfig): RopeConfig | undefined {
  if ("rope" in config) return config.rope as RopeConfig;
  if ("ropeTheta" in config) return { theta: config.ropeTheta as number, dim: config.headDim / 2 };
  return undefined;
}

/** All metadata of a model's file. @throws ConfigError for a rope scaling that cannot be written; TokenizerError */
export function metadataOf(
  model: CausalLM,
  form: GgufForm,
  dtype: GgufDType,
  parts: GgufParts,
): Map<string, GgufField> {
  const { config } = model;
  const fields = new Map<string, GgufField>();
  const count = (key: string, value: number): void => void fields.set(key, { kind: "uint32", value });
  const text = (key: string, value: string): void => void fields.set(key, { kind: "string", value });
  const float = (key: string, value: number): void => void fields.set(key, { kind: "float32", value });
  const own = (key: string): string => `${form.architecture}.${key}`;
  text("general.architecture", form.architecture);
  text("general.name", parts.name);
  count("general.file_type", FILE_TYPE[dtype]);
  count("general.quantization_version", 2);
  for (const [name, key] of Object.entries(COUNT_KEYS)) count(own(key), config[name as Count]);
  count(own("vocab_size"), config.vocabSize);
  count(own("attention.value_length"), config.headDim);
  float(own(form.eps[0]), epsOf(config));
  const rope = ropeOf(config);
  if (rope !== undefined) {
    count(own("rope.dimension_count"), rope.dim);
    float(own("rope.freq_base"), rope.theta);
    const { scaling } = rope;
    if (scaling?.type === "linear") {
      text(own("rope.scaling.type"), "linear");
      float(own("rope.scaling.factor"), scaling.factor);
    } else if (
      scaling !== undefined &&
      (scaling.lowFreqFactor !== 1 || scaling.highFreqFactor !== 4 || scaling.originalMaxPositions !== 8192)
    )
      throw new ConfigError(
        'export: a rope scaling "llama3" with other numbers than the published models\' (1, 4, 8192) cannot be read back from a GGUF file. Export as "safetensors".',
      );
  }
  if (model instanceof MistralForCausalLM && model.config.window > 0) count(WINDOW_KEY, model.config.window);
  if (model instanceof GPTBigCodeForCausalLM && model.config.activation === "gelu") text(ACTIVATION_KEY, "gelu");
  for (const [key, field] of tokens(model, parts)) fields.set(key, field);
  return fields;
}

function epsOf(config: CausalConfig): number {
  const { rmsNormEps, layerNormEps } = config as CausalConfig & { rmsNormEps?: number; layerNormEps?: number };
  return rmsNormEps ?? layerNormEps!;
}

/** The tokenizer, and where generation ends. */
function tokens({ config }: CausalLM, { tokenizer: given, eosIds }: GgufParts): Map<string, GgufField> {
  const tokenizer = given instanceof Error ? undefined : given;
  const fields: Map<string, GgufField> =
    tokenizer === undefined ? new Map() : tokenizerFields(tokenizer, config.vocabSize);
  // A chat's turn may end with another token than a text, and a message to a tool with a third.
  const eos = tokenizer?.eosId ?? eosIds[0];
  const others = eosIds.filter((id) => id !== eos);
  for (const [i, id] of [eos, ...others.slice(0, 2)].entries())
    if (id !== undefined)
      fields.set(`tokenizer.ggml.${["eos", "eot", "eom"][i]}_token_id`, { kind: "uint32", value: id });
  return fields;
}

/** What each frequency is divided by, for Llama 3.1's scaling: such files hold this instead of the numbers it follows from. */
export function ropeDivisors(config: CausalConfig): Float32Array | undefined {
  const rope = ropeOf(config);
  if (rope?.scaling?.type !== "llama3") return undefined;
  const scaled = inverseFrequencies(rope);
  return inverseFrequencies({ ...rope, scaling: undefined }).map((frequency, i) => frequency / scaled[i]!);
}

// What such a file has no place for, as it says nothing about what the model computes.
const UNSAID: ReadonlySet<string> = new Set(["modelType", "raw", "initializerRange", "dropout", "attentionDropout"]);

/** The name of what a config that was read back says otherwise than the model's; undefined when nothing. */
export function configDifference(config: CausalConfig, fields: ConfigFields): string | undefined {
  const again = createModel(fields).config as unknown as Record<string, unknown>;
  return Object.entries(config).find(
    ([name, value]) => !UNSAID.has(name) && !isDeepStrictEqual(essence(value), essence(again[name])),
  )?.[0];
}

// Numbers as 32 bits hold them; what is absent is nothing, as 0 and false are.
function essence(value: unknown): unknown {
  if (typeof value === "number") return Math.fround(value) || undefined;
  if (Array.isArray(value)) return value.map(essence);
  if (typeof value !== "object" || value === null) return value || undefined;
  const entries = Object.entries(value).map(([name, inner]) => [name, essence(inner)] as const);
  return Object.fromEntries(entries.filter(([, inner]) => inner !== undefined));
}
