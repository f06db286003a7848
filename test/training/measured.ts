// What `estimate` predicts from a config alone beside what two steps of training take, each case in a process of its own.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Device, EstimateOptions, LoraOptions, QuantizeOptions } from "../../src/index.js";

/** A model and a step. */
export interface Case {
  name: string;
  /** "embedded", or a shape of test/training/measured-child.ts. */
  model: "embedded" | "SmolLM2-135M" | "grouped" | "seeing";
  /** The CPU by default. */
  device?: Device;
  dtype?: "float32" | "bfloat16" | "float16";
  quantize?: QuantizeOptions;
  /** Without it all parameters are trained. */
  lora?: LoraOptions;
  options: Pick<
    EstimateOptions,
    | "method"
    | "lossType"
    | "neftune"
    | "batch"
    | "length"
    | "accumulate"
    | "checkpointing"
    | "optimizer"
    | "momentum"
    | "packing"
    | "keepBest"
    | "imageTokens"
  > & { batch: number; length: number };
}

/** Bytes. */
export interface Measured {
  /** The estimate's peak, of a model without weights. */
  predicted: number;
  /** Its working memory: part of the peak on a GPU, beside it on the CPU. */
  working: number;
  /** What else of the machine's memory it takes. */
  beside: number;
  /** What tensors took at the highest point of two steps. */
  measured: number;
  /** How much the process grew by them and by the model. */
  resident: number;
}

const all = { rank: 16, target: "all-linear" } as const;

/** The embedded model: small enough for a test. */
export const SMALL: readonly Case[] = [
  {
    name: "full training, float32, adamw",
    model: "embedded",
    options: { batch: 4, length: 128, checkpointing: "none", optimizer: "adamw" },
  },
  {
    name: "full training, float32, 8-bit adamw, the best kept",
    model: "embedded",
    options: {
      batch: 2,
      length: 256,
      checkpointing: "selective",
      optimizer: "adamw8bit",
      accumulate: 2,
      keepBest: true,
    },
  },
  {
    name: "full training, float32, sgd with momentum",
    model: "embedded",
    options: { batch: 8, length: 64, checkpointing: "full", optimizer: "sgd", momentum: 0.9 },
  },
  {
    name: "LoRA over NF4, dropout, packed rows",
    model: "embedded",
    quantize: { type: "nf4", doubleQuant: true },
    lora: { ...all, dropout: 0.1 },
    options: { batch: 2, length: 256, checkpointing: "selective", optimizer: "adamw8bit", packing: true },
  },
  {
    name: "dpo, LoRA over bfloat16",
    model: "embedded",
    dtype: "bfloat16",
    lora: { ...all, dropout: 0.1 },
    options: { method: "dpo", batch: 2, length: 128, checkpointing: "selective", optimizer: "adamw", accumulate: 2 },
  },
  {
    name: "orpo, LoRA over float32",
    model: "embedded",
    lora: all,
    options: { method: "orpo", batch: 4, length: 64, checkpointing: "none", optimizer: "adamw" },
  },
  {
    name: "DoRA over int8, NEFTune",
    model: "embedded",
    quantize: { type: "int8" },
    lora: { ...all, dora: true },
    options: { batch: 4, length: 128, checkpointing: "none", optimizer: "paged-adamw", neftune: 5 },
  },
  {
    name: "LoRA over FP8",
    model: "embedded",
    quantize: { type: "fp8" },
    lora: all,
    options: { batch: 4, length: 128, checkpointing: "selective", optimizer: "adamw" },
  },
  {
    name: "LoRA behind a frozen vision tower",
    model: "seeing",
    lora: { rank: 8, target: ["q_proj", "v_proj"] },
    options: { batch: 2, length: 320, imageTokens: [200, 64], checkpointing: "selective", optimizer: "adamw" },
  },
  {
    name: "LoRA in the vision tower too",
    model: "seeing",
    lora: all,
    options: { batch: 2, length: 200, imageTokens: [120], checkpointing: "none", optimizer: "adamw", accumulate: 2 },
  },
];

/** Larger ones, for the script. */
export const LARGE: readonly Case[] = [
  {
    name: "LoRA over bfloat16",
    model: "SmolLM2-135M",
    dtype: "bfloat16",
    lora: all,
    options: { batch: 2, length: 256, checkpointing: "none", optimizer: "adamw" },
  },
  {
    name: "LoRA over bfloat16, 4 x 256",
    model: "SmolLM2-135M",
    dtype: "bfloat16",
    lora: all,
    options: { batch: 4, length: 256, checkpointing: "selective", optimizer: "adamw" },
  },
  {
    name: "LoRA over NF4, accumulated",
    model: "SmolLM2-135M",
    dtype: "bfloat16",
    quantize: { type: "nf4", doubleQuant: true },
    lora: { ...all, dropout: 0.05 },
    options: { batch: 2, length: 512, accumulate: 2, checkpointing: "full", optimizer: "paged-adamw8bit" },
  },
  {
    name: "LoRA over int8, packed rows",
    model: "SmolLM2-135M",
    quantize: { type: "int8" },
    lora: { rank: 64, target: ["q_proj", "v_proj"] },
    options: { batch: 1, length: 512, checkpointing: "selective", optimizer: "adamw", packing: true },
  },
  {
    name: "LoRA over float32, the embedding trained whole",
    model: "SmolLM2-135M",
    lora: { ...all, modulesToSave: ["embed_tokens"] },
    options: { batch: 2, length: 128, checkpointing: "full", optimizer: "adamw8bit" },
  },
  {
    name: "full training, float32, 8-bit adamw",
    model: "SmolLM2-135M",
    options: { batch: 1, length: 256, checkpointing: "full", optimizer: "adamw8bit" },
  },
  {
    name: "full training, float32, sgd",
    model: "SmolLM2-135M",
    options: { batch: 2, length: 256, checkpointing: "selective", optimizer: "sgd" },
  },
  {
    name: "LoRA over FP4, grouped keys, long rows",
    model: "grouped",
    quantize: { type: "fp4" },
    lora: { ...all, rslora: true },
    options: { batch: 1, length: 2048, checkpointing: "selective", optimizer: "adamw" },
  },
];

const child = fileURLToPath(new URL("measured-child.js", import.meta.url));

/** Predicts and measures one case in a new process. @throws when that fails, with what it wrote. */
export function measure(one: Case): Promise<Measured> {
  return new Promise((resolve, reject) => {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const running = fork(child, [], { env, stdio: ["ignore", "ignore", "pipe", "ipc"] });
    let errors = "";
    let result: Measured | undefined;
    running.stderr?.setEncoding("utf8").on("data", (text: string) => {
      errors += text;
    });
    running.on("message", (message) => {
      result = message as Measured;
    });
    running.on("error", reject);
    running.on("close", (code) => {
      if (result) resolve(result);
      else reject(new Error(`${one.name}: the process ended with ${code}: ${errors}`));
    });
    running.send(one);
  });
}
