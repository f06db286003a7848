// tunebook's side of lora.mjs: one training loop, which waits between rounds.
import { createInterface } from "node:readline";
import { loadModel } from "../../dist/src/plan.js";
import { stats } from "../../dist/src/tensor/native.js";
import { trainLoop } from "../../dist/src/training/loop.js";
import { trainSettings } from "../../dist/src/training/options.js";

const request = JSON.parse(process.argv[2]);
const config = { architectures: ["LlamaForCausalLM"], model_type: "llama", ...request.model };
const plan = loadModel(config, { weights: "random", seed: 0, dtype: request.dtype ?? "float32" });
const model = await (request.quantize ? plan.quantize(request.quantize) : plan).addLora({
  rank: request.rank,
  alpha: 2 * request.rank,
  target: "all-linear",
});

// The same batch at every step, as the peer has it. A few multiplications draw the ids.
let state = 1;
const draw = () => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return 3 + ((state >>> 8) % (request.model.vocab_size - 3));
};
const rows = Array.from({ length: request.batch }, () => {
  const ids = Int32Array.from({ length: request.length }, draw);
  return { ids, labels: ids };
});

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const reply = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const settings = trainSettings({
  steps: request.total,
  batch: request.batch,
  lr: 1e-4,
  schedule: "constant",
  maxGradNorm: 1,
  shuffle: false,
  ...(request.checkpointing ? { checkpointing: request.checkpointing } : {}),
});
// The loop below the facade takes ids: a model made from a config has no tokenizer.
const steps = trainLoop({
  model: model.module,
  train: rows,
  settings,
});

reply({ ready: true, trainable: model.trainable().trainable });
for await (const line of { [Symbol.asyncIterator]: () => lines }) {
  const seconds = [];
  let loss = Number.NaN;
  const busy = stats().busySeconds;
  const begun = performance.now();
  for (let left = JSON.parse(line).steps; left > 0; left--) {
    const before = performance.now();
    const { value, done } = await steps.next();
    if (done) throw new Error("more steps were asked for than the run has");
    seconds.push((performance.now() - before) / 1000);
    loss = value.loss;
  }
  const wall = (performance.now() - begun) / 1000;
  // What the device did not work is what JavaScript kept it waiting.
  const javascript = Math.max(0, 1 - (stats().busySeconds - busy) / wall);
  reply({ seconds, loss, peakBytes: process.resourceUsage().maxRSS * 1024, javascript });
}
