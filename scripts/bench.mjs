// npm run bench: tunebook beside its peers on the same cores, in rounds that take turns. What counts is the ratio: machines differ, and shared ones drift
// from minute to minute.
//   node scripts/bench.mjs [lora|decode|batch|gemm|gemv|load|kernel …] [--rounds N] [--steps N per round] [--tokens N per round] [--filter text] [--smoke] [--no-setup]
// Parts: "lora" (a LoRA step beside transformers + PEFT and bitsandbytes), "decode" (generation beside llama.cpp), "batch" (decoding several sequences beside one), "gemm" (matrix products beside torch), "gemv" (products of one row beside plain reading of memory), "load" (opening a GGUF file), "kernel" (the kernel beside tslab, Deno and ipykernel); all of them when none is named.
// --filter takes the cases whose name contains a text. --smoke takes a small model, which only shows that the harness works.
import { parseArgs } from "node:util";
import { benchBatch } from "./bench/batch.mjs";
import { benchDecode } from "./bench/decode.mjs";
import { benchGemm } from "./bench/gemm.mjs";
import { benchGemv } from "./bench/gemv.mjs";
import { benchKernel, preparePeers } from "./bench/kernel.mjs";
import { benchLoad } from "./bench/load.mjs";
import { benchLora } from "./bench/lora.mjs";
import { setup, step } from "./setup.mjs";
import { ensureVenv } from "./venv.mjs";

const PARTS = {
  lora: async (options) => {
    step("preparing the Python packages");
    await ensureVenv("peers");
    step("LoRA steps");
    await benchLora(options);
  },
  decode: async (options) => {
    step("decoding");
    await benchDecode(options);
  },
  load: async (options) => {
    step("loading a model");
    await benchLoad(options);
  },
  batch: async (options) => {
    step("decoding several sequences");
    await benchBatch(options);
  },
  gemm: async (options) => {
    step("preparing the Python packages");
    await ensureVenv("peers");
    step("matrix products");
    await benchGemm(options);
  },
  gemv: async (options) => {
    step("products of one row");
    await benchGemv(options);
  },
  kernel: async (options) => {
    step("preparing tslab, Deno and ipykernel");
    await ensureVenv("jupyter");
    preparePeers();
    step("the kernel");
    await benchKernel(options);
  },
};

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: "string" },
      steps: { type: "string", default: "2" },
      tokens: { type: "string", default: "64" },
      filter: { type: "string", default: "" },
      smoke: { type: "boolean", default: false },
      "no-setup": { type: "boolean", default: false },
    },
  });
  const unknown = positionals.find((name) => !Object.hasOwn(PARTS, name));
  if (unknown !== undefined) throw new Error(`there is no part "${unknown}": ${Object.keys(PARTS).join(", ")}`);
  if (!values["no-setup"]) setup();
  for (const name of positionals.length > 0 ? positionals : Object.keys(PARTS)) {
    await PARTS[name]({
      smoke: values.smoke,
      filter: values.filter,
      rounds: Number(values.rounds ?? (name === "decode" ? 8 : 5)),
      steps: Number(values.steps),
      count: Number(values.tokens),
    });
  }
}

main().catch((error) => {
  console.error(`bench: ${error.stack ?? error}`);
  process.exitCode = 1;
});
