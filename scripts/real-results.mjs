// node scripts/real-results.mjs [01|02|03|04|05]: runs a notebook through the kernel with a real model on real rows, checks what came out, and
// puts the figures (no row) into the notebook's cell tagged "figures". The executed notebook, which does show rows, stays in .cache/real.
// Models and data are those of ../shared or TUNEBOOK_SHARED. Afterwards execute the notebook anew:
//   node dist/kernel/cli.js run notebooks/NAME.ipynb -o notebooks/NAME.ipynb
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { run, step } from "./setup.mjs";
import { shared } from "./shared.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

const RUNS = {
  "01": {
    files: {
      modelId: "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf",
      trainFile: "data/dialogsum/dialogsum.train.jsonl.gz",
      validationFile: "data/dialogsum/dialogsum.dev.jsonl",
      testFile: "data/dialogsum/dialogsum.test.jsonl",
    },
    parameters: {
      dtype: "bfloat16",
      compute: "bfloat16",
      doubleQuant: true,
      trainRows: 300,
      validationRows: 64,
      testRows: 32,
      longest: 1024,
      packing: true,
      epochs: 2,
      batch: 1,
      accumulate: 2,
      rank: 16,
      alpha: 32,
      learningRate: 5e-4,
      maxNewTokens: 96,
    },
    checks: (f) => [
      ["the whole notebook takes at most 15 minutes", f.seconds, f.seconds <= 15 * 60],
      [
        "the validation loss falls by at least 0.3",
        `${f.validation.before.toFixed(3)} → ${f.validation.after.toFixed(3)}`,
        f.validation.before - f.validation.after >= 0.3,
      ],
      [
        "ROUGE-L rises",
        f.metrics.rougeL.map((x) => x.toFixed(3)).join(" → "),
        f.metrics.rougeL[1] > f.metrics.rougeL[0],
      ],
      [
        "the weights take less than half of their 16 bits",
        `${f.memory.weights} bytes`,
        f.memory.weights < f.model.parameters,
      ],
    ],
  },
  "02": {
    files: {
      modelId: "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf",
      trainFile: "data/sms_spam/SMSSpamCollection.tsv",
    },
    parameters: {
      testFile: "",
      columns: "label,text",
      textField: "text",
      labelField: "label",
      honest: "ham",
      dtype: "bfloat16",
      trainRows: 720,
      balanced: true,
      validationRows: 96,
      testRows: 400,
      epochs: 1,
      batch: 8,
      learningRate: 5e-4,
      evalEvery: 15,
    },
    checks: (f) => [
      ["the whole notebook takes at most 15 minutes", f.seconds, f.seconds <= 15 * 60],
      ["F1 of spam is at least 0.90", f1(f.after).toFixed(4), f1(f.after) >= 0.9],
      [
        "the weights take less than half of their 16 bits",
        `${f.loaded.in4Bits} of ${f.loaded.in16Bits} bytes`,
        f.loaded.in4Bits < f.loaded.in16Bits / 2,
      ],
    ],
  },
  "03": {
    files: {
      modelId: "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf",
      trainFile: "data/dialogsum/dialogsum.train.jsonl.gz",
      validationFile: "data/dialogsum/dialogsum.dev.jsonl",
      testFile: "data/dialogsum/dialogsum.test.jsonl",
    },
    parameters: {
      dtype: "bfloat16",
      compute: "bfloat16",
      trainRows: 240,
      validationRows: 30,
      testRows: 40,
      longest: 1024,
      fastLearningRate: 2e-4,
      packedEpochs: 1,
      packedLearningRate: 2e-4,
      pairRows: 200,
      orpoLearningRate: 5e-4,
      orpoBeta: 1,
      dpoLearningRate: 1e-4,
      maxNewTokens: 96,
    },
    checks: (f) => {
      const of = (name) => f.results.find(({ adapter }) => adapter === name);
      const shown = (key) => f.results.map((r) => `${r.adapter} ${r[key].toFixed(3)}`).join(", ");
      return [
        [
          "orpo prefers the better answer in more than 0.8 of the held-out pairs",
          shown("preferenceAccuracy"),
          of("orpo").preferenceAccuracy > 0.8 && of("base").preferenceAccuracy < 0.8,
        ],
        [
          "each adapter lowers the loss but dpo's, which has no such aim",
          shown("loss"),
          ["fast", "packed", "orpo"].every((name) => of(name).loss < of("base").loss),
        ],
        [
          "ROUGE-L rises by both recipes of SFT",
          shown("rougeL"),
          ["fast", "packed"].every((name) => of(name).rougeL > of("base").rougeL),
        ],
      ];
    },
  },
  "04": {
    files: {
      modelId: "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf",
      trainFile: "data/code_toy/mbpp.jsonl",
      testFile: "data/code_toy/HumanEval.jsonl.gz",
    },
    parameters: {
      dtype: "float32",
      trainFields: "text,code",
      testFields: "prompt,canonical_solution",
      trainRows: 64,
      testRows: 24,
      maxLength: 384,
      learningRate: 5e-4,
      maxNewTokens: 48,
    },
    checks: (f) => [
      ["the whole notebook takes at most 20 minutes", f.seconds, f.seconds <= 20 * 60],
      [
        "by hand and built in are the same: losses of a step differ by less than 0.01 nats",
        f.furthest,
        f.furthest < 0.01 && f.runs.byHand.trainable === f.runs.builtIn.trainable,
      ],
      [
        "the loss on problems of another collection falls",
        [f.before, f.after.byHand, f.after.builtIn].map(({ loss }) => loss.toFixed(3)).join(" → "),
        f.after.byHand.loss < f.before.loss && f.after.builtIn.loss < f.before.loss,
      ],
    ],
  },
  "05": {
    files: {
      modelId: "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf",
      rowsFile: "data/alpaca_gpt4_zh/alpaca_zh_demo.json",
    },
    parameters: {
      dtype: "bfloat16",
      trainRows: 400,
      testRows: 40,
      answeredRows: 0,
      maxLength: 128,
      epochs: 1,
      accumulate: 4,
      learningRate: 1e-2,
      maxNewTokens: 24,
    },
    checks: (f) => [
      ["the whole notebook takes at most 15 minutes", f.seconds, f.seconds <= 15 * 60],
      [
        "the loss of the answers falls by at least 0.15",
        f.measured.loss.map((x) => x.toFixed(3)).join(" → "),
        f.measured.loss[0] - f.measured.loss[1] >= 0.15,
      ],
      ["r 8 on two matrices of 30 layers", f.model.trainable, f.model.trainable === 460_800],
    ],
  },
};

