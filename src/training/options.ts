import { CHECKPOINTING, type Checkpointing } from "../autograd/checkpoint.js";
import { ConfigError } from "../errors.js";
import { callbackList, type TrainCallback } from "./callbacks.js";
import { type EarlyStopping, type EarlyStoppingOption, earlyStopping } from "./early-stopping.js";
import { type LogOption, logTargets } from "./log/run-log.js";
import { type OptimizerName, type OptimizerOption, optimizerName } from "./optimizer-names.js";
import type { PreferenceMetrics } from "./preference.js";
import type { ScheduleName } from "./schedule.js";

const METHODS = ["sft", "orpo", "dpo", "classification"] as const;
/** What `train` makes of the rows. */
export type Method = (typeof METHODS)[number];
/** Whether a method's rows are pairs of answers. */
export const ofPairs = (method: Method): boolean => method === "orpo" || method === "dpo";
const DPO_LOSSES = ["sigmoid", "hinge", "ipo"] as const;
export type DpoLoss = (typeof DPO_LOSSES)[number];

/** One logged step of a run. Losses in nats a token (orpo, dpo: a pair's loss), times in seconds, memory in bytes. */
export interface TrainStep extends PreferenceMetrics {
  step: number;
  epoch: number;
  loss: number;
  validationLoss?: number;
  /** orpo and dpo: `rewards/accuracies` and `rewards/margins` of the validation pairs. */
  validationAccuracy?: number;
  validationMargin?: number;
  lr: number;
  gradNorm: number;
  /** Trained tokens of this step. */
  tokens: number;
  /** Tokens that went through the model a second, prompts included. */
  tokensPerSecond: number;
  /** Bytes of tensors after the step. */
  memory: number;
  /** Bytes at the step's highest point. */
  peakMemory?: number;
  /** Those by part. */
  memoryParts?: StepMemory;
}

/** Bytes at the highest point of a step, by part; activations are all that is none of the others. */
export interface StepMemory {
  weights: number;
  adapters: number;
  gradients: number;
  optimizer: number;
  activations: number;
}

