// One measurement of scripts/bench-gpu.mjs in a process of its own: QLoRA steps, or greedy decoding, of a shape with random weights.
import { packRows } from "../dist/src/data/pack.js";
import { Decoder, setReplaying } from "../dist/src/evaluation/decode.js";
import { generateIds, samplingSettings } from "../dist/src/evaluation/generate.js";
import { KvCache } from "../dist/src/nn/cache.js";
import { loadModel } from "../dist/src/plan.js";
import { profile, resetPeak, settle, stats } from "../dist/src/tensor/native.js";
import { noGrad } from "../dist/src/tensor/record.js";
import { recordings } from "../dist/src/tensor/recording.js";
import { scope } from "../dist/src/tensor/scope.js";
import { trainLoop } from "../dist/src/training/loop.js";
import { trainSettings } from "../dist/src/training/options.js";

const request = JSON.parse(process.argv[2]);
const CUDA = "cuda";
const gibibytes = (bytes) => bytes / 2 ** 30;
const config = { architectures: ["LlamaForCausalLM"], model_type: "llama", ...request.model };

const begun = performance.now();
let plan = loadModel(config, { weights: "random", seed: 0, dtype: "bfloat16", device: "cuda" });
const type = request.dense ? "bf16" : (request.weights ?? "nf4");
if (type !== "bf16") plan = plan.quantize({ type, ...(type === "nf4" && { doubleQuant: true }), compute: "bf16" });
if (request.rank > 0) plan = plan.addLora({ rank: request.rank, alpha: 2 * request.rank, target: "all-linear" });
const model = await plan;
await settle(CUDA);
const loaded = { seconds: (performance.now() - begun) / 1000, gib: gibibytes(stats(CUDA).liveBytes) };

let state = 1;
const draw = () => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return 3 + ((state >>> 8) % (model.config.vocabSize - 3));
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
    settings,
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

/** Greedy steps of several sequences behind contexts of equal length, as graphs and (unless `graphs` is set) op by op, with keys and values in each of `caches`. */
async function grid() {
  const rows = [];
  const settings = samplingSettings({ temperature: 0 });
  const { contexts, batches, caches = ["bfloat16"] } = request;
  const { headDim } = model.config;
  for (const [context, batch, dtype] of contexts.flatMap((c) => batches.flatMap((b) => caches.map((d) => [c, b, d])))) {
    const limit = context + request.decode + 16;
    const cache = new KvCache(batch, limit, CUDA, { dtype, headDim });
    // A few sequences at a time go in: the activations of all of them would not fit.
    for (let s = 0; s < batch; s += 4) {
      const length = new Int32Array(batch);
      const begin = new Int32Array(batch);
      for (let i = s; i < Math.min(s + 4, batch); i++) {
        length[i] = context;
        begin[i] = (i - s) * context;
      }
      const ids = Int32Array.from({ length: Math.min(4, batch - s) * context }, draw);
      scope(() => noGrad(() => void model.module.hidden(cache.rows(ids, begin, length), cache)));
    }
    await settle(CUDA);
    for (const graph of request.graphs ? [true] : [true, false]) {
      setReplaying(graph);
      const decoder = new Decoder(model.module, cache, settings, limit);
      const starts = Array.from({ length: batch }, (_, region) => {
        const id = draw();
        return { region, position: context, id, seed: 0, offset: 0, seen: [] };
      });
      const launches = recordings(CUDA).wholeLaunches;
      let seen = 0;
      let from = 0;
      for await (const _ of decoder.steps(starts, request.decode + 8)) if (++seen === 8) from = performance.now();
      const ms = (performance.now() - from) / (seen - 8);
      const whole = recordings(CUDA).wholeLaunches - launches;
      const gib = gibibytes(cache.bytes);
      rows.push({ batch, context, cache: dtype, graph, whole, ms, tokensPerSecond: (batch * 1000) / ms, gib });
      decoder.dispose();
    }
    cache.dispose();
  }
  setReplaying(true);
  return { rows, captureError: recordings(CUDA).captureError };
}

/** Steps on rows of various lengths, packed as `train` packs them, between steps on full rows: tokens of both a second. Nothing is padded, so all tokens count. */
async function packed() {
  const { batch, length, shortest, longest, steps } = request;
  const row = (n) => {
    const ids = Int32Array.from({ length: n }, draw);
    return { ids, labels: ids };
  };
  const examples = Array.from({ length: 16 * batch * (steps + 2) }, () =>
    row(shortest + (draw() % (longest - shortest + 1))),
  );
  const packing = packRows(
    examples.map(({ ids }) => ids.length),
    length,
  );
  const settings = trainSettings({
    steps: steps + 2,
    batch,
    lr: 2e-4,
    schedule: "constant",
    optimizer: "adamw8bit",
    checkpointing: request.checkpointing,
  });
  const speed = async (train, rows) => {
    let tokens = 0;
    const input = { model: model.module, train, rows, settings };
    const loop = trainLoop({ ...input, onBatch: (n) => (tokens += n) });
    let [from, counted] = [0, 0];
    for (let i = 0; i < steps + 2; i++) {
      if (i === 2) [from, counted] = [performance.now(), tokens];
      await loop.next();
      await settle(CUDA);
    }
    const seconds = (performance.now() - from) / 1000;
    await loop.return?.();
    return { tokens: tokens - counted, seconds, tokensPerSecond: (tokens - counted) / seconds };
  };
  const full = Array.from({ length: 2 * batch }, () => row(length));
  const before = await speed(full);
  const short = await speed(examples, packing.rows);
  const after = await speed(full);
  const ratio = (2 * short.tokensPerSecond) / (before.tokensPerSecond + after.tokensPerSecond);
  const sequences = packing.rows.length === 0 ? 0 : examples.length / packing.rows.length;
  return { before, short, after, ratio, sequencesARow: sequences, roomUsed: packing.efficiency };
}

const works = { decode, grid, packed, train };
const result = await (works[request.work] ?? train)();
process.stdout.write(`${JSON.stringify({ ...result, loaded })}\n`);
process.exit(0);
