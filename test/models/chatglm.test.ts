import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigFields } from "../../src/hub/config.js";
import { loadModel } from "../../src/index.js";
import { chatglmConfig } from "../../src/models/chatglm.js";
import { goldenPath } from "../golden.js";
import { checkArchitecture } from "./architecture.js";

checkArchitecture("chatglm");
checkArchitecture("chatglm-ratio");

test("chatglm: names and shapes are those of the published checkpoints", async () => {
  using model = await loadModel(goldenPath("chatglm"), { weights: "none" });
  const shapes = new Map(model.parameters().map((p) => [p.name, p.shape.join()]));
  const layer = "transformer.encoder.layers.1";
  assert.equal(shapes.get("transformer.embedding.word_embeddings.weight"), "67,32");
  assert.equal(shapes.get(`${layer}.self_attention.query_key_value.weight`), `${4 * 16 + 2 * 2 * 16},32`);
  assert.equal(shapes.get(`${layer}.self_attention.query_key_value.bias`), "128");
  assert.equal(shapes.get(`${layer}.mlp.dense_h_to_4h.weight`), "96,32");
  assert.equal(shapes.get("transformer.encoder.final_layernorm.weight"), "32");
  assert.equal(shapes.get("transformer.output_layer.weight"), "67,32");
  assert.ok(!shapes.has(`${layer}.self_attention.dense.bias`));
});

test("chatglm: what is another architecture is refused by name", () => {
  const read = (fields: object) =>
    chatglmConfig(new ConfigFields({ multi_query_attention: true, ...fields }, "the config"));
  assert.equal(read({}).ropeTheta, 10000);
  assert.equal(read({ rope_ratio: 500 }).ropeTheta, 5_000_000);
  assert.equal(read({ seq_length: 8192 }).maxPositions, 8192);
  assert.throws(() => read({ position_encoding_2d: true }), /first ChatGLM, another architecture/);
  assert.throws(() => read({ rmsnorm: false }), /"rmsnorm" is false.*expected true/);
  assert.throws(() => read({ multi_query_attention: false }), /multi_query_attention/);
  assert.throws(() => read({ multi_query_group_num: 3 }), /divisor of num_attention_heads, 32/);
  assert.throws(() => read({ pre_seq_len: 128 }), /prefix tuning/);
});