/** Options of `model.train` (api.md). Steps, epochs and sizes are counts; `lr` is the peak learning rate. */
export interface TrainOptions<Row = Record<string, unknown>> {
  /** Rows whose loss is measured while training. */
  validation?: Iterable<Row>;
  /**
   * "sft": texts, completions or the assistant's turns. "orpo" and "dpo": rows { prompt, chosen, rejected }, as texts or messages; the reference of
   * dpo is the model with its adapter switched off (without an adapter, as it is when the run starts). "classification": rows { text, label } or
   * { messages, label } for a model with a head for classes; losses are in nats a row.
   */
  method?: Method;
  /** Of dpo: "sigmoid" (default), "hinge" or "ipo". */
  lossType?: DpoLoss;
  /** orpo: weight of the odds ratio; dpo: how far the policy may leave the reference. Default 0.1. */
  beta?: number;
  /** Of orpo and dpo: longest prompt in tokens; of a longer one the end is kept. */
  maxPromptLength?: number;
  /** NEFTune: uniform noise of up to ± neftune / sqrt(tokens · hidden size) on the embeddings while training (sft). 0: none. */
  neftune?: number;
  epochs?: number;
  /** Optimizer steps in all; overrides epochs. */
  steps?: number;
  /** Rows a micro-batch. */
  batch?: number;
  /** Micro-batches an optimizer step. */
  accumulate?: number;
  lr?: number;
  schedule?: ScheduleName;
  /** Steps, or below 1 a share of the run. */
  warmup?: number;
  weightDecay?: number;
  /** Gradient norm above which the gradient is scaled down; 0: never. */
  maxGradNorm?: number;
  /** Names of transformers' `optim` ("adamw_torch", "adamw_8bit", "paged_adamw_8bit" …) are taken too. */
  optimizer?: OptimizerOption;
  /**
   * What is kept for the backward pass: everything ("none"), all but what is cheap to make again ("selective"), each block's input alone ("full"),
   * that in host memory ("offload"; on the CPU the same as "full"). Losses and gradients are the same bit for bit; over 32,768 tokens a micro-batch "full" and
   * "offload" take feed-forward parts in tiles of rows, whose sums have another order.
   */
  checkpointing?: Checkpointing;
  adamEpsilon?: number;
  adamBetas?: readonly [number, number];
  momentum?: number;
  /** LoRA+: how many times lr the rate of B (and of vectors: magnitudes, biases, norms) is; 1 by default (Hayou et al. 2024). */
  loraPlusRatio?: number;
  /** LoRA+: the peak rate of adapters of embeddings, 1e-6 by default, as in PEFT. Used with loraPlusRatio only. */
  loraPlusEmbeddingRate?: number;
  /** Longest row in tokens; the model's own limit by default. */
  maxLength?: number;
  /** What happens to longer rows: cut on the right, left out, or an error. */
  overlong?: "truncate" | "drop" | "error";
  /** How rows of a micro-batch come to one length: not at all ("none", the default: no padding is computed), or filled on one side. */
  paddingSide?: "none" | "right" | "left";
  /** Puts short rows together into rows of up to maxLength tokens (best fit); each still sees itself alone. `batch` counts packed rows. */
  packing?: boolean;
  /** Batches of rows of like length: less padding, other batches. */
  groupByLength?: boolean;
  /** Optimizer steps between measurements of the validation loss; below 1 a share of the run. "epoch", its end, by default. */
  evalEvery?: number | "epoch";
  /** Steps between rows of the growing table and lines of the logs, 1 by default; their loss is the mean of the steps. */
  logEvery?: number;
  /** A file of JSON lines, or { jsonl: FILE, tensorboard: FOLDER }. */
  log?: LogOption;
  /** Goes back to the parameters of the lowest validation loss at the end. */
  keepBest?: boolean;
  /** Measurements without a lower validation loss (by more than `threshold`, 0 by default) after which the run ends. */
  earlyStopping?: EarlyStoppingOption;
  /** Folder for the adapter (or weights) at the end, and for checkpoints on the way there. */
  output?: string;
  /** Optimizer steps between checkpoints in `output`, of which the last two stay; below 1 a share of the run; "epoch": at its end; 0: none. 500 by default. */
  saveEvery?: number | "epoch";
  /** Goes on exactly where a checkpoint ends: the newest good one in `output` (true), or the one in a folder. */
  resume?: string | boolean;
  seed?: number;
  /** Without effect: on one machine runs of one seed are always equal bit for bit. */
  deterministic?: boolean;
  shuffle?: boolean;
  /** Field that holds the text when rows are plain text. */
  textField?: string;
  format?: (row: Row) => unknown;
  /** sft: share of the probability that the target leaves to all tokens; dpo (sigmoid): share of pairs supposed to be the wrong way round. */
  labelSmoothing?: number;
  signal?: AbortSignal;
  /** Functions called after each step, or objects with some of onStep, onEvaluate, onSave, onEnd; a promise is awaited. They may end the run. */
  callbacks?: TrainCallback | readonly TrainCallback[];
  /** Shows a live display; true by default. */
  progress?: boolean;
}

/** Options that have no default. */
type Unset =
  | "validation"
  | "steps"
  | "maxLength"
  | "maxPromptLength"
  | "evalEvery"
  | "output"
  | "saveEvery"
  | "resume"
  | "textField"
  | "format"
  | "signal"
  | "log";

interface Checked {
  optimizer: OptimizerName;
  callbacks: readonly TrainCallback[];
  earlyStopping: EarlyStopping | undefined;
}

/** Options with their defaults, checked. */
export type TrainSettings = Required<Omit<TrainOptions, Unset | keyof Checked>> & Checked & Pick<TrainOptions, Unset>;

