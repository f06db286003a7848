// One case of measured.ts: predicts from the config, then loads the model, trains two steps, and sends both figures.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Example, IGNORED } from "../../src/data/mask.js";
import { packRows } from "../../src/data/pack.js";
import { pairExamples } from "../../src/evaluation/preference.js";
import { plannedPicture } from "../../src/images/patches.js";
import { type LoadPlan, loadModel, type Model } from "../../src/index.js";
import { resetPeak, stats } from "../../src/tensor/native.js";
import { trainLoop } from "../../src/training/loop.js";
import { trainSettings } from "../../src/training/options.js";
import { PreferenceObjective } from "../../src/training/preference.js";
import { SMOLLM2_135M } from "../models/shapes.js";
import type { Case, Measured } from "./measured.js";

const SHAPES = {
  embedded: fileURLToPath(new URL("../../../notebooks/embedded/model", import.meta.url)),
  "SmolLM2-135M": SMOLLM2_135M,
  grouped: {
    model_type: "llama",
    vocab_size: 32000,
    hidden_size: 512,
    intermediate_size: 1792,
    num_hidden_layers: 6,
    num_attention_heads: 16,
    num_key_value_heads: 2,
    max_position_embeddings: 4096,
    tie_word_embeddings: false,
    attention_bias: true,
  },
  // A tower that takes more than the text behind it.
  seeing: {
    model_type: "qwen2_vl",
    vocab_size: 512,
    hidden_size: 128,
    intermediate_size: 256,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 1024,
    tie_word_embeddings: true,
    image_token_id: 511,
    rope_scaling: { type: "mrope", mrope_section: [4, 6, 6] },
    vision_config: { depth: 3, embed_dim: 256, num_heads: 4, hidden_size: 128 },
  },
};

process.once("message", async (one: Case) => {
  try {
    process.send?.(await measure(one));
  } finally {
    process.disconnect();
  }
});

async function measure(one: Case): Promise<Measured> {
  const { options, device = "cpu" } = one;
  const shape = SHAPES[one.model];
  const config = typeof shape === "string" ? await configOf(shape) : shape;
  const described = await adapted(one, loadModel(config, { weights: "none", device, ...dtypeOf(one) }));
  const estimate = described.estimate({ ...options, device });
  described.dispose();
  const predicted = estimate.peak;
  const working = estimate.logits + estimate.scratch;
  const beside = device === "cpu" ? working : estimate.host;

  const before = process.memoryUsage().rss;
  const from = typeof shape === "string" ? { progress: false } : { weights: "random" as const };
  const model = await adapted(one, loadModel(shape, { device, ...from, ...dtypeOf(one) }));
  resetPeak(device);
  await train(model, options);
  const measured = stats(device).peakBytes;
  const resident = process.resourceUsage().maxRSS * 1024 - before;
  model.dispose();
  return { predicted, working, beside, measured, resident };
}

async function configOf(folder: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as Record<string, unknown>;
}

const dtypeOf = ({ dtype }: Case): { dtype?: NonNullable<Case["dtype"]> } => (dtype ? { dtype } : {});

async function adapted({ quantize, lora }: Case, plan: LoadPlan): Promise<Model> {
  const quantised = quantize ? plan.quantize(quantize) : plan;
  return lora ? quantised.addLora(lora) : quantised;
}

/** Two optimizer steps of rows that fill the length; packed ones of many short examples. */
async function train(model: Model, { length, keepBest = false, imageTokens, ...rest }: Case["options"]): Promise<void> {
  const example = (tokens: number, from: number): Example => {
    const ids = Int32Array.from({ length: tokens }, (_, i) => 3 + (((from + i) * 7919) % (model.config.vocabSize - 4)));
    return imageTokens ? seeing(model, ids, imageTokens) : { ids, labels: ids };
  };
  const rows = 2 * rest.batch * (rest.accumulate ?? 1);
  // Lengths of 8, 16, 32, 64 … fill rows of a power of two.
  const short = Array.from({ length: rows }, () => [
    length / 2,
    length / 4,
    length / 8,
    length / 16,
    length / 16,
  ]).flat();
  const examples = rest.packing
    ? short.map((tokens, i) => example(tokens, i))
    : Array.from({ length: rows }, (_, i) => example(length, i));
  const settings = trainSettings({
    ...rest,
    steps: 2,
    progress: false,
    ...(keepBest ? { keepBest, evalEvery: 1, validation: [{}] } : {}),
  });
  const pairs = examples.map((chosen) => ({ chosen, rejected: chosen }));
  const preferences = settings.method !== "sft";
  const loop = trainLoop({
    model: model.module,
    train: preferences ? pairExamples(pairs) : examples,
    rows: rest.packing ? packRows(short, length).rows : preferences ? pairs.map(pairOf) : undefined,
    validation: keepBest ? [example(16, 0)] : undefined,
    objective: preferences
      ? new PreferenceObjective(model.module, settings, pairs, [], model.withoutAdapter.bind(model))
      : undefined,
    settings,
  });
  while (!(await loop.next()).done);
}

/** Images of noise behind the row's first token. */
function seeing({ module: { sight } }: Model, ids: Int32Array, imageTokens: readonly number[]): Example {
  const { imageToken, settings } = sight!;
  let at = 1;
  const pictures = imageTokens.map((tokens) => {
    const { width, height } = plannedPicture(tokens, settings);
    ids.fill(imageToken, at, at + tokens);
    at += tokens;
    return { width, height, tokens, data: Uint8Array.from({ length: 3 * width * height }, (_, i) => (i * 31) % 251) };
  });
  return { ids, labels: ids.map((id) => (id === imageToken ? IGNORED : id)), pictures };
}

const pairOf = (_: unknown, i: number): Int32Array => Int32Array.of(2 * i, 2 * i + 1);
