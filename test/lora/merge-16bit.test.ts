import assert from "node:assert/strict";
import { test } from "node:test";
import { loadModel, type Model } from "../../src/index.js";
import { LoraLinear } from "../../src/lora/linear.js";
import { loraLayers } from "../../src/lora/wrap.js";
import { Linear } from "../../src/nn/layers.js";
import { stats } from "../../src/tensor/native.js";
import { colourRows, withModelFolder } from "../facade/small.js";
import { relativeError } from "../golden.js";

const quiet = { progress: false } as const;
const probe = [Array.from({ length: 40 }, (_, i) => (i * 31 + 5) % 340)];
const train = { steps: 6, batch: 8, lr: 2e-2, ...quiet } as const;

type Half = "bfloat16" | "float16";

/** A number rounded to the nearest one of the type, ties to even. */
function rounded(x: number, dtype: Half): number {
  if (x === 0) return 0;
  const bits = dtype === "bfloat16" ? 8 : 11; // of the mantissa, the leading one included
  const least = dtype === "bfloat16" ? -126 : -14;
  const unit = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), least) - bits + 1);
  const n = x / unit;
  const whole = Math.floor(n);
  const rest = n - whole;
  return (rest > 0.5 || (rest === 0.5 && whole % 2 !== 0) ? whole + 1 : whole) * unit;
}

/** W + s · B A in float64 for every adapted layer, by name. */
async function sums(model: Model): Promise<Map<string, Float64Array>> {
  const all = new Map<string, Float64Array>();
  for (const [path, layer] of loraLayers(model.module)) {
    const base = layer.base_layer as Linear;
    const full = base.weight.to("float32");
    const [w, a, b] = [
      await full.data(),
      await layer.lora_A.default!.weight.data(),
      await layer.lora_B.default!.weight.data(),
    ];
    full.dispose();
    const [rank, inputs] = layer.lora_A.default!.weight.shape as [number, number];
    const scale = layer.scaleOf("default");
    all.set(
      path,
      Float64Array.from(w, (value, i) => {
        const [row, column] = [Math.floor(i / inputs), i % inputs];
        let sum = 0;
        for (let r = 0; r < rank; r++) sum += b[row * rank + r]! * a[r * inputs + column]!;
        return value + scale * sum;
      }),
    );
  }
  return all;
}

// Each weight is rounded once more than without merging: by 2^-9 of its value in bfloat16.
for (const [dtype, limit] of [
  ["bfloat16", 1.2e-2],
  ["float16", 2e-3],
] as const) {
  test(`merging into ${dtype} weights rounds the sum once and keeps the logits within ${limit}`, () =>
    withModelFolder(async (folder) => {
      const handles = stats().handles;
      const model = await loadModel(folder, { weights: "random", seed: 1, dtype, ...quiet }).addLora({
        rank: 4,
        alpha: 16,
        target: "all-linear",
        seed: 2,
      });
      await model.train(colourRows(16), train);
      const plain = await model.withoutAdapter(() => model.logits(probe));
      const before = await model.logits(probe);
      assert.ok(relativeError(plain, before) > 5 * limit, "the adapter changes next to nothing");
      const wanted = await sums(model);
      const report = await model.merge();
      assert.equal(report.layers.length, 14);
      const off = relativeError(await model.logits(probe), before);
      // Where activations are kept in 16 bits too, both passes round them, each elsewhere.
      assert.ok(off < (model.module.activations === "float32" ? limit : 2 * limit), `${off}`);
      let [twice, count] = [0, 0];
      for (const [path, sum] of wanted) {
        const merged = model.module.module(path);
        assert.ok(merged instanceof Linear && !(merged instanceof LoraLinear));
        assert.equal(merged.weight.dtype, dtype, path);
        const values = merged.weight.to("float32");
        (await values.data()).forEach((value, i) => {
          count++;
          if (value !== rounded(sum[i]!, dtype)) twice++;
        });
        values.dispose();
      }
      // The sum itself is of float32: where it falls on the middle between two 16-bit numbers it may go to the other one.
      assert.ok(
        twice < count * (dtype === "bfloat16" ? 1e-3 : 4e-3),
        `${twice} of ${count} weights are not the rounded sum`,
      );
      model.dispose();
      assert.equal(stats().handles, handles, "tensors were left behind");
    }));
}

test("merging into NF4 restores dense weights, whatever the products were computed in", () =>
  withModelFolder(async (folder) => {
    for (const [compute, limit] of [
      ["float32", 1e-4],
      ["bfloat16", 2e-2],
    ] as const) {
      const model = await loadModel(folder, { weights: "random", seed: 1, ...quiet })
        .quantize({ type: "nf4", doubleQuant: true, compute })
        .addLora({ rank: 4, alpha: 16, target: "all-linear", seed: 2 });
      await model.train(colourRows(16), train);
      const before = await model.logits(probe);
      await model.merge();
      const off = relativeError(await model.logits(probe), before);
      assert.ok(off < (model.module.activations === "float32" ? limit : 2 * limit), `${compute}: ${off}`);
      model.dispose();
    }
  }));

test("withoutAdapter gives the adapter back when its function fails", () =>
  withModelFolder(async (folder) => {
    const model = await loadModel(folder, { weights: "random", seed: 1, dtype: "bfloat16", ...quiet });
    const plain = await model.logits(probe);
    model.addLora({ rank: 4, seed: 2, init: "gaussian" });
    await model.train(colourRows(16), train);
    const adapted = await model.logits(probe);
    await assert.rejects(
      model.withoutAdapter(async () => {
        assert.deepEqual(await model.logits(probe), plain);
        throw new Error("no");
      }),
      /no/,
    );
    assert.deepEqual(await model.logits(probe), adapted);
    model.dispose();
  }));
