import type { Checkpointing } from "../autograd/checkpoint.js";
import { recordApart } from "../autograd/tape.js";
import { collate } from "../data/collate.js";
import { type Example, IGNORED } from "../data/mask.js";
import { plannedPicture } from "../images/patches.js";
import type { CausalLM } from "../models/causal.js";
import { Embedding } from "../nn/layers.js";
import { QuantizedLinear } from "../quantization/nf4.js";
import type { Device } from "../tensor/device.js";
import { dryRun, roundedBytes } from "../tensor/dry.js";
import { DTYPE_BYTES, type FloatDType } from "../tensor/dtype.js";
import { randomState, restoreRandomState } from "../tensor/ops/random.js";
import { withGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { empty, Tensor } from "../tensor/tensor.js";
import { type Objective, TokenObjective } from "./objective.js";
import { LEAST_PAGED, stateLayout } from "./optimizer.js";
import { type OptimizerName, optimizerKind } from "./optimizer-names.js";
import { type DpoLoss, type Method, trainSettings } from "./options.js";
import { PAGE_BYTES } from "./paged.js";
import { PreferenceObjective } from "./preference.js";

/** The step whose memory is predicted. */
export interface PlannedStep {
  /** Rows a micro-batch. */
  batch: number;
  /** Tokens a row. */
  length: number;
  accumulate: number;
  checkpointing: Checkpointing;
  optimizer: OptimizerName;
  momentum: number;
  device: Device;
  /** Dtype of activations where the device computes in 16 bits; the model's own by default. */
  activations?: FloatDType | undefined;
  /** Whether the best parameters are kept beside the newest. */
  keepBest?: boolean;
  method?: Method;
  lossType?: DpoLoss;
  neftune?: number;
  /** Tokens that each image of a row takes; they are among its `length`. */
  imageTokens?: readonly number[] | undefined;
}

/** Sequences of `length` tokens that a micro-batch has: two a row where rows are pairs of answers. */
export function sequencesOf({ batch, method = "sft" }: PlannedStep): number {
  return method === "sft" ? batch : 2 * batch;
}

/** Predicted bytes of a training step, by part. */
export interface StepBytes {
  gradients: number;
  /** Moments, and on a GPU what is copied of paged ones at once. */
  optimizer: number;
  /** Everything else that is alive at the highest point. */
  activations: number;
  /** Copies of the best parameters. */
  other: number;
  /** One chunk of logits: working memory. */
  logits: number;
  /** Other working memory. */
  scratch: number;
  /** In a GPU's host memory: paged moments and offloaded activations. */
  host: number;
}

const GPU_LOGITS = 128 * 2 ** 20; // native/cuda/linear_cross_entropy.cu
const GPU_WORKSPACE = 32 * 2 ** 20; // native/cuda/matmul.cu
const CPU_LOGITS = 2 ** 24; // elements, native/cpu/cross_entropy.cc

/** Predicts the memory of a step by going through it without computing anything. The model is left as it is, and needs no weights. */
export function estimateStep(network: CausalLM, step: PlannedStep): StepBytes {
  const trained = network.trainableParameters();
  const rounded = (bytes: number): number => roundedBytes(bytes, step.device);
  const gradients = trained.reduce((n, p) => n + rounded(p.bytes), 0);
  const { kind, paged } = optimizerKind(step.optimizer);
  let optimizer = 0;
  let away = 0;
  for (const p of trained) {
    const own = stateLayout(kind, p.size, step.momentum).reduce(
      (n, [, dtype, k]) => n + rounded(k * DTYPE_BYTES[dtype]),
      0,
    );
    if (paged && step.device === "cuda" && p.size >= LEAST_PAGED) away += own;
    else optimizer += own;
  }
  const pages = Math.min(away, 3 * PAGE_BYTES);
  const run = dryStep(network, step);
  // The highest point is in a backward pass, or in the optimizer's step when gradients and pages are most of it.
  const top = Math.max(run.peak, gradients + pages);
  return {
    gradients,
    optimizer: optimizer + pages,
    activations: Math.max(0, top - gradients - pages),
    other: step.keepBest ? gradients : 0, // as large as the parameters
    ...workingBytes(network, step),
    host: away + run.host,
  };
}

/** One micro-batch, and another one over its gradients when they are accumulated. */
function dryStep(network: CausalLM, step: PlannedStep): { peak: number; host: number } {
  const example = plannedExample(network, step);
  const examples = Array.from({ length: sequencesOf(step) }, () => example);
  const micro = {
    batch: collate(examples, { padId: 0, paddingSide: "none" }),
    rows: Int32Array.from({ length: step.batch }, (_, i) => i),
  };
  const objective = objectiveOf(network, step);
  const restore = set(network, step);
  try {
    return dryRun(step.device, () =>
      withGrad(() =>
        recordApart(() =>
          scope(() => {
            const sum = empty([1], "float32", network.device);
            for (let i = 0; i < Math.min(2, step.accumulate); i++) objective.accumulate(micro, sum);
            objective.dispose?.();
          }),
        ),
      ),
    );
  } finally {
    restore();
  }
}

/** A row of so many tokens, those of its images first. */
function plannedExample({ sight }: CausalLM, { length, imageTokens = [] }: PlannedStep): Example {
  const ids = new Int32Array(length);
  if (sight === undefined || imageTokens.length === 0) return { ids, labels: ids };
  const shown = imageTokens.reduce((sum, tokens) => sum + tokens, 0);
  const labels = ids.slice().fill(IGNORED, 0, shown);
  const pictures = imageTokens.map((tokens) => plannedPicture(tokens, sight.settings));
  return { ids: ids.fill(sight.imageToken, 0, shown), labels, pictures };
}

/** The loss that a run of this method makes smaller. Its reference was computed before, of one pair at a time. */
function objectiveOf(network: CausalLM, step: PlannedStep): Objective {
  const { method = "sft", lossType, neftune, checkpointing } = step;
  const own = method === "dpo" ? { ...(lossType ? { lossType } : {}) } : method === "sft" && neftune ? { neftune } : {};
  const settings = trainSettings({ method, checkpointing, ...own });
  if (method === "sft") return new TokenObjective(network, settings, [], 0);
  const empty = { ids: new Int32Array(), labels: new Int32Array() };
  const pairs = Array.from({ length: step.batch }, () => ({ chosen: empty, rejected: empty }));
  return new PreferenceObjective(network, settings, pairs, [], async (fn) => fn());
}

/** Puts a model in the state of a step's begin; the returned function puts it back. */
function set(network: CausalLM, { activations, method = "sft" }: PlannedStep): () => void {
  const random = randomState();
  const parameters = network.trainableParameters();
  const grads = parameters.map((p) => p.grad);
  for (const p of parameters) p.grad = undefined;
  const modules = [...network.namedModules()].map(([, m]) => m);
  const training = modules.map((m) => m.training);
  const embeddings = modules.filter((m) => m instanceof Embedding);
  const dtypes = embeddings.map((m) => m.activations);
  network.train(method === "sft"); // as the loop does
  if (activations) for (const m of embeddings) m.activations = activations;
  return () => {
    parameters.forEach((p, i) => {
      p.grad = grads[i];
    });
    modules.forEach((m, i) => {
      m.training = training[i]!;
    });
    embeddings.forEach((m, i) => {
      m.activations = dtypes[i];
    });
    restoreRandomState(random);
  };
}

/** Few key heads: their gradients are made in so many parts (`parts_of_group` in native/cuda/attention_backward.cuh) on 132 multiprocessors. */
function attentionParts(rows: number, group: number, kvHeads: number, headDim: number): number {
  const blocks = Math.ceil(rows / 128) * kvHeads;
  const most = Math.max(1, Math.floor(2 ** 28 / (8 * rows * kvHeads * headDim)));
  let best = 1;
  let soonest = Number.POSITIVE_INFINITY;
  for (let parts = 1; parts <= Math.min(group, most); parts++) {
    const time = Math.ceil((blocks * parts) / 264) * Math.ceil(group / parts);
    if (time < soonest) [soonest, best] = [time, parts];
  }
  return best;
}

/** What operations take for themselves while they run. */
function workingBytes(network: CausalLM, step: PlannedStep): { logits: number; scratch: number } {
  const { hiddenSize, heads, kvHeads, headDim } = network.config;
  const vocabSize = network.labels?.length ?? network.config.vocabSize;
  const rows = sequencesOf(step) * step.length;
  if (step.device === "cpu") {
    const chunk = Math.min(rows, Math.max(1, Math.floor(CPU_LOGITS / vocabSize)));
    return { logits: 4 * chunk * (vocabSize + 2 * hiddenSize), scratch: 0 };
  }
  const item = DTYPE_BYTES[step.activations ?? "bfloat16"];
  const row = Math.ceil(vocabSize / 8) * 8 * item;
  const pieces = Math.ceil(rows / Math.max(1, Math.floor(GPU_LOGITS / row)));
  // Quantised and float32 weights are restored or rounded one at a time. FP8 weights that meet rounded inputs are only transposed, a byte an element, and
  // the inputs' codes stand beside them.
  let widest = 0;
  let codes = 0;
  for (const [, m] of network.namedModules()) {
    const rounds = m instanceof QuantizedLinear && m.options.roundInputs;
    widest = Math.max(widest, m.ownElements() / (rounds ? 2 : 1));
    if (rounds) codes = Math.max(codes, rows * (Math.max(m.inFeatures, m.outFeatures) + 4));
  }
  const parts = attentionParts(rows, heads / kvHeads, kvHeads, headDim);
  const attention = 8 * heads * rows + (parts > 1 ? parts * 8 * rows * kvHeads * headDim : 0);
  const logits = Math.ceil(rows / pieces) * row;
  // The logits stand where restored weights stand, unless the head's own weight is rounded for them.
  const head = network.headWeight();
  const converted = head instanceof Tensor && DTYPE_BYTES[head.dtype] > item;
  const restored = 2 * (converted ? Math.max(widest, head.size) : Math.max(0, widest - logits / 2));
  return { logits, scratch: GPU_WORKSPACE + restored + codes + attention };
}