const DEFAULTS: TrainSettings = {
  method: "sft",
  lossType: "sigmoid",
  beta: 0.1,
  neftune: 0,
  epochs: 1,
  batch: 4,
  accumulate: 1,
  lr: 2e-4,
  schedule: "linear",
  warmup: 0,
  weightDecay: 0,
  maxGradNorm: 1,
  optimizer: "adamw",
  checkpointing: "selective",
  adamEpsilon: 1e-8,
  adamBetas: [0.9, 0.999],
  momentum: 0,
  loraPlusRatio: 1,
  loraPlusEmbeddingRate: 1e-6,
  overlong: "truncate",
  paddingSide: "none",
  packing: false,
  groupByLength: false,
  logEvery: 1,
  keepBest: false,
  seed: 42,
  deterministic: true,
  shuffle: true,
  labelSmoothing: 0,
  callbacks: [],
  earlyStopping: undefined,
  progress: true,
};

/** Names of all options of `train`. */
export const TRAIN_OPTIONS: readonly string[] = [
  ...Object.keys(DEFAULTS),
  ...["validation", "steps", "maxLength", "maxPromptLength", "evalEvery", "log", "output", "saveEvery", "resume"],
  ...["textField", "format", "signal"],
].sort();

/** Defaults of transformers' TrainingArguments, but for the learning rate (2e-4, LoRA's usual one) and sizes that fit a notebook. */
export function trainSettings<Row>(options: TrainOptions<Row>): TrainSettings {
  const given = options as TrainOptions & Record<string, unknown>;
  const s = {
    ...DEFAULTS,
    ...Object.fromEntries(Object.entries(given).filter(([, v]) => v !== undefined)),
  } as TrainSettings;
  const unknown = Object.keys(given).filter((k) => !TRAIN_OPTIONS.includes(k));
  if (unknown.length > 0)
    throw new ConfigError(
      `train: unknown option${unknown.length > 1 ? "s" : ""} ${unknown.map((k) => `"${k}"`).join(", ")}; there are ${TRAIN_OPTIONS.join(", ")}.`,
    );
  check("epochs", s.epochs, (v) => v > 0, "a positive number");
  if (s.steps !== undefined) check("steps", s.steps, (v) => Number.isInteger(v) && v > 0, "a whole number from 1");
  check("batch", s.batch, (v) => Number.isInteger(v) && v > 0, "a whole number from 1");
  check("accumulate", s.accumulate, (v) => Number.isInteger(v) && v > 0, "a whole number from 1");
  check("logEvery", s.logEvery, (v) => Number.isInteger(v) && v > 0, "a whole number from 1");
  check("lr", s.lr, (v) => Number.isFinite(v) && v > 0, "a number above 0 (with 0 nothing would be learnt)");
  check("loraPlusRatio", s.loraPlusRatio, (v) => Number.isFinite(v) && v > 0, "a positive number");
  check("loraPlusEmbeddingRate", s.loraPlusEmbeddingRate, (v) => Number.isFinite(v) && v >= 0, "a number from 0");
  check("warmup", s.warmup, (v) => v >= 0 && (v < 1 || Number.isInteger(v)), "a number of steps, or a share below 1");
  check("weightDecay", s.weightDecay, (v) => v >= 0, "a number from 0");
  check("maxGradNorm", s.maxGradNorm, (v) => v >= 0, "a number from 0");
  check("labelSmoothing", s.labelSmoothing, (v) => v >= 0 && v < 1, "a number in [0, 1)");
  check("seed", s.seed, Number.isInteger, "a whole number");
  if (s.maxLength !== undefined)
    check("maxLength", s.maxLength, (v) => Number.isInteger(v) && v > 1, "a whole number from 2");
  if (s.evalEvery !== undefined && s.evalEvery !== "epoch")
    check(
      "evalEvery",
      s.evalEvery,
      (v) => v > 0 && (v < 1 || Number.isInteger(v)),
      'a number of steps, a share of the run below 1, or "epoch"',
    );
  checkSaving(s);
  checkMethod(s, given);
  s.optimizer = optimizerName(s.optimizer);
  s.callbacks = callbackList(s.callbacks);
  logTargets(s.log);
  if (options.earlyStopping !== undefined) s.earlyStopping = earlyStopping(options.earlyStopping);
  oneOf("checkpointing", s.checkpointing, CHECKPOINTING);
  oneOf("schedule", s.schedule, ["linear", "cosine", "constant"]);
  oneOf("paddingSide", s.paddingSide, ["none", "right", "left"]);
  if (typeof s.packing !== "boolean")
    throw new ConfigError(`train: packing must be true or false, received ${JSON.stringify(s.packing)}.`);
  if (s.packing && s.paddingSide !== "none")
    throw new ConfigError("train: packed rows are never padded; leave paddingSide out, or packing.");

  if ((s.keepBest || s.earlyStopping !== undefined || s.evalEvery !== undefined) && !s.validation) {
    throw new ConfigError("train: keepBest, earlyStopping and evalEvery need rows to measure on: give { validation }.");
  }
  return s;
}

