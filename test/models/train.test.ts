// Each architecture through the facade: NF4, an adapter, training with packed rows, generation of several prompts, saving.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loadModel } from "../../src/index.js";
import { colourRows, smallConfig, withModelFolder } from "../facade/small.js";

const { model_type: _, rms_norm_eps: __, ...common } = smallConfig;
const CONFIGS: Record<string, object> = {
  mistral: { ...common, sliding_window: 16 },
  qwen2: common,
  qwen3: { ...common, head_dim: 16 },
  gemma: { ...common, head_dim: 16 },
  gpt_bigcode: {
    vocab_size: 340,
    n_embd: 64,
    n_layer: 2,
    n_head: 4,
    n_positions: 128,
    initializer_range: 0.1,
    activation_function: "gelu",
  },
  chatglm: {
    padded_vocab_size: 340,
    hidden_size: 64,
    ffn_hidden_size: 128,
    num_layers: 2,
    num_attention_heads: 4,
    kv_channels: 16,
    multi_query_attention: true,
    multi_query_group_num: 2,
    add_qkv_bias: true,
    seq_length: 128,
  },
};

for (const [model_type, config] of Object.entries(CONFIGS)) {
  test(`${model_type}: trains over NF4, writes several texts at once as one by one, and comes back from its files`, async () => {
    await withModelFolder(
      async (folder) => {
        const out = await mkdtemp(join(tmpdir(), "tunebook-out-"));
        try {
          {
            using made = await loadModel(folder, { weights: "random", seed: 3, progress: false });
            await made.export(folder);
          }
          const quantised = () => loadModel(folder, { progress: false }).quantize({ type: "nf4", doubleQuant: true });
          using model = await quantised().addLora({ rank: 8, alpha: 16, target: "all-linear", seed: 5 });
          const before = await Promise.all(model.module.trainableParameters().map((p) => p.data()));
          const run = model.train(colourRows(64), { steps: 60, batch: 8, lr: 1e-2, packing: true, progress: false });
          const losses: number[] = [];
          for await (const step of run) losses.push(step.loss);
          // ChatGLM's random head is small and stays as it is: its loss falls more slowly.
          assert.ok(losses.at(-1)! < losses[0]! - 1, `${losses[0]} to ${losses.at(-1)}`);
          const after = await Promise.all(model.module.trainableParameters().map((p) => p.data()));
          for (const [i, values] of after.entries()) assert.notDeepEqual(values, before[i]);
          const prompts = ["The sea is", "Once", "The grass is"];
          const texts = await model.generate(prompts, { maxNewTokens: 12, batch: 3 });
          for (const [i, prompt] of prompts.entries())
            assert.equal(await model.generate(prompt, { maxNewTokens: 12 }), texts[i]);
          await model.save(out);
          using again = await quantised().loadAdapter(out);
          const ids = [[5, 9, 33, 7]];
          assert.deepEqual(await again.logits(ids), await model.logits(ids));
        } finally {
          await rm(out, { recursive: true });
        }
      },
      { model_type, ...config },
    );
  });
}
