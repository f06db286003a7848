// The key-value cache in 16 and 8 bits: what it takes, and what it does to the logits.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { loadModel, type Model } from "../../src/index.js";
import type { CausalLM } from "../../src/models/causal.js";
import { type CacheDType, KvCache } from "../../src/nn/cache.js";
import { stats } from "../../src/tensor/native.js";
import { noGrad } from "../../src/tensor/record.js";
import { scope } from "../../src/tensor/scope.js";
import { smallConfig, withModelFolder } from "../facade/small.js";
import { shared } from "../shared.js";

const quiet = { progress: false } as const;
const prompts = ["The sea", "A", "The grass is green and the rose", "coal black"];

/** Logits of each token of `ids` with a cache: the first `start` at once, the others one by one. */
async function cachedLogits(
  model: CausalLM,
  ids: readonly number[],
  start: number,
  dtype: CacheDType | undefined,
): Promise<{ rows: Float32Array[]; bytes: number }> {
  const cache = new KvCache(1, ids.length, model.device, { dtype, headDim: model.config.headDim });
  const rows: Float32Array[] = [];
  for (let at = 0; at < ids.length; at = at === 0 ? start : at + 1) {
    const piece = Int32Array.from(ids.slice(at, at === 0 ? start : at + 1));
    const y = scope(() =>
      noGrad(() => model.logits(model.hidden(cache.rows(piece, Int32Array.of(0), Int32Array.of(piece.length)), cache))),
    );
    const all = (await y.data()) as Float32Array;
    const vocab = model.config.vocabSize;
    for (let r = 0; r < piece.length; r++) rows.push(all.slice(r * vocab, (r + 1) * vocab));
    y.dispose();
  }
  const { bytes } = cache;
  cache.dispose();
  return { rows, bytes };
}

/** max |a - b| / max |b| over all rows, and how often the likeliest token is another. */
function difference(a: readonly Float32Array[], b: readonly Float32Array[]): { error: number; other: number } {
  let [worst, most, other] = [0, 0, 0];
  const best = (row: Float32Array): number => row.reduce((top, x, i) => (x > row[top]! ? i : top), 0);
  b.forEach((row, r) => {
    row.forEach((x, i) => {
      worst = Math.max(worst, Math.abs(x - a[r]![i]!));
      most = Math.max(most, Math.abs(x));
    });
    if (best(row) !== best(a[r]!)) other++;
  });
  return { error: worst / most, other };
}

test("a cache of fewer bits is as large as it should be and changes the logits a little", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 4, ...quiet });
    const ids = model.tokenizer.encode("The grass is green and the rose is red, coal black, the sea is blue.");
    const full = await cachedLogits(model.module, ids, 7, undefined);
    const plain = await model.logits([ids]);
    const vocab = plain.shape[2];
    const uncached = ids.map((_, i) => plain.slice(i * vocab, (i + 1) * vocab));
    assert.ok(difference(full.rows, uncached).error < (model.device === "cuda" ? 4e-2 : 1e-5));
    const { layers, kvHeads, headDim } = model.config;
    for (const [dtype, a, most] of [
      ["float32", 4 * headDim, 1e-6],
      ["bfloat16", 2 * headDim, 2e-2],
      ["float16", 2 * headDim, 2e-3],
      ["int8", headDim + 4, 3e-2],
    ] as const) {
      const cached = await cachedLogits(model.module, ids, 7, dtype);
      assert.equal(cached.bytes, 2 * layers * ids.length * kvHeads * a);
      const { error } = difference(cached.rows, full.rows);
      const limit = model.device === "cuda" ? Math.max(most, 4e-2) : most; // activations of 16 bits there
      assert.ok(error < limit && (dtype === "float32" || model.device === "cuda" || error > 0), `${dtype}: ${error}`);
    }
    model.dispose();
  }));

test("texts with a cache of fewer bits are the same one by one, in batches, with recordings and without, while it grows", () =>
  withModelFolder(
    async (folder) => {
      const before = stats();
      const model: Model = await loadModel(folder, { weights: "random", seed: 1, ...quiet });
      for (const kvCache of ["bfloat16", "float16", "int8"] as const) {
        const options = { maxNewTokens: 320, kvCache };
        const batched = await model.generate(prompts, { ...options, batch: 3 });
        for (const [i, prompt] of prompts.entries())
          assert.equal(batched[i], await model.generate(prompt, options), kvCache);
        const sampled = { maxNewTokens: 24, kvCache, temperature: 1, seed: 3, topP: 0.9 };
        assert.equal((await model.generate(prompts, sampled))[0], await model.generate(prompts[0]!, sampled));
      }
      assert.equal(
        await model.generate("The sea", { maxNewTokens: 20, kvCache: "float32" }),
        await model.generate("The sea", { maxNewTokens: 20 }),
      );
      await assert.rejects(
        model.generate("a", { kvCache: "int4" as "int8" }),
        /kvCache must be "float32".*received int4/,
      );
      model.dispose();
      assert.equal(stats().handles, before.handles, "tensors were left behind");
    },
    { ...smallConfig, max_position_embeddings: 512 },
  ));

const smollm = join(shared, "models", "smollm2-135m-instruct");

test("on real weights 16 bits change nothing that matters and 8 bits little", {
  skip: !existsSync(smollm) && `no ${smollm}`,
}, async (t) => {
  const model = await loadModel(smollm, quiet);
  const text =
    "The old lighthouse keeper climbed the stairs every evening to light the lamp. One night a storm came in from the sea, and the keeper saw a small boat between the waves. He rang the bell, called the village, and together they pulled seven fishermen out of the water before the boat broke on the rocks.";
  const ids = model.tokenizer.encode(text);
  const full = await cachedLogits(model.module, ids, 16, undefined);
  for (const [dtype, most] of [
    ["float16", 2e-3],
    ["bfloat16", 2e-2],
    ["int8", 3e-2],
  ] as const) {
    const cached = await cachedLogits(model.module, ids, 16, dtype);
    const { error, other } = difference(cached.rows, full.rows);
    t.diagnostic(
      `${dtype}: largest logit error ${error.toExponential(2)} of the largest logit, ${other} of ${ids.length} likeliest tokens differ, ${cached.bytes} of ${full.bytes} bytes`,
    );
    assert.ok(error < most, `${dtype}: ${error}`);
  }
  model.dispose();
});
