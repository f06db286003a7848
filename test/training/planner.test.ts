import assert from "node:assert/strict";
import { test } from "node:test";
import { toBundle } from "../../src/display/bundle.js";
import { loadModel, type Model } from "../../src/index.js";

// Meta-Llama-3-8B's shape: a model that is nowhere near.
const llama8b = {
  model_type: "llama",
  vocab_size: 128256,
  hidden_size: 4096,
  intermediate_size: 14336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  max_position_embeddings: 8192,
  rope_theta: 500000,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
} as const;

const GIB = 2 ** 30;
const small = {
  ...llama8b,
  num_hidden_layers: 4,
  hidden_size: 512,
  intermediate_size: 1024,
  vocab_size: 32000,
  num_attention_heads: 8,
  max_position_embeddings: 65536,
};

const planned = (config: object, dtype: "bfloat16" | "float32" = "bfloat16"): Promise<Model> =>
  Promise.resolve(
    loadModel(config as Record<string, unknown>, { weights: "none", dtype, device: "cuda" })
      .quantize({ type: "nf4", doubleQuant: true })
      .addLora({ rank: 16, target: "all-linear" }),
  );

test("the largest batch and the longest rows fit, and one more does not", async () => {
  using model = await planned(small);
  for (const checkpointing of ["none", "full"] as const) {
    const options = { batch: 2, length: 512, device: "cuda", checkpointing, limit: GIB } as const;
    const estimate = model.estimate(options);
    const length = estimate.largestLength();
    assert.ok(length > 512 && length < 65536, `${length}`);
    assert.ok(model.estimate({ ...options, length }).peak <= GIB);
    assert.ok(model.estimate({ ...options, length: length + 1 }).peak > GIB);
    const batch = estimate.largestBatch();
    assert.ok(model.estimate({ ...options, batch }).peak <= GIB);
    assert.ok(model.estimate({ ...options, batch: batch + 1 }).peak > GIB);
    assert.equal(estimate.largestLength("full"), model.estimate({ ...options, checkpointing: "full" }).largestLength());
  }
  const none = model.estimate({ device: "cuda", limit: 2 ** 20 });
  assert.deepEqual([none.largestBatch(), none.largestLength(), none.fits], [0, 0, false]);
  assert.equal(model.estimate({ device: "cuda", batch: 1, limit: 4000 * GIB }).largestLength(), 65536);
  assert.equal(model.estimate({ device: "cuda", limit: 4000 * GIB }).largestLength("none"), 65536);
});

test("a model of 8 billion parameters is planned from its config alone, over the ways of checkpointing", async () => {
  using model = await planned(llama8b);
  const estimate = model.estimate({ device: "cuda", batch: 2, length: 2048, limit: 16 * GIB });
  // 6.98 billion linear parameters at 4.127 bits, embeddings and head in 16.
  assert.ok(Math.abs(estimate.weights / GIB - (6.98e9 * 4.127) / 8 / GIB - (2 * 128256 * 4096 * 2) / GIB) < 0.05);
  const shown = estimate.compare();
  assert.deepEqual(
    shown.rows.map((row) => row[0]),
    ["none", "selective", "full", "offload"],
  );
  assert.deepEqual(shown.columns.slice(-3), ["fits", "largest batch", "longest rows"]);
  const longest = shown.rows.map((row) => Number(row.at(-1)));
  assert.deepEqual(
    longest,
    [...longest].sort((a, b) => a - b),
    "less is kept from one to the next",
  );
  const { figure } = estimate.plot();
  assert.ok(figure.layout.shapes);
  for (const [i, mode] of ["none", "selective", "full", "offload"].entries()) {
    const sum = figure.data.reduce((n, trace) => n + ((trace.y as number[])[i] ?? 0), 0);
    const { peak } = model.estimate({ device: "cuda", batch: 2, length: 2048, checkpointing: mode as "none" });
    assert.ok(Math.abs((sum * GIB) / peak - 1) < 0.01, mode);
  }
  const bundle = await toBundle(estimate);
  assert.match(String(bundle["text/html"]), /peak [\d.]+ GiB of 16.0 GiB/);
  assert.match(String(bundle["text/plain"]), /weights/);
});

test("on the CPU offload is full, and working memory stands beside the peak", async () => {
  using model = await loadModel(small, { weights: "none", device: "cpu" }).addLora({ rank: 4 });
  const estimate = model.estimate({ batch: 1, length: 128, device: "cpu", limit: 4 * GIB });
  assert.deepEqual(
    estimate.compare().rows.map((row) => row[0]),
    ["none", "selective", "full"],
  );
  assert.ok(estimate.plot().figure.data.every((trace) => trace.name !== "logits"));
});
