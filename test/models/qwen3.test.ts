import assert from "node:assert/strict";
import { test } from "node:test";
import { loadModel } from "../../src/index.js";
import { goldenPath } from "../golden.js";
import { checkArchitecture } from "./architecture.js";

checkArchitecture("qwen3");

test("qwen3: heads have norms and a width of their own, and no biases", async () => {
  using model = await loadModel(goldenPath("qwen3"), { weights: "none" });
  assert.equal(model.config.headDim, 12);
  const shapes = new Map(model.parameters().map((p) => [p.name, p.shape.join()]));
  assert.equal(shapes.get("model.layers.1.self_attn.k_norm.weight"), "12");
  assert.equal(shapes.get("model.layers.1.self_attn.o_proj.weight"), "32,48");
  assert.ok(![...shapes.keys()].some((n) => n.endsWith(".bias")));
});
