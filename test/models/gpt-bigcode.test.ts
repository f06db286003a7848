import assert from "node:assert/strict";
import { test } from "node:test";
import { type Checkpointing, withCheckpointing } from "../../src/autograd/checkpoint.js";
import { backward } from "../../src/autograd/tape.js";
import { ConfigFields } from "../../src/hub/config.js";
import { loadModel } from "../../src/index.js";
import { type GptBigcodeConfig, gptBigcodeConfig } from "../../src/models/gpt-bigcode.js";
import { seed } from "../../src/tensor/ops/random.js";
import { noGrad } from "../../src/tensor/record.js";
import { scope } from "../../src/tensor/scope.js";
import { tensor } from "../../src/tensor/tensor.js";
import { goldenPath, goldenValues } from "../golden.js";
import { flatRows, type LabelledRow, nextLabels } from "../peers/models.js";
import { checkArchitecture } from "./architecture.js";

checkArchitecture("gpt-bigcode");
checkArchitecture("gpt-bigcode-heads");

test("gpt_bigcode: the config's activation, width, heads and shares", () => {
  const read = (fields: object) => gptBigcodeConfig(new ConfigFields(fields, "the config"));
  assert.equal(read({}).activation, "gelu_tanh");
  assert.equal(read({ activation_function: "gelu" }).activation, "gelu");
  assert.equal(read({ n_embd: 64, n_inner: null, n_head: 4 }).intermediateSize, 256);
  assert.equal(read({}).kvHeads, 1);
  assert.equal(read({ multi_query: false }).kvHeads, 12);
  assert.equal(read({ scale_attn_weights: false }).scale, 1);
  assert.deepEqual(read({ attn_pdrop: 0 }).dropout, { embedding: 0.1, attention: 0, residual: 0.1 });
  assert.throws(() => read({ activation_function: "swish" }), /"activation_function" is "swish".*"gelu_new"/);
  assert.throws(() => read({ add_cross_attention: true }), /add_cross_attention/);
});

test("gpt_bigcode: a row longer than the learned positions is refused with their number", async () => {
  using model = await loadModel(goldenPath("gpt-bigcode"), { progress: false });
  await assert.rejects(model.logits([new Array(97).fill(3)]), /97 tokens.*learned positions for 96.*maxLength/);
});

test("gpt_bigcode: embeddings, attention and both halves of each block are dropped while training, and never otherwise", async () => {
  using model = await loadModel(goldenPath("gpt-bigcode"), { progress: false });
  const run = async (training: boolean): Promise<Float32Array> => {
    model.module.train(training);
    const y = scope(() => noGrad(() => model.module.hidden(flatRows([[5, 6, 7, 8, 9, 10]]))));
    const data = (await y.data()) as Float32Array;
    y.dispose();
    model.module.train(false);
    return data;
  };
  assert.deepEqual(await run(false), await run(false));
  const plain = await run(false);
  assert.notDeepEqual(await run(true), plain);
  assert.notDeepEqual(await run(true), await run(true));
  // Each of the places by itself.
  const { transformer } = model.module as unknown as {
    transformer: {
      drop: { p: number };
      h: { attn: { resid_dropout: { p: number } }; mlp: { dropout: { p: number } } }[];
    };
  };
  const places = [transformer.drop, ...transformer.h.flatMap((b) => [b.attn.resid_dropout, b.mlp.dropout])];
  assert.deepEqual(places.map((d) => d.p), new Array(5).fill(0.1)); // biome-ignore format: one claim
  const drop = (attention: number, one?: object): void => {
    for (const d of places) Object.assign(d, { p: d === one ? 0.5 : 0 });
    Object.assign((model.config as GptBigcodeConfig).dropout, { attention });
  };
  for (const one of places) {
    drop(0, one);
    assert.notDeepEqual(await run(true), plain);
  }
  drop(0);
  assert.deepEqual(await run(true), plain);
  drop(0.5);
  assert.notDeepEqual(await run(true), plain);
});

test("gpt_bigcode: a pass that is run again for its gradients drops the same", async () => {
  using model = await loadModel(goldenPath("gpt-bigcode"), { progress: false });
  model.addLora({ rank: 2, target: "all-linear", init: "gaussian" });
  model.module.train(true);
  const { rows } = goldenValues("gpt-bigcode/golden") as { rows: LabelledRow[] };
  const labels = tensor(nextLabels(rows));
  const gradients = async (mode: Checkpointing): Promise<Float32Array[]> => {
    seed(4);
    scope(() =>
      withCheckpointing(mode, () => {
        const hidden = model.module.hidden(flatRows(rows.map((row) => row.ids)));
        backward(model.module.headLoss(hidden, labels, 1).total);
      }),
    );
    const found = await Promise.all(model.module.trainableParameters().map((p) => p.grad!.data()));
    model.module.zeroGrad();
    return found as Float32Array[];
  };
  const want = await gradients("none");
  for (const mode of ["selective", "full", "offload"] as const) assert.deepEqual(await gradients(mode), want, mode);
});
