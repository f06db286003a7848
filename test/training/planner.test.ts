import assert from "node:assert/strict";
import { test } from "node:test";
import { toBundle } from "../../src/display/bundle.js";
import { ConfigError, compareEstimates, loadModel, type Model, type TrainOptions } from "../../src/index.js";
import { openDevices, stats } from "../../src/tensor/native.js";
import { LLAMA3_8B } from "../models/shapes.js";

const GIB = 2 ** 30;
const small = {
  ...LLAMA3_8B,
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
  using model = await planned(LLAMA3_8B);
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

test("a card goes by its bytes; the options are those of train, and the best parameters count", async () => {
  using model = await planned(small);
  const train: TrainOptions<{ text: string }> = {
    ...{ batch: 2, maxLength: 512, lr: 1e-4, epochs: 3, packing: true, optimizer: "paged_adamw_8bit", warmup: 5 },
    format: ({ text }) => text,
  };
  const card = model.estimate({ ...train, device: "cuda", memory: 24 * GIB });
  assert.equal(card.limit, 23 * GIB);
  assert.equal(card.peak, model.estimate({ ...train, device: "cuda", limit: 23 * GIB }).peak);
  assert.deepEqual(card.toTable().rows.slice(-2), [
    ["limit", "23.0 GiB"],
    ["fits", "yes"],
  ]);
  assert.equal(card.toTable().rows.length, 10);
  assert.equal(model.estimate({ device: "cpu", memory: 8 * GIB }).limit, 7.75 * GIB);
  const kept = model.estimate({ ...train, device: "cuda", keepBest: true });
  assert.equal(kept.other, kept.adapters);
  assert.equal(kept.peak, card.peak + kept.adapters);
  assert.ok(kept.toTable().rows.some(([part]) => part === "other: the best parameters"));
  const mine = openDevices().includes("cpu") ? stats("cpu").limitBytes : undefined;
  assert.equal(model.estimate({ device: "cpu" }).limit, mine);
  for (const wrong of [
    { memory: -1 },
    { limit: Number.NaN },
    { memory: GIB, limit: GIB },
    { memory: "24 GB" as never },
  ])
    assert.throws(() => model.estimate(wrong), ConfigError);
});

test("memory, cards, time and price by size of the model, beside what was used", async () => {
  const full = async (config: object, device: "cuda"): Promise<Model> =>
    loadModel(config as Record<string, unknown>, { weights: "none", dtype: "float32", device });
  const llama70b = { ...LLAMA3_8B, hidden_size: 8192, intermediate_size: 28672, num_hidden_layers: 80 };
  using large = await full({ ...llama70b, num_attention_heads: 64 }, "cuda");
  using middle = await full(LLAMA3_8B, "cuda");
  using quantised = await planned(LLAMA3_8B);
  const step = { device: "cuda", batch: 1, length: 2048, checkpointing: "full" } as const;
  const estimates = {
    "70B, float32": large.estimate(step),
    "8B, float32": middle.estimate(step),
    "8B, NF4 and LoRA": quantised.estimate({ ...step, optimizer: "adamw8bit" }),
  };
  // Weights, gradients and two moments in 32 bits are 16 bytes a parameter: over a terabyte for 70 billion.
  const [a, b, c] = compareEstimates(estimates).rows as [Row, Row, Row];
  assert.equal(a.parameters, 70553706496);
  assert.ok(a.peak > 16 * 70.5e9 && a.peak < 17 * 70.6e9, `${a.peak}`);
  assert.deepEqual([a.cards, b.cards, c.cards], [Math.ceil(a.peak / (79 * GIB)), 2, 1]);
  assert.ok(c.peak < 16 * GIB && c.trained < 0.006 * c.parameters);
  // 8B: forward, backward for inputs and for weights, and the blocks once more.
  const table = 128256 * 4096;
  const dense = b.parameters - 65 * 4096 - table; // norms are no matrices, and the table is not multiplied
  const attention = 32 * 4096 * 2048 * 9;
  assert.equal(b.flopsPerToken, 6 * dense + 2 * (dense - table) + attention);
  assert.ok(c.flopsPerToken < 0.8 * b.flopsPerToken);
  const cost = { tokens: 1e6, flopsPerSecond: 2e14, pricePerHour: 40, memory: 24 * GIB } as const;
  const compared = compareEstimates(estimates, { ...cost, used: { "8B, NF4 and LoRA": c.peak / 1.02 } });
  const last = compared.rows[2]!;
  assert.equal(last.cards, 1);
  assert.ok(Math.abs(last.hours! - (c.flopsPerToken * 1e6) / 2e14 / 3600) < 1e-12);
  assert.equal(last.price, 40 * last.hours!);
  const shown = compared.toTable();
  assert.deepEqual(shown.columns.slice(-4), ["time", "price", "used", "error"]);
  assert.equal(shown.rows[2]!.at(-1), "2.0%");
  const { figure } = compared.plot();
  const sum = figure.data.reduce((n, trace) => n + ((trace.y as number[])[2] ?? 0), 0);
  assert.ok(Math.abs((sum * GIB) / c.peak - 1) < 0.2);
  assert.match(String((await toBundle(compared))["text/plain"]), /70B, float32/);
  assert.throws(() => compareEstimates({}), ConfigError);
  assert.throws(() => compareEstimates(estimates, { used: { other: 1 } }), /"other", which is no estimate/);
  assert.throws(() => compareEstimates(estimates, { tokens: -1 }), ConfigError);
});

type Row = ReturnType<typeof compareEstimates>["rows"][number];
