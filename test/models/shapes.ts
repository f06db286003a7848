/** The shapes of published models: the fields of their config.json that say how large they are. */
export interface Shape {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  /** Parameters of the model. */
  readonly total: number;
}

/** Meta-Llama-3-8B. */
export const LLAMA3_8B = {
  model_type: "llama",
  vocab_size: 128256,
  hidden_size: 4096,
  intermediate_size: 14336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  tie_word_embeddings: false,
} as const;

/** SmolLM2-135M, as far as its memory goes. */
export const SMOLLM2_135M = {
  model_type: "llama",
  vocab_size: 49152,
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  max_position_embeddings: 2048,
  tie_word_embeddings: true,
} as const;

export const SHAPES: readonly Shape[] = [
  {
    name: "Llama-2-7B",
    total: 6_738_415_616,
    config: {
      model_type: "llama",
      vocab_size: 32000,
      hidden_size: 4096,
      intermediate_size: 11008,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      num_key_value_heads: 32,
      max_position_embeddings: 4096,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: false,
    },
  },
  {
    name: "Llama-3-8B",
    total: 8_030_261_248,
    config: LLAMA3_8B,
  },
  {
    name: "Mistral-7B-v0.1",
    total: 7_241_732_096,
    config: {
      model_type: "mistral",
      vocab_size: 32000,
      hidden_size: 4096,
      intermediate_size: 14336,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      max_position_embeddings: 32768,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      sliding_window: 4096,
      tie_word_embeddings: false,
    },
  },
  {
    name: "Qwen2-1.5B",
    total: 1_543_714_304,
    config: {
      model_type: "qwen2",
      vocab_size: 151936,
      hidden_size: 1536,
      intermediate_size: 8960,
      num_hidden_layers: 28,
      num_attention_heads: 12,
      num_key_value_heads: 2,
      max_position_embeddings: 32768,
      rms_norm_eps: 1e-6,
      rope_theta: 1000000,
      sliding_window: 32768,
      max_window_layers: 28,
      use_sliding_window: false,
      tie_word_embeddings: true,
    },
  },
  {
    name: "Qwen2-VL-2B",
    total: 2_208_985_600,
    config: {
      model_type: "qwen2_vl",
      vocab_size: 151936,
      hidden_size: 1536,
      intermediate_size: 8960,
      num_hidden_layers: 28,
      num_attention_heads: 12,
      num_key_value_heads: 2,
      max_position_embeddings: 32768,
      rms_norm_eps: 1e-6,
      rope_theta: 1000000,
      rope_scaling: { type: "mrope", mrope_section: [16, 24, 24] },
      tie_word_embeddings: true,
      vision_config: {
        depth: 32,
        embed_dim: 1280,
        mlp_ratio: 4,
        num_heads: 16,
        in_chans: 3,
        hidden_size: 1536,
        patch_size: 14,
      },
    },
  },
  {
    name: "ChatGLM3-6B",
    total: 6_243_584_000,
    config: {
      model_type: "chatglm",
      padded_vocab_size: 65024,
      hidden_size: 4096,
      ffn_hidden_size: 13696,
      num_layers: 28,
      num_attention_heads: 32,
      kv_channels: 128,
      multi_query_attention: true,
      multi_query_group_num: 2,
      seq_length: 8192,
      layernorm_epsilon: 1e-5,
      add_qkv_bias: true,
      add_bias_linear: false,
    },
  },
  {
    name: "StarCoder-15B",
    total: 15_517_456_384,
    config: {
      model_type: "gpt_bigcode",
      vocab_size: 49152,
      n_embd: 6144,
      n_inner: 24576,
      n_layer: 40,
      n_head: 48,
      n_positions: 8192,
      multi_query: true,
      activation_function: "gelu",
      layer_norm_epsilon: 1e-5,
      attn_pdrop: 0.1,
      embd_pdrop: 0.1,
      resid_pdrop: 0.1,
    },
  },
];
