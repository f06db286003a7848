// node scripts/real-curves.mjs [--pairs dense,nf4] [--device cuda] [--steps 300] [--report FOLDER] [--draw]: loss curves of the fast paths beside those of the
// slower reference path, on SmolLM2-135M and DialogSum. The reference computes everything in float32 with the plain kernels (on the CPU those for AVX2)
// and keeps every activation; the fast path takes bfloat16, the machine's best instructions and selective checkpointing. Means over windows of 50 steps
// must agree within 1%. Writes the curves as curves-DEVICE-PAIR.json; and pictures of all pairs that lie there, which --draw makes without running anything.
// Models and data are those of ../shared or TUNEBOOK_SHARED.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { compareCurves, largestDifference, plotCurves, plotDifferences, runCurve } from "./bench/curves.mjs";

const WINDOW = 50;
const LARGEST = 0.01;
const nf4 = { type: "nf4", doubleQuant: true };
const { values: options } = parseArgs({
  options: {
    pairs: { type: "string", default: "dense,nf4" },
    device: { type: "string", default: "cpu" },
    steps: { type: "string", default: "300" },
    report: { type: "string", default: ".cache/curves" },
    draw: { type: "boolean", default: false },
  },
});
const { device } = options;
const slow = device === "cpu" ? { TUNEBOOK_ISA: "avx2" } : {};
const work = { steps: Number(options.steps), batch: 2, maxLength: 256, rank: 16, lr: 5e-4, rows: 2000, longest: 700 };
const reference = { load: { device, dtype: "float32" }, train: { checkpointing: "none" }, env: slow };
const fast = { load: { device, dtype: "bfloat16" }, train: { checkpointing: "selective" } };

/** Both sides of a pair begin from the same values: NF4's codes are equal, dense weights (of NF4 the embedding and head) are rounded to bfloat16 on the fast side. */
const PAIRS = {
  dense: {
    title: "SmolLM2-135M, dense weights",
    ways: [
      { name: "float32, reference", ...reference },
      { name: "bfloat16", ...fast },
    ],
  },
  nf4: {
    title: "SmolLM2-135M, NF4 weights",
    ways: [
      { name: "NF4, float32, reference", ...reference, quantize: { ...nf4, compute: "float32" } },
      { name: "NF4, bfloat16", ...fast, quantize: { ...nf4, compute: "bfloat16" } },
    ],
  },
};

const fileOf = (name) => join(options.report, `curves-${device}-${name}.json`);

async function measure(name) {
  const { title, ways } = PAIRS[name];
  const curves = [];
  for (const way of ways) {
    const curve = await runCurve(way, work, ({ step, loss, seconds }) => {
      if (step % WINDOW === 0)
        console.log(`${way.name}: step ${step}, loss ${loss.toFixed(4)}, ${Math.round(seconds)} s`);
    });
    curves.push(curve);
  }
  const windows = compareCurves(curves[0], curves[1], WINDOW);
  writeFileSync(fileOf(name), `${JSON.stringify({ title, work, windows, curves })}\n`);
  console.log(title);
  console.table(
    windows.map((w) => ({
      steps: `${w.from}–${w.to}`,
      reference: w.reference.toFixed(4),
      fast: w.loss.toFixed(4),
      "difference, %": (100 * w.difference).toFixed(3),
    })),
  );
  const worst = largestDifference(windows);
  console.log(`${worst <= LARGEST ? "ok" : "not ok"} largest difference of a window: ${(100 * worst).toFixed(3)}%`);
  if (!(worst <= LARGEST)) process.exitCode = 1;
}

async function draw() {
  const pairs = Object.keys(PAIRS)
    .filter((name) => existsSync(fileOf(name)))
    .map((name) => JSON.parse(readFileSync(fileOf(name), "utf8")));
  const title = "SmolLM2-135M on DialogSum, means of 20 steps";
  const figures = {
    "": plotCurves(
      pairs.flatMap(({ curves }) => curves),
      title,
    ),
    "-differences": plotDifferences(
      pairs.map(({ curves: [reference, curve] }) => [curve.name, reference, curve]),
      `${title}: difference from float32`,
    ),
  };
  for (const [what, figure] of Object.entries(figures))
    await figure.save(join(options.report, `curves-${device}${what}.png`));
}

async function main() {
  const wanted = options.pairs.split(",");
  const unknown = wanted.find((name) => !PAIRS[name]);
  if (unknown) throw new Error(`--pairs takes ${Object.keys(PAIRS).join(", ")}; received ${unknown}`);
  mkdirSync(options.report, { recursive: true });
  if (!options.draw) for (const name of wanted) await measure(name);
  // A GPU's machine may lack what pictures are made with: they can be drawn elsewhere.
  await draw().catch((error) => console.log(`no pictures: ${error.message}`));
}

main().catch((error) => {
  console.error(`real-curves: ${error.message}`);
  process.exitCode = 1;
});
