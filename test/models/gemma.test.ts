import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigFields } from "../../src/hub/config.js";
import { loadModel } from "../../src/index.js";
import { gemmaConfig } from "../../src/models/gemma.js";
import { RMSNorm } from "../../src/nn/layers.js";
import { goldenPath } from "../golden.js";
import { checkArchitecture } from "./architecture.js";

checkArchitecture("gemma");

test("gemma: norms begin at weights of zero, which multiply by one", async () => {
  using model = await loadModel(goldenPath("gemma"), { weights: "random", seed: 1 });
  const norms = [...model.module.namedModules()].map(([, m]) => m).filter((m) => m instanceof RMSNorm);
  assert.equal(norms.length, 5);
  for (const norm of norms) {
    assert.equal(norm.offset, 1);
    assert.ok((await norm.weight.data()).every((w) => w === 0));
  }
});

test("gemma: the early files' gelu is the approximation by tanh; heads have a width of their own", () => {
  const read = (fields: object) => gemmaConfig(new ConfigFields(fields, "the config"));
  assert.equal(read({ hidden_act: "gelu" }).headDim, 256);
  assert.equal(read({}).tied, true);
  assert.throws(() => read({ use_bidirectional_attention: true }), /use_bidirectional_attention/);
  assert.throws(() => read({ hidden_act: "silu" }), /"hidden_act" is "silu"/);
});
