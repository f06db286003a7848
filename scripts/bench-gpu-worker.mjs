// One measurement of scripts/bench-gpu.mjs in a process of its own: QLoRA steps, or greedy decoding, of a shape with random weights.
import { generateIds, samplingSettings } from "../dist/src/evaluation/generate.js";
import { loadModel } from "../dist/src/plan.js";
import { profile, resetPeak, settle, stats } from "../dist/src/tensor/native.js";
import { trainLoop } from "../dist/src/training/loop.js";
import { trainSettings } from "../dist/src/training/options.js";

const request = JSON.parse(process.argv[2]);
const CUDA = "cuda";
const gibibytes = (bytes) => bytes / 2 ** 30;
const config = { architectures: ["LlamaForCausalLM"], model_type: "llama", ...request.model };

const begun = performance.now();
const model = await loadModel(config, { weights: "random", seed: 0, dtype: "bfloat16", device: "cuda" })
  .quantize({ type: "nf4", doubleQuant: true, compute: "bf16" })
  .addLora({ rank: request.rank, alpha: 2 * request.rank, target: "all-linear" });
await settle(CUDA);
const loaded = { seconds: (performance.now() - begun) / 1000, gib: gibibytes(stats(CUDA).liveBytes) };

let state = 1;
const draw = () => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return 3 + ((state >>> 8) % (request.model.vocab_size - 3));
};

async function train() {
  const rows = Array.from({ length: request.batch }, () => {
    const ids = Int32Array.from({ length: request.length }, draw);
    return { ids, labels: ids };
  });
  const settings = trainSettings({
    steps: request.steps + 2,
    batch: request.batch,
    lr: 2e-4,
    schedule: "constant",
    maxGradNorm: 1,
    optimizer: "adamw8bit",
    checkpointing: request.checkpointing,
    shuffle: false,
  });
  const { batch, length, checkpointing } = request;
  const predicted = model.estimate({ batch, length, checkpointing, optimizer: "adamw8bit" });
  const steps = trainLoop({
    model: model.module,
    train: rows,
    validation: undefined,
    settings,
    padId: 0,
    stopped: () => false,
  });
  const times = [];
  let loss = Number.NaN;
  let before = profile(CUDA);
  for (let i = 0; i < request.steps + 2; i++) {
    if (i === 1) {
      resetPeak(CUDA);
      before = profile(CUDA);
    }
    const start = performance.now();
    const { value } = await steps.next();
    await settle(CUDA);
    times.push(performance.now() - start);
    loss = value.loss;
  }
  const after = profile(CUDA);
  const count = request.steps + 1;
  const ops = Object.entries(after)
    .map(([op, v]) => ({
      op,
      calls: (v.calls - (before[op]?.calls ?? 0)) / count,
      ms: ((v.seconds - (before[op]?.seconds ?? 0)) * 1000) / count,
    }))
    .filter((o) => o.calls > 0)
    .sort((a, b) => b.ms - a.ms);
  const ms = Math.min(...times.slice(2));
  const s = stats(CUDA);
  return {
    ms,
    times,
    tokensPerSecond: (request.batch * request.length * 1000) / ms,
    loss,
    peakGib: gibibytes(s.peakBytes),
    predictedGib: gibibytes(predicted.peak),
    reservedGib: gibibytes(s.liveBytes + s.cachedBytes),
    ops,
  };
}

async function decode() {
  const ids = Array.from({ length: 16 }, draw);
  let tokensPerSecond = 0;
  for (const maxNewTokens of [8, request.decode, request.decode]) {
    const start = performance.now();
    let made = 0;
    const settings = samplingSettings({ maxNewTokens, temperature: 0 });
    for await (const _ of generateIds(model.module, ids, settings, new Set())) made++;
    tokensPerSecond = Math.max(tokensPerSecond, (made * 1000) / (performance.now() - start));
  }
  return { tokensPerSecond };
}

const result = request.work === "decode" ? await decode() : await train();
process.stdout.write(`${JSON.stringify({ ...result, loaded })}\n`);
process.exit(0);
