// orpo and dpo on the GPU beside the CPU: losses, gradient norms and metrics of each step, in 32 and 16 bits, with a frozen and a trained head.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Device, loadModel, type Model, type TrainOptions, type TrainStep } from "../../src/index.js";
import type { DTypeName } from "../../src/tensor/dtype.js";
import { cudaFailure } from "../../src/tensor/native.js";
import { colourRows, withModelFolder } from "../facade/small.js";

const missing = cudaFailure();
const skip = missing === undefined ? false : `no CUDA device: ${missing}`;
const quiet = { progress: false } as const;
const rows = colourRows(16).map(({ prompt, completion }, i) => ({
  prompt,
  chosen: completion,
  rejected: `${colourRows(16)[(i + 1) % 16]!.completion}, it is said`,
}));

const KINDS: { name: string; dtype: DTypeName; nf4?: boolean; whole?: boolean; off: number }[] = [
  { name: "all parameters in float32", dtype: "fp32", whole: true, off: 2e-3 },
  { name: "LoRA over float32", dtype: "fp32", off: 2e-3 },
  { name: "LoRA over bfloat16", dtype: "bf16", off: 5e-2 },
  { name: "LoRA over float16", dtype: "fp16", off: 2e-2 },
  { name: "LoRA over NF4 in bfloat16", dtype: "bf16", nf4: true, off: 5e-2 },
];

async function steps(
  folder: string,
  device: Device,
  kind: (typeof KINDS)[number],
  options: TrainOptions,
): Promise<TrainStep[]> {
  const plan = loadModel(folder, { device, dtype: kind.dtype, ...quiet });
  using model: Model = await (kind.nf4 ? plan.quantize({ type: "nf4", compute: kind.dtype }) : plan);
  if (!kind.whole) model.addLora({ rank: 8, target: "all-linear", seed: 5 });
  const run = model.train(rows, {
    steps: 16,
    batch: 4,
    accumulate: 2,
    lr: 2e-3,
    seed: 1,
    ...options,
    ...quiet,
  } as never);
  await run;
  return run.steps;
}

test("runs of pairs follow the CPU's and are equal bit for bit when they are run again", { skip }, () =>
  withModelFolder(async (folder) => {
    using made = await loadModel(folder, { weights: "random", device: "cpu", seed: 3, ...quiet });
    await made.export(folder);
    for (const kind of KINDS) {
      for (const options of [
        { method: "dpo" },
        { method: "dpo", lossType: "ipo", beta: 0.5 },
        { method: "orpo", beta: 0.5 },
      ] as const) {
        const want = await steps(folder, "cpu", kind, options);
        const got = await steps(folder, "cuda", kind, options);
        const again = await steps(folder, "cuda", kind, options);
        assert.deepEqual(again.map((s) => [s.loss, s.gradNorm]), got.map((s) => [s.loss, s.gradNorm])); // biome-ignore format: one line
        let worst = 0;
        for (const [i, { loss, ...step }] of got.entries()) {
          worst = Math.max(worst, Math.abs(loss - want[i]!.loss) / want[0]!.loss);
          assert.ok(Math.abs(step["logps/chosen"]! / want[i]!["logps/chosen"]! - 1) < 2 * kind.off, `step ${i + 1}`);
        }
        console.log(`${kind.name}, ${JSON.stringify(options)}: loss off by ${worst.toExponential(1)} of the first`);
        assert.ok(worst <= kind.off, `${kind.name}, ${JSON.stringify(options)}: off by ${worst}`);
        assert.ok(got.at(-1)!.loss < got[0]!.loss, "the loss falls");
      }
    }
  }),
);
