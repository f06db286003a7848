// node scripts/bench/gpu-curves.mjs [--variants bf16,fp8,fp8-keep,nf4,float32-reference] [--steps 300] [--device cuda]: one training run done in several
// precisions. Every variant begins with the same weights, adapter (LoRA, every linear layer) and rows, and goes through them in the same order; what
// differs is arithmetic alone. Prints losses every 50 steps, the mean of the last 50, the loss on held-out rows, and how far each is from the first
// variant; writes all losses as JSON. Needs no Python; on the CPU (--device cpu) take fewer steps.
//   --model PATH   a folder or a .gguf file; by default SmolLM2-135M of ../shared or TUNEBOOK_SHARED
//   --data FILE    JSON lines (also .gz) of { prompt, completion }, { messages }, { text } or { dialogue, summary }; by default DialogSum from there
//   --held FILE    rows to measure on; by default the last --validation ones of the data
//   --rows 2000  --validation 100  --batch 8  --length 512  --rank 16  --lr 5e-4  --seed 1  --packing  --checkpointing selective  --report FOLDER
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { loadDataset, loadModel } from "../../dist/src/index.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const shared = process.env.TUNEBOOK_SHARED ?? join(root, "..", "shared");
const { values: options } = parseArgs({
  options: {
    model: {
      type: "string",
      default: join(shared, "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"),
    },
    data: { type: "string", default: join(shared, "data/dialogsum/dialogsum.train.jsonl.gz") },
    held: { type: "string" },
    variants: { type: "string", default: "bf16,fp8,fp8-keep,nf4,float32-reference" },
    device: { type: "string", default: "cuda" },
    steps: { type: "string", default: "300" },
    rows: { type: "string", default: "2000" },
    validation: { type: "string", default: "100" },
    batch: { type: "string", default: "8" },
    length: { type: "string", default: "512" },
    rank: { type: "string", default: "16" },
    lr: { type: "string", default: "5e-4" },
    seed: { type: "string", default: "1" },
    packing: { type: "boolean", default: false },
    checkpointing: { type: "string", default: "selective" },
    report: { type: "string", default: join(root, ".cache/gpu-curves") },
  },
});
const WINDOW = 50;

/** What a variant loads, and what it quantises to. */
const VARIANTS = {
  bf16: { dtype: "bfloat16" },
  fp16: { dtype: "float16" },
  "float32-reference": { dtype: "float32" },
  fp8: { dtype: "bfloat16", quantize: { type: "fp8" } },
  "fp8-keep": { dtype: "bfloat16", quantize: { type: "fp8", activations: "keep" } },
  "fp8-float32": { dtype: "float32", quantize: { type: "fp8" } },
  int8: { dtype: "bfloat16", quantize: { type: "int8" } },
  nf4: { dtype: "bfloat16", quantize: { type: "nf4", doubleQuant: true } },
};

/** A row as `train` takes it. */
function example(row) {
  if (row.dialogue !== undefined && row.summary !== undefined)
    return {
      prompt: `Summarize the conversation.\n\n${row.dialogue}\n\nSummary:`,
      completion: ` ${row.summary.trim()}`,
    };
  const known = [["messages"], ["prompt", "completion"], ["text"]].find((keys) => keys.every((k) => k in row));
  if (!known)
    throw new Error(
      `a row has the fields ${Object.keys(row).join(", ")}; expected prompt and completion, messages, text, or dialogue and summary`,
    );
  return Object.fromEntries(known.map((k) => [k, row[k]]));
}

async function readRows() {
  const count = Number(options.rows);
  const held = Number(options.validation);
  const all = (await loadDataset(options.data)).toRows();
  const rest =
    options.held === undefined ? all.slice(-held) : (await loadDataset(options.held)).toRows().slice(0, held);
  const most = options.held === undefined ? Math.max(0, all.length - held) : all.length;
  return { train: all.slice(0, Math.min(count, most)).map(example), held: rest.map(example) };
}

