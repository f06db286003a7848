// tunebook's side of the benchmark of scripts/bench.mjs: one run of `train`, which waits between rounds in a callback.
import { createInterface } from "node:readline";
import { loadModel } from "../dist/src/index.js";
import { stats } from "../dist/src/tensor/native.js";

const request = JSON.parse(process.argv[2]);
const config = { architectures: ["LlamaForCausalLM"], model_type: "llama", ...request.model };
const model = await loadModel(config, { weights: "random", seed: 0, dtype: "float32" }).addLora({
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
  const ids = Array.from({ length: request.length }, draw);
  return { input_ids: ids, labels: ids };
});

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const reply = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const next = async () => {
  const { value, done } = await lines.next();
  if (done) process.exit(0);
  return JSON.parse(value).steps;
};

reply({ ready: true, trainable: model.trainable().trainable });
let left = await next();
let seconds = [];
let busyBefore = stats().busySeconds;
let begun = performance.now();

async function afterStep(info) {
  seconds.push((performance.now() - begun) / 1000);
  if (--left === 0) {
    const wall = seconds.reduce((a, b) => a + b, 0);
    const javascript = Math.max(0, 1 - (stats().busySeconds - busyBefore) / wall);
    reply({ seconds, loss: info.loss, peakBytes: process.resourceUsage().maxRSS * 1024, javascript });
    seconds = [];
    left = await next();
    busyBefore = stats().busySeconds;
  }
  begun = performance.now();
}

await model.train(rows, {
  steps: request.total,
  batch: request.batch,
  lr: 1e-4,
  schedule: "constant",
  maxGradNorm: 1,
  shuffle: false,
  progress: false,
  callbacks: [afterStep],
});
