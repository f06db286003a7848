// Runs on the GPU that are cut and resumed, beside whole ones: the adapters are the same bit for bit. Under TUNEBOOK_FAKE_CUDA=1 the CPU's ops stand in.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { loadModel, type TrainOptions, type TrainStep } from "../../src/index.js";
import { cudaFailure } from "../../src/tensor/native.js";
import { adapterHash, options, rows, withFolders } from "../training/resumable.js";

const missing = cudaFailure();
const skip = missing === undefined ? false : `no CUDA device: ${missing}`;

for (const optimizer of ["adamw", "paged-adamw", "paged-adamw8bit", "sgd"] as const) {
  test(`a run on the GPU goes on exactly: ${optimizer}`, { skip }, () =>
    withFolders(async (folder, output) => {
      // Rank 1,024: matrices of 65,536 elements and more, of which the larger ones are paged.
      const train = async (given: TrainOptions, until = Number.POSITIVE_INFINITY): Promise<void> => {
        const model = await loadModel(folder, { weights: "random", seed: 1, device: "cuda", progress: false });
        model.quantize({ type: "nf4" }).addLora({ rank: 1024, dropout: 0.1, target: "all-linear", seed: 2 });
        const stop = ({ step }: TrainStep): void => {
          if (step >= until) run.stop();
        };
        const run = model.train(rows, { ...options, optimizer, callbacks: [stop], ...given });
        await run;
        model.dispose();
      };
      await train({ output: join(output, "whole") });
      await train({ output: join(output, "parts"), saveEvery: 4 }, 7);
      await train({ output: join(output, "parts"), resume: true });
      assert.equal(await adapterHash(join(output, "parts")), await adapterHash(join(output, "whole")));
    }),
  );
}
