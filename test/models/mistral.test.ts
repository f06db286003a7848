import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigFields } from "../../src/hub/config.js";
import { loadModel } from "../../src/index.js";
import { mistralConfig } from "../../src/models/mistral.js";
import { goldenPath, relativeError } from "../golden.js";
import { checkArchitecture } from "./architecture.js";

checkArchitecture("mistral");

test("mistral: an absent window is 4,096 keys and an absent eps 1e-6, null is no window", () => {
  const read = (fields: object) => mistralConfig(new ConfigFields(fields, "the config"));
  assert.equal(read({}).window, 4096);
  assert.equal(read({}).rmsNormEps, 1e-6);
  assert.equal(read({}).kvHeads, 8);
  assert.equal(read({ sliding_window: null }).window, 0);
  assert.equal(read({ sliding_window: 8 }).window, 8);
  assert.equal(read({ num_key_value_heads: null }).kvHeads, 32);
  assert.throws(() => read({ sliding_window: 0 }), /"sliding_window" is 0.*at least 1/);
});

test("mistral: rows within the window are as without one, longer ones are not", async () => {
  using model = await loadModel(goldenPath("mistral"), { progress: false });
  const within = [3, 9, 4, 1, 5, 9, 2, 6];
  const beyond = [...within, 5];
  const narrow = [await model.logits([within]), await model.logits([beyond])] as const;
  Object.assign(model.config, { window: 0 });
  assert.deepEqual(await model.logits([within]), narrow[0]);
  assert.ok(relativeError(await model.logits([beyond]), narrow[1]) > 1e-3);
});
