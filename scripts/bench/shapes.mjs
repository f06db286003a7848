// The model that everything is measured with, and a stand-in.

/** The shape of SmolLM2-135M; "smoke" is small and only shows that the harness works. */
export const SHAPES = {
  "SmolLM2-135M": {
    vocab_size: 49152,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    head_dim: 64,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    hidden_act: "silu",
    rope_theta: 10000,
    bos_token_id: 1,
    eos_token_id: 2,
  },
  smoke: {
    vocab_size: 2048,
    hidden_size: 128,
    intermediate_size: 256,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 32,
    max_position_embeddings: 1024,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    hidden_act: "silu",
    rope_theta: 10000,
    bos_token_id: 1,
    eos_token_id: 2,
  },
};

/** [outputs, inputs] of the linear layers of one block. */
export function blockMatrices(shape) {
  const { hidden_size: d, intermediate_size: f, num_attention_heads: heads, num_key_value_heads: kv } = shape;
  const head = shape.head_dim;
  return [
    [heads * head, d],
    [kv * head, d],
    [kv * head, d],
    [d, heads * head],
    [f, d],
    [f, d],
    [d, f],
  ];
}

/** Parameters of the linear layers of all blocks. */
export function blockParameters(shape) {
  return shape.num_hidden_layers * blockMatrices(shape).reduce((n, [outputs, inputs]) => n + outputs * inputs, 0);
}

/**
 * Floating-point operations of one LoRA step: the frozen matrices forward and for the inputs' gradients, the adapters also for their own, attention over
 * half of the T x T pairs. What a framework recomputes is not counted.
 */
export function loraFlops(shape, { batch, length, rank }) {
  const tokens = batch * length;
  const blocks = shape.num_hidden_layers;
  const frozen = shape.vocab_size * shape.hidden_size + blockParameters(shape);
  const adapters = blocks * rank * blockMatrices(shape).reduce((n, [outputs, inputs]) => n + outputs + inputs, 0);
  const pairs = (batch * length * (length + 1)) / 2;
  // Scores and their sums forward; backward the scores again and four products more.
  const attention = blocks * 2 * (2 + 5) * pairs * shape.num_attention_heads * shape.head_dim;
  return 4 * frozen * tokens + 6 * adapters * tokens + attention;
}
