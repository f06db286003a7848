/** The texts, the tokenizer and the shape of the small ChatGLM: everything that its training starts from. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../prepare.js";
import { plain, type Row } from "../world.js";
import { lessonRows } from "./lessons.js";
import { modelFile, trainPieces } from "./pieces.js";

/** Sizes and seeds; another value of any of these makes another model. */
export const recipe = {
  seed: 31,
  characters: 2_000_000,
  /** Pieces of the tokenizer; the commands stand behind them. */
  pieces: 759,
  vocabulary: 768,
  context: 256,
  steps: 5000,
  batch: 16,
  lr: 2e-3,
} as const;

/** Rows to train on, and rows of another seed that measure what was learned. */
export function corpus(): { train: Row[]; validation: Row[] } {
  const file = readFileSync(join(root, "notebooks/data/instructions.jsonl"), "utf8");
  const taken = new Set(file.trim().split("\n").map((line) => (JSON.parse(line) as { input: string }).input)); // biome-ignore format: one thought
  const train = lessonRows(recipe.seed, recipe.characters, taken);
  const known = new Set(train.map(plain));
  const validation = lessonRows(recipe.seed + 1, recipe.characters / 50, taken).filter((row) => !known.has(plain(row)));
  return { train, validation };
}

/** Everything but the weights, by file name. */
export function files(rows: readonly Row[]): Record<string, string | Uint8Array> {
  const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
  return {
    "config.json": json(config),
    "tokenizer.model": modelFile(trainPieces(rows.map(plain), recipe.pieces)),
    "tokenizer_config.json": json({ tokenizer_class: "ChatGLMTokenizer", model_max_length: recipe.context }),
  };
}

/** config.json: the fields of ChatGLM3-6B's, small. */
export const config: Readonly<Record<string, unknown>> = {
  architectures: ["ChatGLMModel"],
  model_type: "chatglm",
  add_bias_linear: false,
  add_qkv_bias: true,
  apply_residual_connection_post_layernorm: false,
  attention_dropout: 0,
  hidden_dropout: 0,
  ffn_hidden_size: 256,
  hidden_size: 96,
  kv_channels: 32,
  layernorm_epsilon: 1e-5,
  multi_query_attention: true,
  multi_query_group_num: 2,
  num_attention_heads: 4,
  num_layers: 3,
  original_rope: true,
  padded_vocab_size: recipe.vocabulary,
  post_layer_norm: true,
  rmsnorm: true,
  seq_length: recipe.context,
  tie_word_embeddings: false,
  torch_dtype: "float16",
  eos_token_id: 2,
  pad_token_id: 0,
};
