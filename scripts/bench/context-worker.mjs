// One measurement of gpu-context.mjs in a process of its own: steps on a single row of many tokens, or (`compare`) the gradients of one such row with feed-forward
// parts in tiles beside those of all rows at once.
import { setTile } from "../../dist/src/autograd/tiles.js";
import { collate } from "../../dist/src/data/collate.js";
import { loadModel } from "../../dist/src/plan.js";
import { profile, resetPeak, settle, stats } from "../../dist/src/tensor/native.js";
import { fill } from "../../dist/src/tensor/ops/elementwise.js";
import { seed } from "../../dist/src/tensor/ops/random.js";
import { outsideScope } from "../../dist/src/tensor/scope.js";
import { empty } from "../../dist/src/tensor/tensor.js";
import { trainLoop } from "../../dist/src/training/loop.js";
import { accumulateGradients } from "../../dist/src/training/loss.js";
import { trainSettings } from "../../dist/src/training/options.js";

const request = JSON.parse(process.argv[2]);
const { device = "cuda", tokens, steps, checkpointing, rank } = request;
const gibibytes = (bytes) => bytes / 2 ** 30;

const begun = performance.now();
const config = { architectures: ["LlamaForCausalLM"], ...request.model };
const model = await loadModel(config, { weights: "random", seed: 0, dtype: "bfloat16", device })
  .quantize({ type: "nf4", doubleQuant: true, compute: "bf16" })
  .addLora({ rank, alpha: 2 * rank, target: "all-linear", seed: 1 });
await settle(device);
const loaded = { seconds: (performance.now() - begun) / 1000, gib: gibibytes(stats(device).liveBytes) };

let state = 1;
const ids = Int32Array.from({ length: tokens }, () => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return 3 + ((state >>> 8) % (model.config.vocabSize - 3));
});
const row = { ids, labels: ids };

async function train() {
  const options = { batch: 1, checkpointing, optimizer: "adamw8bit" };
  const predicted = model.estimate({ ...options, length: tokens });
  const loop = trainLoop({
    model: model.module,
    train: [row],
    settings: trainSettings({ ...options, steps, lr: 2e-4, schedule: "constant", maxGradNorm: 1, shuffle: false }),
  });
  resetPeak(device);
  const seconds = [];
  let last;
  for (let i = 0; i < steps; i++) {
    const start = performance.now();
    last = (await loop.next()).value;
    await settle(device);
    seconds.push((performance.now() - start) / 1000);
  }
  const s = stats(device);
  const ops = Object.entries(profile(device))
    .map(([op, v]) => ({ op, calls: v.calls, seconds: v.seconds }))
    .filter((o) => o.seconds > 0)
    .sort((a, b) => b.seconds - a.seconds);
  return {
    seconds,
    loss: last.loss,
    gradNorm: last.gradNorm,
    peakGib: gibibytes(s.peakBytes),
    reservedGib: gibibytes(s.liveBytes + s.cachedBytes),
    limitGib: gibibytes(s.limitBytes),
    predictedGib: gibibytes(predicted.peak),
    hostGib: gibibytes(predicted.host),
    processGib: gibibytes(process.resourceUsage().maxRSS * 1024),
    ops,
  };
}

/** Gradients of one row by name, its loss and the peak of the pass. */
async function gradients(tile) {
  setTile(tile);
  seed(11);
  const sum = outsideScope(() => fill(empty([1], "float32", device), 0));
  model.module.train(true);
  resetPeak(device);
  const start = performance.now();
  const batch = collate([row], { padId: 0, paddingSide: "none" });
  accumulateGradients(model.module, batch, tokens, 0, sum, checkpointing);
  await settle(device);
  const seconds = (performance.now() - start) / 1000;
  const loss = await sum.item();
  const found = new Map();
  for (const [name, p] of model.module.namedParameters()) if (p.grad) found.set(name, await p.grad.data());
  model.module.zeroGrad();
  sum.dispose();
  return { loss, seconds, peakGib: gibibytes(stats(device).peakBytes), found };
}

async function compare() {
  for (const [name, p] of model.module.namedParameters())
    if (name.includes("lora_B")) p.set(Float32Array.from({ length: p.size }, (_, i) => Math.sin(i) / 200)); // else A's gradient is 0
  const whole = await gradients(Number.POSITIVE_INFINITY);
  const tiled = await gradients(request.tile);
  let worst = { error: 0, name: "" };
  for (const [name, g] of whole.found) {
    const other = tiled.found.get(name);
    let [squares, apart] = [0, 0];
    g.forEach((x, i) => {
      squares += x * x;
      apart += (x - other[i]) ** 2;
    });
    const error = Math.sqrt(apart / squares); // of the whole gradient's length
    if (!(error <= worst.error)) worst = { error, name };
  }
  const shown = ({ loss, seconds, peakGib }) => ({ loss, seconds, peakGib });
  return { whole: shown(whole), tiled: shown(tiled), worst, parameters: whole.found.size };
}

const result = await (request.compare ? compare() : train());
process.stdout.write(`${JSON.stringify({ ...result, loaded })}\n`);
process.exit(0);
