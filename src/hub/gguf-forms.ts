/**
 * How each architecture stands in a GGUF file: names of its tensors and keys, and what the file holds otherwise than a checkpoint does.
 * Facts of gguf-py's constants.py and tensor_mapping.py and of llama.cpp's convert_hf_to_gguf.py; one table an architecture.
 */

/** Sizes that every architecture has, with their keys behind the architecture's name. */
export const COUNT_KEYS = {
  layers: "block_count",
  maxPositions: "context_length",
  hiddenSize: "embedding_length",
  intermediateSize: "feed_forward_length",
  heads: "attention.head_count",
  kvHeads: "attention.head_count_kv",
  headDim: "attention.key_length",
} as const;

/** A size by the name that a model's config has it under. */
export type Count = keyof typeof COUNT_KEYS;

/** One architecture as a file holds it. */
export interface GgufForm {
  /** general.architecture, which all its keys begin with. */
  readonly architecture: string;
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** Fields of config.json that hold the sizes; what is missing follows from others. */
  readonly counts: Readonly<Partial<Record<Count, string>>>;
  /** The field of config.json that says how many rows the table has. */
  readonly vocab: string;
  /** The key of what norms add to the variance, and its field in config.json. */
  readonly eps: readonly [key: string, field: string];
  /** Share of a head's dimensions that positions turn; 0: positions are learned. */
  readonly turned: number;
  /** Whether llama.cpp turns neighbouring pairs where the checkpoint turns halves: rows of Q and K stand in another order. */
  readonly paired: boolean;
  /** What the file's norms hold more than the checkpoint's. */
  readonly normOffset: number;
  /** Tensors outside of blocks and the modules that they belong to. */
  readonly whole: Readonly<Record<string, string>>;
  /** The list of blocks, and the parts of one. */
  readonly blocks: string;
  readonly inBlock: Readonly<Record<string, string>>;
  /** Parts that some converters write as several tensors, whose rows follow one another. */
  readonly joined?: Readonly<Record<string, readonly string[]>>;
}

const LLAMA: GgufForm = {
  architecture: "llama",
  modelType: "llama",
  counts: {
    layers: "num_hidden_layers",
    maxPositions: "max_position_embeddings",
    hiddenSize: "hidden_size",
    intermediateSize: "intermediate_size",
    heads: "num_attention_heads",
    kvHeads: "num_key_value_heads",
    headDim: "head_dim",
  },
  vocab: "vocab_size",
  eps: ["attention.layer_norm_rms_epsilon", "rms_norm_eps"],
  turned: 1,
  paired: true,
  normOffset: 0,
  whole: { token_embd: "model.embed_tokens", output_norm: "model.norm", output: "lm_head" },
  blocks: "model.layers",
  inBlock: {
    attn_norm: "input_layernorm",
    attn_q: "self_attn.q_proj",
    attn_k: "self_attn.k_proj",
    attn_v: "self_attn.v_proj",
    attn_output: "self_attn.o_proj",
    ffn_norm: "post_attention_layernorm",
    ffn_gate: "mlp.gate_proj",
    ffn_up: "mlp.up_proj",
    ffn_down: "mlp.down_proj",
  },
};

// llama.cpp knows Mistral as Llama, and does not look at its window.
const MISTRAL: GgufForm = { ...LLAMA, modelType: "mistral" };

// From here on llama.cpp turns halves as the checkpoints do.
const { headDim: _, ...sharedWidth } = LLAMA.counts;
const QWEN2: GgufForm = {
  ...LLAMA,
  architecture: "qwen2",
  modelType: "qwen2",
  counts: sharedWidth,
  paired: false,
};

const QWEN3: GgufForm = {
  ...LLAMA,
  architecture: "qwen3",
  modelType: "qwen3",
  paired: false,
  inBlock: { ...LLAMA.inBlock, attn_q_norm: "self_attn.q_norm", attn_k_norm: "self_attn.k_norm" },
};

