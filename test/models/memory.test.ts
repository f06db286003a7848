// Memory of a step of each architecture is what `estimate` predicts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { loadModel } from "../../src/index.js";
import { measuredPeak } from "../training/peak.js";

const common = {
  vocab_size: 400,
  hidden_size: 128,
  intermediate_size: 320,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
};
const starcoder = { vocab_size: 400, n_embd: 128, n_layer: 4, n_head: 8, n_positions: 256 };
const CONFIGS: Record<string, object> = {
  mistral: { ...common, sliding_window: 48 },
  qwen2: { ...common, tie_word_embeddings: true },
  qwen3: { ...common, head_dim: 24 },
  "qwen2_vl for text": {
    ...common,
    rope_scaling: { type: "mrope", mrope_section: [2, 3, 3] },
    vision_config: { depth: 1, embed_dim: 32, num_heads: 2, hidden_size: 128, patch_size: 4 },
  },
  gemma: { ...common, head_dim: 32, num_key_value_heads: 1 },
  gpt_bigcode: starcoder,
  "gpt_bigcode with a head of keys each": {
    ...starcoder,
    multi_query: false,
    embd_pdrop: 0,
    resid_pdrop: 0,
    attn_pdrop: 0,
  },
  chatglm: {
    padded_vocab_size: 400,
    hidden_size: 128,
    ffn_hidden_size: 320,
    num_layers: 4,
    num_attention_heads: 8,
    kv_channels: 16,
    multi_query_attention: true,
    multi_query_group_num: 2,
    add_qkv_bias: true,
    seq_length: 256,
  },
};

for (const [name, config] of Object.entries(CONFIGS)) {
  test(`${name}: a step takes what was predicted`, async () => {
    const model_type = name.split(" ")[0];
    const load = loadModel({ model_type, ...config }, { device: "cpu", weights: "random", progress: false });
    using model = await load.quantize({ type: "nf4", doubleQuant: true }).addLora({ rank: 8, target: "all-linear" });
    const peaks: number[] = [];
    for (const checkpointing of ["none", "selective", "full"] as const) {
      const options = { batch: 4, length: 160, checkpointing };
      const { peak } = model.estimate(options);
      const real = await measuredPeak(model, options);
      assert.ok(Math.abs(peak / real - 1) < 0.1, `${checkpointing}: ${peak} predicted, ${real} measured`);
      peaks.push(real);
    }
    const [none, selective, full] = peaks as [number, number, number];
    assert.ok(selective < 0.9 * none && full < 0.9 * selective, `${peaks}`);
  });
}