const f1 = ({ fp, fn, tp }) => (2 * tp) / (2 * tp + fp + fn);

/** What `const figures` holds, one field a line. */
function figuresCell(figures) {
  const lines = Object.entries(figures).map(([name, value]) => `  ${name}: ${JSON.stringify(value)},`);
  return [
    "// Written by scripts/real-results.mjs after its run: figures, and none of the rows.",
    "const real = {",
    ...lines,
    "};",
  ].join("\n");
}

function main() {
  const [number = "01"] = process.argv.slice(2);
  const plan = RUNS[number];
  if (!plan) throw new Error(`there is no run for ${number}; there are ${Object.keys(RUNS).join(", ")}`);
  const name = readdirSync(join(root, "notebooks")).find(
    (file) => file.startsWith(`${number}-`) && file.endsWith(".ipynb") && !file.endsWith(".out.ipynb"),
  );
  const notebook = join("notebooks", name);
  const missing = Object.values(plan.files).find((file) => !existsSync(join(shared, file)));
  if (missing) throw new Error(`${join(shared, missing)} is absent; say in TUNEBOOK_SHARED which folder has it`);
  const folder = join(root, ".cache", "real");
  const figuresFile = join(folder, `${number}.json`);
  mkdirSync(folder, { recursive: true });
  rmSync(figuresFile, { force: true });

  const given = (parameters) => Object.entries(parameters).flatMap(([key, value]) => ["-p", `${key}=${value}`]);
  const inShared = Object.fromEntries(Object.entries(plan.files).map(([key, file]) => [key, join(shared, file)]));
  const output = join(folder, name);
  const words = ["run", notebook, "-o", output, ...given({ ...inShared, ...plan.parameters, figuresFile })];
  step(`tunebook run ${notebook}`);
  const started = performance.now();
  run(process.execPath, [join("dist", "kernel", "cli.js"), ...words]);
  const seconds = Math.round((performance.now() - started) / 1000);

  // Shown without folders: those are this machine's own.
  const shown = Object.fromEntries(Object.entries(plan.files).map(([key, file]) => [key, basename(file)]));
  const command = ["tunebook run", name, ...given({ ...shown, ...plan.parameters })].join(" ");
  const figures = { command, seconds, ...JSON.parse(readFileSync(figuresFile, "utf8")) };
  let failed = 0;
  for (const [what, value, holds] of plan.checks(figures)) {
    console.log(`${holds ? "ok" : "not ok"} ${what}: ${value}`);
    if (!holds) failed++;
  }
  if (failed > 0) throw new Error(`${failed} of the checks failed; the notebook stays as it was`);

  const book = JSON.parse(readFileSync(join(root, notebook), "utf8"));
  const cell = book.cells.find((one) => one.metadata.tags?.includes("figures"));
  if (!cell) throw new Error(`${notebook} has no cell tagged "figures"`);
  cell.source = figuresCell(figures).split(/(?<=\n)/);
  writeFileSync(join(root, notebook), `${JSON.stringify(book, null, 1)}\n`);
  step(`the figures stand in ${notebook}; execute it anew: node dist/kernel/cli.js run ${notebook} -o ${notebook}`);
}

try {
  main();
} catch (error) {
  console.error(`real-results: ${error.message}`);
  process.exitCode = 1;
}
