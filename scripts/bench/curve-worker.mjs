// One way of the training run of curves.mjs: a line { step, loss, gradNorm, seconds } for each step, then one { seconds, peakBytes, … }.
import { loadDataset, loadModel } from "../../dist/src/index.js";

const request = JSON.parse(process.argv[2]);
const LONGEST = 700; // characters of a dialogue: so that it and its summary fit into a short row

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const rows = [];
for (const { dialogue, summary } of (await loadDataset(request.files.rows)).toRows()) {
  if (dialogue.length > LONGEST) continue;
  const prompt = `Summarize the conversation.\n\n${dialogue}\n\nSummary:`;
  rows.push({ prompt, completion: ` ${summary.trim()}` });
  if (rows.length === request.rows) break;
}

const plan = loadModel(request.files.model, { progress: false, ...request.load });
const model = await (request.quantize ? plan.quantize(request.quantize) : plan).addLora({
  rank: request.rank,
  alpha: 2 * request.rank,
  target: "all-linear",
  seed: 7,
});
const run = model.train(rows, {
  steps: request.steps,
  batch: request.batch,
  maxLength: request.maxLength,
  overlong: "drop",
  packing: true,
  lr: request.lr,
  schedule: "cosine",
  warmup: 0.03,
  seed: 1,
  progress: false,
  ...request.train,
});
const begun = performance.now();
for await (const { step, loss, gradNorm } of run)
  say({ step, loss, gradNorm, seconds: (performance.now() - begun) / 1000 });
const result = await run;
say({ seconds: result.seconds, peakBytes: result.peakMemory, tokensPerSecond: result.tokensPerSecond });
model.dispose();