async function runVariant(name, rows) {
  const { dtype, quantize } = VARIANTS[name];
  const plan = loadModel(options.model, { device: options.device, dtype, progress: false });
  const model = await (quantize ? plan.quantize(quantize) : plan).addLora({
    rank: Number(options.rank),
    alpha: 2 * Number(options.rank),
    target: "all-linear",
    seed: Number(options.seed),
  });
  try {
    const measure = async () =>
      (
        await model.evaluate(rows.held, {
          metrics: ["loss"],
          maxLength: Number(options.length),
          batch: Number(options.batch),
          progress: false,
        })
      ).loss;
    const before = await measure();
    const run = model.train(rows.train, {
      steps: Number(options.steps),
      batch: Number(options.batch),
      maxLength: Number(options.length),
      overlong: "drop",
      packing: options.packing,
      checkpointing: options.checkpointing,
      lr: Number(options.lr),
      schedule: "cosine",
      warmup: 0.03,
      seed: Number(options.seed),
      progress: false,
    });
    const losses = [];
    for await (const { step, loss } of run) {
      losses.push(loss);
      if (step % WINDOW === 0) process.stderr.write(`${name}: step ${step}, loss ${loss.toFixed(4)}\n`);
    }
    const { tokensPerSecond, peakMemory, seconds } = await run;
    const validation = await measure();
    return { name, losses, before, validation, tokensPerSecond, peakMemory, seconds, weights: model.memory().weights };
  } finally {
    model.dispose();
  }
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const percent = (value, reference) => `${((value / reference - 1) * 100).toFixed(2)}%`;

/** Means over windows of 50 steps; what is left over counts as one too. */
const windows = (losses) =>
  Array.from({ length: Math.ceil(losses.length / WINDOW) }, (_, i) => mean(losses.slice(i * WINDOW, (i + 1) * WINDOW)));

function printed(curves) {
  const [first] = curves;
  const at = first.losses.flatMap((_, i) => ((i + 1) % WINDOW === 0 ? [i] : []));
  const heads = ["variant", ...at.map((i) => `step ${i + 1}`), `mean of last ${WINDOW}`, "", "held out", ""];
  const lines = curves.map((c) => [
    c.name,
    ...at.map((i) => c.losses[i].toFixed(4)),
    mean(c.losses.slice(-WINDOW)).toFixed(4),
    percent(mean(c.losses.slice(-WINDOW)), mean(first.losses.slice(-WINDOW))),
    c.validation.toFixed(4),
    percent(c.validation, first.validation),
  ]);
  const ends = [...heads, "largest window", "tokens/s", "weights"];
  const table = lines.map((line, v) => {
    const own = windows(curves[v].losses);
    const largest = Math.max(...windows(first.losses).map((m, i) => Math.abs(own[i] / m - 1)));
    const mib = `${(curves[v].weights / 2 ** 20).toFixed(0)} MiB`;
    return [...line, `${(largest * 100).toFixed(2)}%`, Math.round(curves[v].tokensPerSecond).toString(), mib];
  });
  return [ends, ends.map(() => "---"), ...table].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

async function main() {
  const wanted = options.variants.split(",");
  const unknown = wanted.find((name) => !(name in VARIANTS));
  if (unknown !== undefined)
    throw new Error(`--variants takes ${Object.keys(VARIANTS).join(", ")}; received "${unknown}"`);
  const missing = [options.model, options.data, options.held].find((file) => file !== undefined && !existsSync(file));
  if (missing !== undefined)
    throw new Error(`${missing} is not there: give --model and --data, or set TUNEBOOK_SHARED to a folder with them`);
  const rows = await readRows();
  const curves = [];
  for (const name of wanted) curves.push(await runVariant(name, rows));
  console.log(`${options.steps} steps of ${options.batch} rows, LoRA r ${options.rank}, on ${options.device}`);
  console.log(printed(curves));
  mkdirSync(options.report, { recursive: true });
  const file = join(options.report, `curves-${options.device}.json`);
  writeFileSync(file, `${JSON.stringify({ options, rows: rows.train.length, held: rows.held.length, curves })}\n`);
  console.log(`all losses: ${file}`);
}

main().catch((error) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
