import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigFields } from "../../src/hub/config.js";
import { loadModel } from "../../src/index.js";
import { qwen2Config } from "../../src/models/qwen2.js";
import { goldenPath } from "../golden.js";
import { checkArchitecture } from "./architecture.js";

checkArchitecture("qwen2");
checkArchitecture("qwen2-window");

test("qwen2: biases stand on queries, keys and values alone; a tied head has no weight of its own", async () => {
  using model = await loadModel(goldenPath("qwen2"), { weights: "none" });
  const names = model.parameters().map((p) => p.name);
  const biases = names.filter((n) => n.endsWith(".bias")).map((n) => n.split(".").at(-2)!);
  assert.deepEqual([...new Set(biases)].sort(), ["k_proj", "q_proj", "v_proj"]);
  assert.ok(!names.includes("lm_head.weight"));
});

test("qwen2: the window is off by default, and on from max_window_layers on if it is asked for", () => {
  const read = (fields: object) => qwen2Config(new ConfigFields({ num_hidden_layers: 4, ...fields }, "the config"));
  assert.deepEqual(read({ sliding_window: 32768, max_window_layers: 2 }).windows, [0, 0, 0, 0]);
  assert.deepEqual(read({ use_sliding_window: true, sliding_window: 8, max_window_layers: 2 }).windows, [0, 0, 8, 8]);
  assert.deepEqual(read({ use_sliding_window: true, max_window_layers: 3 }).windows, [0, 0, 0, 4096]);
  assert.deepEqual(
    read({ use_sliding_window: true, sliding_window: null, max_window_layers: 0 }).windows,
    [0, 0, 0, 0],
  );
  const types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"];
  assert.deepEqual(read({ use_sliding_window: true, sliding_window: 8, layer_types: types }).windows, [0, 8, 0, 8]);
  assert.throws(() => read({ layer_types: types }), /"sliding_window" is missing.*expected a number of keys/);
  assert.throws(() => read({ layer_types: ["full_attention"] }), /expected an array of 4/);
  assert.throws(() => read({ num_attention_heads: 30 }), /"hidden_size".*multiple of num_attention_heads, 30/);
});
