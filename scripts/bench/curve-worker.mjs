// One way of the training run of curves.mjs: a line { step, loss, gradNorm, seconds } for each step, then one { seconds, peakBytes, tokensPerSecond, weights },
// with { before, validation } where rows are held out. The request's fields are those of `way` and `work` there.
import { loadDataset, loadModel } from "../../dist/src/index.js";
import { summaryPrompt } from "../shared.mjs";

const request = JSON.parse(process.argv[2]);
const { files, longest = Number.POSITIVE_INFINITY, held = 0, seed = 1, adapterSeed = 7 } = request;

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

/** A row as `train` takes it. */
function example(row) {
  if (row.dialogue !== undefined && row.summary !== undefined)
    return { prompt: summaryPrompt(row.dialogue), completion: ` ${row.summary.trim()}` };
  const known = [["messages"], ["prompt", "completion"], ["text"]].find((keys) => keys.every((k) => k in row));
  if (!known)
    throw new Error(
      `a row has the fields ${Object.keys(row).join(", ")}; expected prompt and completion, messages, text, or dialogue and summary`,
    );
  return Object.fromEntries(known.map((k) => [k, row[k]]));
}

/** The rows to train on, and those to measure on: of a file of their own, or the last ones of the data. */
async function readRows() {
  const all = (await loadDataset(files.rows)).toRows();
  const most = files.held === undefined ? Math.max(0, all.length - held) : all.length;
  const short = all.slice(0, most).filter(({ dialogue = "" }) => dialogue.length <= longest);
  const rest = files.held === undefined ? all.slice(most) : (await loadDataset(files.held)).toRows().slice(0, held);
  return { train: short.slice(0, request.rows).map(example), held: rest.map(example) };
}

const rows = await readRows();
const plan = loadModel(files.model, { progress: false, ...request.load });
const model = await (request.quantize ? plan.quantize(request.quantize) : plan).addLora({
  rank: request.rank,
  alpha: 2 * request.rank,
  target: "all-linear",
  seed: adapterSeed,
});
const { batch, maxLength } = request;
const measure = async () =>
  rows.held.length === 0
    ? undefined
    : (await model.evaluate(rows.held, { metrics: ["loss"], maxLength, batch, progress: false })).loss;
const before = await measure();
const run = model.train(rows.train, {
  steps: request.steps,
  batch,
  maxLength,
  overlong: "drop",
  packing: true,
  lr: request.lr,
  schedule: "cosine",
  warmup: 0.03,
  seed,
  progress: false,
  ...request.train,
});
const begun = performance.now();
for await (const { step, loss, gradNorm } of run)
  say({ step, loss, gradNorm, seconds: (performance.now() - begun) / 1000 });
const { seconds, peakMemory: peakBytes, tokensPerSecond } = await run;
const validation = await measure();
say({ seconds, peakBytes, tokensPerSecond, weights: model.memory().weights, before, validation });
model.dispose();
