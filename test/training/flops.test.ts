/** Floating-point operations of a step: every product of a small model that sees, counted one by one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type EstimateOptions, type LoraOptions, loadModel, type Model } from "../../src/index.js";

const [hidden, wide, layers, vocab] = [64, 160, 3, 300];
const [dim, depth, merged] = [32, 2, 4]; // mergeSize 2: four patches a token
const patch = 3 * 2 * 14 * 14;

const config = {
  model_type: "qwen2_vl",
  hidden_size: hidden,
  intermediate_size: wide,
  num_hidden_layers: layers,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: vocab,
  image_token_id: 290,
  tie_word_embeddings: true,
  rope_scaling: { type: "mrope", mrope_section: [2, 3, 3] },
  vision_config: { depth, embed_dim: dim, num_heads: 2, hidden_size: hidden, mlp_ratio: 3 },
};

const planned = async (lora?: LoraOptions): Promise<Model> => {
  const plan = loadModel(config, { weights: "none", dtype: "float32" });
  return lora ? plan.addLora(lora) : plan;
};
const step = { batch: 2, length: 40, accumulate: 3, device: "cpu", checkpointing: "none" } as const;
const flops = (model: Model, more: EstimateOptions = {}): number => model.estimate({ ...step, ...more }).flops;
const sequences = step.batch * step.accumulate;

// Elements of the matrices that a token of text meets, and those of the tower by the rows that a token of an image has of them.
const block = hidden * hidden + 2 * hidden * (hidden / 2) + hidden * hidden + 3 * hidden * wide;
const head = vocab * hidden;
const visionBlock = dim * 3 * dim + dim * dim + 2 * dim * 3 * dim;
const merger = (4 * dim) ** 2 + 4 * dim * hidden;
const pairs = (length: number): number => layers * hidden * length; // half of T x T, a multiplication and an addition

test("text alone costs nothing of the vision tower", async () => {
  using model = await planned({ rank: 2, target: ["q_proj"] });
  const adapter = layers * 2 * (hidden + hidden);
  const token = 4 * (layers * block + head) + 6 * adapter + 7 * pairs(step.length);
  assert.equal(flops(model), sequences * step.length * token);
});

test("images cost a forward pass of a frozen tower, whatever runs again", async () => {
  using model = await planned({ rank: 2, target: ["q_proj"] });
  const tower = (tokens: number): number =>
    2 * tokens * (merged * (patch * dim + depth * visionBlock) + merger) + 2 * 2 * depth * dim * (tokens * merged) ** 2;
  for (const checkpointing of ["none", "full"] as const) {
    const more = flops(model, { checkpointing, imageTokens: [12, 6] }) - flops(model, { checkpointing });
    assert.equal(more, sequences * (tower(12) + tower(6)));
  }
});

test("a tower that learns is gone through backwards, and its blocks again", async () => {
  using model = await planned();
  const elements = merged * (patch * dim + depth * visionBlock) + merger;
  const square = 2 * depth * dim * (8 * merged) ** 2;
  const more = (checkpointing: "none" | "full"): number =>
    flops(model, { checkpointing, imageTokens: [8] }) - flops(model, { checkpointing });
  assert.equal(more("none"), sequences * (6 * 8 * elements + 7 * square));
  assert.equal(more("full") - more("none"), sequences * (2 * 8 * merged * depth * visionBlock + 2 * square));
});