function checkSaving(s: TrainSettings): void {
  const { saveEvery, resume, output } = s;
  if (saveEvery !== undefined && saveEvery !== "epoch")
    check(
      "saveEvery",
      saveEvery,
      (v) => v >= 0 && (v < 1 || Number.isInteger(v)),
      'a number of steps, a share of the run below 1, "epoch", or 0 for none',
    );
  if (saveEvery && output === undefined)
    throw new ConfigError("train: saveEvery needs a folder for the checkpoints: give { output }.");
  if (resume !== undefined && typeof resume !== "boolean" && (typeof resume !== "string" || resume === ""))
    throw new ConfigError(`train: resume must be true or the folder of a checkpoint, received ${String(resume)}.`);
  if (resume === true && output === undefined)
    throw new ConfigError("train: resume: true looks for checkpoints in output: give { output }, or a folder.");
}

/** Options that belong to one method are errors with another: they would be without effect. */
function checkMethod(s: TrainSettings, given: Readonly<Record<string, unknown>>): void {
  oneOf("method", s.method, METHODS);
  oneOf("lossType", s.lossType, DPO_LOSSES);
  check("beta", s.beta, (v) => v > 0 && Number.isFinite(v), "a positive number");
  check("neftune", s.neftune, (v) => v >= 0 && Number.isFinite(v), "a number from 0");
  if (s.maxPromptLength !== undefined)
    check("maxPromptLength", s.maxPromptLength, (v) => Number.isInteger(v) && v > 0, "a whole number from 1");
  const only = (names: readonly string[], methods: readonly Method[]): void => {
    const name = names.find((n) => given[n] !== undefined && given[n] !== false && given[n] !== 0);
    if (name !== undefined && !methods.includes(s.method))
      throw new ConfigError(
        `train: ${name} belongs to method ${methods.map((m) => `"${m}"`).join(" and ")}, received method "${s.method}"; leave it out.`,
      );
  };
  only(["beta", "maxPromptLength"], ["orpo", "dpo"]);
  only(["lossType"], ["dpo"]);
  only(["labelSmoothing"], ["sft", "dpo", "classification"]);
  only(["neftune", "packing", "textField"], ["sft", "classification"]);
  if (s.method === "dpo" && s.labelSmoothing > 0 && (s.lossType !== "sigmoid" || s.labelSmoothing >= 0.5))
    throw new ConfigError(
      `train: with method "dpo" labelSmoothing is below 0.5 and for lossType "sigmoid", received ${s.labelSmoothing} with "${s.lossType}".`,
    );
}

function check(name: string, value: unknown, ok: (v: number) => boolean, expected: string): void {
  if (typeof value !== "number" || Number.isNaN(value) || !ok(value))
    throw new ConfigError(`train: ${name} must be ${expected}, received ${String(value)}.`);
}

function oneOf(name: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value))
    throw new ConfigError(`train: ${name} must be one of ${allowed.join(", ")}, received "${value}".`);
}
