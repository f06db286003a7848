/** A model as one GGUF file, llama.cpp's format: the inverse of gguf-config.ts, gguf-weights.ts and gguf-tokenizer.ts. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, ConfigError } from "../errors.js";
import { GgufFile } from "../hub/gguf.js";
import { ggufConfig } from "../hub/gguf-config.js";
import { packBlocks, WRITTEN_BLOCKS } from "../hub/gguf-quantize.js";
import { tokenizerFields } from "../hub/gguf-tokenizer-write.js";
import { GgufWeights, ggufName, pairRowOrder } from "../hub/gguf-weights.js";
import { type GgufField, type GgufTensor, writeGguf } from "../hub/gguf-write.js";
import { unsafeName } from "../hub/path.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalLM } from "./causal.js";
import { valuesOf } from "./export.js";
import type { GgufDType } from "./export-options.js";
import { LlamaForCausalLM } from "./llama.js";
import { checkpointTargets, type Target } from "./load.js";
import { inverseFrequencies, type RopeConfig } from "./rope.js";

/** llama.cpp's number of a file's type (general.file_type). */
const FILE_TYPE: Readonly<Record<GgufDType, number>> = { F32: 0, F16: 1, BF16: 32, Q8_0: 7, Q4_0: 2, Q4_K_M: 15 };

/** How far a tensor that was read back may be from the weights, as a quotient of root mean squares: rounding and no more. */
const ROUNDING: Readonly<Record<string, number>> = {
  F32: 0,
  F16: 1e-3,
  BF16: 4e-3,
  Q8_0: 1.5e-2,
  Q6_K: 4e-2,
  Q5_0: 8e-2,
  Q4_0: 0.16,
  Q4_K: 0.16,
};
// Halves cannot hold more, nor can the scales of blocks.
const LARGEST_HALF = 65504;

/** What the file says beside the weights. */
export interface GgufParts {
  readonly name: string;
  /** An error stands for none. */
  readonly tokenizer: Tokenizer | Error | undefined;
  /** Where generation ends, when there is no tokenizer to say so. */
  readonly eosIds: readonly number[];
}

/**
 * Writes a model into one file of a folder, tensor by tensor, and reads it back: config and every tensor are compared with the model in memory.
 * Rows that are no whole blocks of a type are written in the next better one (Q4_K: Q5_0; Q6_K: Q8_0; then F16).
 *
 * @returns the file's path.
 * @throws ConfigError for an architecture or a rope scaling that cannot be written; CheckpointError for a weight that holds NaN or infinity or is beyond
 * what the type holds: nothing is left under the final name then; or when the file that was read back is another model's.
 */
export async function exportGguf(model: CausalLM, folder: string, dtype: GgufDType, parts: GgufParts): Promise<string> {
  if (!(model instanceof LlamaForCausalLM))
    throw new ConfigError(
      `export: models of the type "${model.config.modelType}" are not written to GGUF files, "llama" is. Export as "safetensors", and let llama.cpp's convert_hf_to_gguf.py make the file.`,
    );
  await mkdir(folder, { recursive: true });
  const metadata = metadataOf(model, dtype, parts);
  const tensors: GgufTensor[] = [];
  const divisors = ropeDivisors(model.config.rope);
  if (divisors !== undefined) {
    const data = async (): Promise<Uint8Array> => packBlocks("F32", divisors);
    tensors.push({ name: "rope_freqs.weight", dtype: "F32", shape: [divisors.length], data });
  }
  for (const [name, target] of checkpointTargets(model)) tensors.push(tensorOf(model, name, target, dtype));
  const stem = unsafeName(parts.name, true) === undefined ? parts.name : "model";
  const path = join(folder, `${stem}-${dtype}.gguf`);
  await writeGguf(path, metadata, tensors);
  await compareWithFile(model, path);
  return path;
}

function metadataOf(model: LlamaForCausalLM, dtype: GgufDType, parts: GgufParts): Map<string, GgufField> {
  const { config } = model;
  const fields = new Map<string, GgufField>();
  const count = (key: string, value: number): void => void fields.set(key, { kind: "uint32", value });
  const text = (key: string, value: string): void => void fields.set(key, { kind: "string", value });
  const float = (key: string, value: number): void => void fields.set(key, { kind: "float32", value });
  text("general.architecture", "llama");
  text("general.name", parts.name);
  count("general.file_type", FILE_TYPE[dtype]);
  count("general.quantization_version", 2);
  count("llama.block_count", config.layers);
  count("llama.context_length", config.maxPositions);
  count("llama.embedding_length", config.hiddenSize);
  count("llama.feed_forward_length", config.intermediateSize);
  count("llama.vocab_size", config.vocabSize);
  count("llama.attention.head_count", config.heads);
  count("llama.attention.head_count_kv", config.kvHeads);
  count("llama.attention.key_length", config.headDim);
  count("llama.attention.value_length", config.headDim);
  count("llama.rope.dimension_count", config.headDim);
  float("llama.attention.layer_norm_rms_epsilon", config.rmsNormEps);
  float("llama.rope.freq_base", config.rope.theta);
  const { scaling } = config.rope;
  if (scaling?.type === "linear") {
    text("llama.rope.scaling.type", "linear");
    float("llama.rope.scaling.factor", scaling.factor);
  } else if (
    scaling !== undefined &&
    (scaling.lowFreqFactor !== 1 || scaling.highFreqFactor !== 4 || scaling.originalMaxPositions !== 8192)
  )
    throw new ConfigError(
      'export: a rope scaling "llama3" with other numbers than the published models\' (1, 4, 8192) cannot be read back from a GGUF file. Export as "safetensors".',
    );
  const tokenizer = parts.tokenizer instanceof Error ? undefined : parts.tokenizer;
  if (tokenizer !== undefined)
    for (const [key, field] of tokenizerFields(tokenizer, config.vocabSize)) fields.set(key, field);
  // A chat's turn may end with another token than a text.
  const eos = tokenizer?.eosId ?? parts.eosIds[0];
  const turn = parts.eosIds.find((id) => id !== eos);
  if (eos !== undefined) count("tokenizer.ggml.eos_token_id", eos);
  if (turn !== undefined) count("tokenizer.ggml.eot_token_id", turn);
  return fields;
}

