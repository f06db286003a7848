// Qwen2-VL with images on the GPU in 16 bits, beside the reference in float32; in float32 test/models runs there with TUNEBOOK_DEVICE=cuda.
import assert from "node:assert/strict";
import { test } from "node:test";
import { backward } from "../../src/autograd/tape.js";
import { setReplaying } from "../../src/evaluation/decode.js";
import { generateIds, samplingSettings } from "../../src/evaluation/generate.js";
import { loadModel, tensor } from "../../src/index.js";
import { cudaFailure } from "../../src/tensor/native.js";
import { noGrad } from "../../src/tensor/record.js";
import { recordings } from "../../src/tensor/recording.js";
import { scope } from "../../src/tensor/scope.js";
import { goldenFloats, goldenPath, relativeError } from "../golden.js";
import { arrays, picture, seen, seenRows } from "../models/seen.js";
import { nextLabels } from "../peers/models.js";

const missing = cudaFailure();
const skip = missing === undefined ? false : `no CUDA device: ${missing}`;

for (const [dtype, bound] of [
  ["bfloat16", 0.06],
  ["float16", 0.01],
] as const) {
  // biome-ignore format: one thought
  test(`qwen2-vl with images in ${dtype}: logits and an adapter's gradients are near the reference's`, { skip }, async () => {
    using model = await loadModel(goldenPath("qwen2-vl"), { device: "cuda", dtype, progress: false });
    const network = model.module;
    for (const [i, row] of seen.rows.entries()) {
      const y = scope(() => noGrad(() => network.logits(network.hidden(seenRows([row], "cuda")))));
      const error = relativeError((await y.data()) as Float32Array, goldenFloats(arrays, `seen.logits.${i}`));
      y.dispose();
      console.log(`qwen2-vl, ${dtype}, row ${i}: logits off by ${error.toExponential(1)}`);
      assert.ok(error < bound, `logits ${i}: ${error}`);
    }
    await model.loadAdapter(goldenPath("qwen2-vl/adapter"));
    const labels = nextLabels(seen.rows);
    const count = labels.filter((label) => label !== -100).length;
    scope(() => {
      const hidden = network.hidden(seenRows(seen.rows, "cuda"));
      backward(network.headLoss(hidden, tensor(labels, { device: "cuda" }), 1 / count).total);
    });
    const [got, want]: [number[], number[]] = [[], []];
    for (const { name, trainable } of model.parameters()) {
      if (!trainable) continue;
      const found = [...network.namedParameters()].find(([n]) => n === name || n.replace(".default", "") === name)!;
      got.push(...((await found[1].grad!.data()) as Float32Array));
      want.push(...goldenFloats(arrays, `seen.adapter.gradient.${name}`));
    }
    const error = relativeError(got, want);
    console.log(`qwen2-vl, ${dtype}: gradients off by ${error.toExponential(1)}`);
    assert.ok(error < 2 * bound, `gradients: ${error}`);
    network.zeroGrad();
  });
}

test("qwen2-vl behind an image: decoding by graphs gives the ids of decoding op by op", { skip }, async () => {
  using model = await loadModel(goldenPath("qwen2-vl"), { device: "cuda", dtype: "float16", progress: false });
  const { prompt, images } = seen.greedy;
  const greedy = async (): Promise<number[]> => {
    const ids: number[] = [];
    const settings = samplingSettings({ maxNewTokens: 48 });
    const shown = images.map((name) => picture(name));
    for await (const id of generateIds(model.module, prompt, settings, new Set(), shown)) ids.push(id);
    return ids;
  };
  const before = recordings("cuda").wholeLaunches;
  const graphs = await greedy();
  assert.ok(recordings("cuda").wholeLaunches > before, `no step was a graph (${recordings("cuda").captureError})`);
  setReplaying(false);
  try {
    assert.deepEqual(await greedy(), graphs);
  } finally {
    setReplaying(true);
  }
});
