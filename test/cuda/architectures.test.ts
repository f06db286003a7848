// Every architecture on the GPU in 16 bits and in 4, beside the reference in float32 of scripts/peers. In float32 the tests of test/models run there with
// TUNEBOOK_DEVICE=cuda.
import assert from "node:assert/strict";
import { test } from "node:test";
import { withCheckpointing } from "../../src/autograd/checkpoint.js";
import { backward } from "../../src/autograd/tape.js";
import { setReplaying } from "../../src/evaluation/decode.js";
import { generateIds, samplingSettings } from "../../src/evaluation/generate.js";
import { loadModel, type Model, tensor } from "../../src/index.js";
import { cudaFailure } from "../../src/tensor/native.js";
import { seed } from "../../src/tensor/ops/random.js";
import { recordings } from "../../src/tensor/recording.js";
import { scope } from "../../src/tensor/scope.js";
import { goldenArrays, goldenFloats, goldenPath, goldenValues, relativeError } from "../golden.js";
import { flatRows, type LabelledRow, nextLabels } from "../peers/models.js";

const missing = cudaFailure();
const skip = missing === undefined ? false : `no CUDA device: ${missing}`;
const NAMES = [
  "qwen2",
  "qwen2-window",
  "qwen3",
  "mistral",
  "gemma",
  "gpt-bigcode",
  "gpt-bigcode-heads",
  "chatglm",
  "chatglm-ratio",
];
// Gemma's small model has strong layers (scripts/peers/tiny_models.py), which carry rounding further.
const LARGER: Readonly<Record<string, number>> = { gemma: 2 };
const KINDS = [
  { dtype: "bfloat16", bound: 0.05 },
  { dtype: "float16", bound: 0.01 },
] as const;

async function gradients(
  model: Model,
  rows: readonly LabelledRow[],
  mode: "selective" | "full",
): Promise<Float32Array[]> {
  const labels = nextLabels(rows);
  const count = labels.filter((label) => label !== -100).length;
  seed(3);
  scope(() =>
    withCheckpointing(mode, () => {
      const hidden = model.module.hidden(onGpu(rows.map((row) => row.ids)));
      backward(model.module.headLoss(hidden, tensor(labels, { device: "cuda" }), 1 / count).total);
    }),
  );
  const found = await Promise.all(model.module.trainableParameters().map((p) => p.grad!.data()));
  model.module.zeroGrad();
  return found;
}

/** The rows of `flatRows`, on the GPU. */
function onGpu(sequences: readonly (readonly number[])[]): ReturnType<typeof flatRows> {
  const { ids, positions, segments, maxPosition } = flatRows(sequences);
  const { queryBegin, queryLength } = segments;
  const [begin, length] = [queryBegin.to("cuda"), queryLength.to("cuda")];
  const there = { queryBegin: begin, queryLength: length, keyBegin: begin, keyLength: length };
  return {
    ids: ids.to("cuda"),
    positions: positions.to("cuda"),
    segments: { count: segments.count, ...there },
    maxPosition,
  };
}

async function greedy(model: Model, prompt: number[], count: number): Promise<number[]> {
  const ids: number[] = [];
  const settings = samplingSettings({ maxNewTokens: count });
  for await (const id of generateIds(model.module, prompt, settings, new Set())) ids.push(id);
  return ids;
}

for (const name of NAMES) {
  const values = goldenValues(`${name}/golden`);
  const arrays = goldenArrays(`${name}/golden`);
  const larger = LARGER[name] ?? 1;
  for (const kind of KINDS) {
    const { dtype } = kind;
    const bound = kind.bound * larger;
    test(`${name} in ${dtype}: logits and an adapter's gradients are near the reference's`, { skip }, async () => {
      using model = await loadModel(goldenPath(name), { device: "cuda", dtype, progress: false });
      for (const [i, ids] of (values.sequences as number[][]).entries()) {
        const error = relativeError(await model.logits([ids]), goldenFloats(arrays, `logits.${i}`));
        assert.ok(error < bound, `logits ${i}: ${error}`);
      }
      await model.loadAdapter(goldenPath(`${name}/adapter`));
      const names = model.parameters().filter((p) => p.trainable).map((p) => p.name); // biome-ignore format: one thought
      const all = (parts: readonly Float32Array[]): Float32Array => Float32Array.from(parts.flatMap((p) => [...p]));
      for (const mode of ["selective", "full"] as const) {
        const found = await gradients(model, values.rows, mode);
        const wanted = names.map((n) => goldenFloats(arrays, `adapter.gradient.${n}`));
        const error = relativeError(all(found), all(wanted));
        console.log(`${name}, ${dtype}, ${mode}: gradients off by ${error.toExponential(1)}`);
        assert.ok(error < 2 * bound, `gradients: ${error}`);
      }
      // With dropout the pass that is run again drops the same; other masks would give other gradients.
      model.module.train(true);
      const [once, again] = [
        await gradients(model, values.rows, "selective"),
        await gradients(model, values.rows, "full"),
      ];
      const apart = relativeError(all(again), all(once));
      assert.ok(apart < bound, `gradients of two passes: ${apart}`);
      model.module.train(false);
    });
  }

  test(`${name} in NF4: logits are near the reference's; decoding by graphs gives the ids of decoding op by op`, {
    skip,
  }, async () => {
    const plan = loadModel(goldenPath(name), { device: "cuda", dtype: "bfloat16", progress: false });
    using model = await plan.quantize({ type: "nf4", compute: "bfloat16" });
    const error = relativeError(await model.logits([values.sequences[2]]), goldenFloats(arrays, "nf4.logits"));
    assert.ok(error < 0.05 * larger, `${error}`);
    const { prompt } = values.greedy as { prompt: number[] };
    const before = recordings("cuda").wholeLaunches;
    const graphs = await greedy(model, prompt, 60);
    assert.ok(
      recordings("cuda").wholeLaunches > before,
      `no step was launched as a graph (${recordings("cuda").captureError})`,
    );
    setReplaying(false);
    try {
      assert.deepEqual(await greedy(model, prompt, 60), graphs);
    } finally {
      setReplaying(true);
    }
  });
}