/** What each frequency is divided by, for Llama 3.1's scaling: such files hold this instead of the numbers it follows from. */
function ropeDivisors(rope: RopeConfig): Float32Array | undefined {
  if (rope.scaling?.type !== "llama3") return undefined;
  const scaled = inverseFrequencies(rope);
  return inverseFrequencies({ ...rope, scaling: undefined }).map((frequency, i) => frequency / scaled[i]!);
}

// Heads of a tensor whose rows llama.cpp holds in another order.
function rotatedHeads(model: LlamaForCausalLM, name: string): number | undefined {
  const part = /\.([qk])_proj\.(weight|bias)$/.exec(name)?.[1];
  return part === undefined ? undefined : part === "q" ? model.config.heads : model.config.kvHeads;
}

function tensorOf(model: LlamaForCausalLM, name: string, target: Target, dtype: GgufDType): GgufTensor {
  const named = ggufName(name);
  if (named === undefined)
    throw new ConfigError(`export: ${name} has no place in a GGUF file; export as "safetensors".`);
  const type = tensorType(model, name, target.shape, dtype);
  const heads = rotatedHeads(model, name);
  const data = async (): Promise<Uint8Array> => {
    let values = await valuesOf(target);
    const limit = type === "F32" || type === "BF16" ? Number.MAX_VALUE : LARGEST_HALF;
    for (const v of values)
      if (!(Math.abs(v) <= limit))
        throw new CheckpointError(`export: ${name} holds ${v}, which ${type} cannot hold; it was not written.`);
    if (heads !== undefined) values = pairRowOrder(values, heads, target.shape[1] ?? 1);
    return packBlocks(type, values);
  };
  return { name: named, dtype: type, shape: target.shape, data };
}

/** The type of one tensor in a file of a type, as llama.cpp's quantiser chooses: vectors whole, the output layer and some others better. */
function tensorType(model: LlamaForCausalLM, name: string, shape: readonly number[], dtype: GgufDType): string {
  if (shape.length < 2) return "F32";
  const { layers, tied } = model.config;
  let type: string = dtype === "Q4_K_M" ? "Q4_K" : dtype;
  const output = name === "lm_head.weight" || (tied && name === "model.embed_tokens.weight");
  if (dtype === "Q4_0" || dtype === "Q4_K_M") {
    if (output) type = "Q6_K";
    else if (dtype === "Q4_K_M" && /\.(v_proj|down_proj)\./.test(name)) {
      const layer = Number(/layers\.(\d+)\./.exec(name)?.[1]);
      const eighth = Math.floor(layers / 8);
      // The first and the last eighth of the layers, and every third between.
      if (layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2) type = "Q6_K";
    }
  }
  const fits = (candidate: string): boolean => shape.at(-1)! % WRITTEN_BLOCKS[candidate]! === 0;
  if (!fits(type)) type = type === "Q4_K" ? "Q5_0" : type === "Q6_K" ? "Q8_0" : "F16";
  return fits(type) ? type : "F16";
}

/** Reads a file as `loadModel` does, tensor by tensor. @throws CheckpointError when it gives another model than the one in memory. */
async function compareWithFile(model: LlamaForCausalLM, path: string): Promise<void> {
  await using file = await GgufFile.open(path);
  const fields = await ggufConfig(file);
  const wrong = (what: string): CheckpointError =>
    new CheckpointError(`export: read back from ${path}, ${what}. Is the disk damaged? Export again, to another one.`);
  const { config } = model;
  const counts = {
    hidden_size: config.hiddenSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    intermediate_size: config.intermediateSize,
    vocab_size: config.vocabSize,
    tie_word_embeddings: config.tied,
  };
  for (const [key, value] of Object.entries(counts))
    if (fields.get(key) !== value) throw wrong(`${key} is ${fields.get(key)}, not ${value}`);
  const source = new GgufWeights(file, fields);
  const targets = checkpointTargets(model);
  for (const [name, target] of targets) {
    if (!source.has(name)) throw wrong(`${name} is missing`);
    const [found, wanted] = [await source.readFloat32(name), await valuesOf(target)];
    let [error, size] = [0, 0];
    for (let i = 0; i < wanted.length; i++) {
      error += (found[i]! - wanted[i]!) ** 2;
      size += wanted[i]! ** 2;
    }
    const { dtype } = source.entry(name);
    if (!(Math.sqrt(error) <= ROUNDING[dtype]! * Math.sqrt(size)))
      throw wrong(`${name} differs by ${(Math.sqrt(error / size) * 100).toFixed(2)} %, more than ${dtype} rounds`);
  }
  if (source.names().length !== targets.size) throw wrong("there are other tensors too");
}