// Its norms multiply by 1 + weight, and the file holds that sum.
const GEMMA: GgufForm = { ...LLAMA, architecture: "gemma", modelType: "gemma", paired: false, normOffset: 1 };

const STARCODER: GgufForm = {
  architecture: "starcoder",
  modelType: "gpt_bigcode",
  counts: {
    layers: "n_layer",
    maxPositions: "n_positions",
    hiddenSize: "n_embd",
    intermediateSize: "n_inner",
    heads: "n_head",
  },
  vocab: "vocab_size",
  eps: ["attention.layer_norm_epsilon", "layer_norm_epsilon"],
  turned: 0,
  paired: false,
  normOffset: 0,
  whole: {
    token_embd: "transformer.wte",
    position_embd: "transformer.wpe",
    output_norm: "transformer.ln_f",
    output: "lm_head",
  },
  blocks: "transformer.h",
  inBlock: {
    attn_norm: "ln_1",
    attn_qkv: "attn.c_attn",
    attn_output: "attn.c_proj",
    ffn_norm: "ln_2",
    ffn_up: "mlp.c_fc",
    ffn_down: "mlp.c_proj",
  },
};

const CHATGLM: GgufForm = {
  architecture: "chatglm",
  modelType: "chatglm",
  counts: {
    layers: "num_layers",
    maxPositions: "seq_length",
    hiddenSize: "hidden_size",
    intermediateSize: "ffn_hidden_size",
    heads: "num_attention_heads",
    kvHeads: "multi_query_group_num",
    headDim: "kv_channels",
  },
  vocab: "padded_vocab_size",
  eps: ["attention.layer_norm_rms_epsilon", "layernorm_epsilon"],
  turned: 0.5,
  paired: false, // the checkpoint turns neighbouring pairs itself
  normOffset: 0,
  whole: {
    token_embd: "transformer.embedding.word_embeddings",
    output_norm: "transformer.encoder.final_layernorm",
    output: "transformer.output_layer",
  },
  blocks: "transformer.encoder.layers",
  inBlock: {
    attn_norm: "input_layernorm",
    attn_qkv: "self_attention.query_key_value",
    attn_output: "self_attention.dense",
    ffn_norm: "post_attention_layernorm",
    ffn_up: "mlp.dense_h_to_4h",
    ffn_down: "mlp.dense_4h_to_h",
  },
  joined: { attn_qkv: ["attn_q", "attn_k", "attn_v"] },
};

/** Every form that is read and written. */
export const GGUF_FORMS: readonly GgufForm[] = [LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, STARCODER, CHATGLM];

/** The form of a `model_type`, or undefined. */
export function formOf(modelType: string): GgufForm | undefined {
  return GGUF_FORMS.find((form) => form.modelType === modelType);
}

/** The checkpoint's name of a tensor; a name that is not known stays as it is. */
export function checkpointName(form: GgufForm, name: string): string {
  const match = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(name);
  if (match === null) return name;
  const [, block, part, kind] = match as unknown as [string, string | undefined, string, string];
  const names = block === undefined ? form.whole : form.inBlock;
  if (!Object.hasOwn(names, part)) return name;
  return `${block === undefined ? "" : `${form.blocks}.${block}.`}${names[part]}.${kind}`;
}

/** The name of a checkpoint's tensor in a GGUF file, or undefined where there is none. */
export function ggufName(form: GgufForm, name: string): string | undefined {
  const inside = name.startsWith(`${form.blocks}.`);
  const rest = inside ? name.slice(form.blocks.length + 1) : name;
  const match = /^(?:(\d+)\.)?(.+)\.(weight|bias)$/.exec(rest);
  if (match === null) return undefined;
  const [, block, part, kind] = match as unknown as [string, string | undefined, string, string];
  if (inside !== (block !== undefined)) return undefined;
  const found = Object.entries(inside ? form.inBlock : form.whole).find(([, module]) => module === part);
  return found && `${inside ? `blk.${block}.` : ""}${found[0]}.${kind}`;
}
