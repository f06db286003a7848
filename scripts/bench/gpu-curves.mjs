// node scripts/bench/gpu-curves.mjs [--variants bf16,fp8,fp8-keep,nf4,float32-reference] [--steps 300] [--device cuda]: one training run done in several
// precisions. Every variant begins with the same weights, adapter (LoRA, every linear layer) and rows, and goes through them in the same order; what
// differs is arithmetic alone. Prints losses every 50 steps, the mean of the last 50, the loss on held-out rows, and how far each is from the first
// variant; writes all losses as JSON. Needs no Python; on the CPU (--device cpu) take fewer steps.
//   --model PATH   a folder or a .gguf file; by default SmolLM2-135M of ../shared or TUNEBOOK_SHARED
//   --data FILE    JSON lines (also .gz) of { prompt, completion }, { messages }, { text } or { dialogue, summary }; by default DialogSum from there
//   --held FILE    rows to measure on; by default the last --validation ones of the data
//   --rows 2000  --validation 100  --batch 8  --length 512  --rank 16  --lr 5e-4  --seed 1  --packing  --checkpointing selective  --report FOLDER
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { DIALOGSUM, requireFiles, SMOLLM2 } from "../shared.mjs";
import { compareCurves, largestDifference, runCurve, windowMeans } from "./curves.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: SMOLLM2 },
    data: { type: "string", default: DIALOGSUM },
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

const files = {
  model: options.model,
  rows: options.data,
  ...(options.held === undefined ? {} : { held: options.held }),
};
const work = {
  files,
  rows: Number(options.rows),
  held: Number(options.validation),
  steps: Number(options.steps),
  batch: Number(options.batch),
  maxLength: Number(options.length),
  rank: Number(options.rank),
  lr: Number(options.lr),
  seed: Number(options.seed),
  adapterSeed: Number(options.seed),
};

async function runVariant(name) {
  const { dtype, quantize } = VARIANTS[name];
  const way = {
    name,
    load: { device: options.device, dtype },
    quantize,
    train: { packing: options.packing, checkpointing: options.checkpointing },
  };
  const { losses, last } = await runCurve(way, work, ({ step, loss }) => {
    if (step % WINDOW === 0) process.stderr.write(`${name}: step ${step}, loss ${loss.toFixed(4)}\n`);
  });
  return { name, losses, ...last };
}

const percent = (value, reference) => `${((value / reference - 1) * 100).toFixed(2)}%`;
const lastMean = ({ losses }) => windowMeans(losses.slice(-WINDOW), WINDOW)[0];

function printed(curves) {
  const [first] = curves;
  const at = first.losses.flatMap((_, i) => ((i + 1) % WINDOW === 0 ? [i] : []));
  const heads = ["variant", ...at.map((i) => `step ${i + 1}`), `mean of last ${WINDOW}`, "", "held out", ""];
  const lines = curves.map((c) => [
    c.name,
    ...at.map((i) => c.losses[i].toFixed(4)),
    lastMean(c).toFixed(4),
    percent(lastMean(c), lastMean(first)),
    c.validation.toFixed(4),
    percent(c.validation, first.validation),
  ]);
  const ends = [...heads, "largest window", "tokens/s", "weights"];
  const table = lines.map((line, v) => {
    const largest = largestDifference(compareCurves(first, curves[v], WINDOW));
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
  requireFiles(Object.values(files), "give --model and --data, or set TUNEBOOK_SHARED to a folder with them");
  const curves = [];
  for (const name of wanted) curves.push(await runVariant(name));
  console.log(`${options.steps} steps of ${options.batch} rows, LoRA r ${options.rank}, on ${options.device}`);
  console.log(printed(curves));
  mkdirSync(options.report, { recursive: true });
  const file = join(options.report, `curves-${options.device}.json`);
  writeFileSync(file, `${JSON.stringify({ options, curves })}\n`);
  console.log(`all losses: ${file}`);
}

main().catch((error) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
