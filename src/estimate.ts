import { CHECKPOINTING, type Checkpointing } from "./autograd/checkpoint.js";
import { formatBytes } from "./display/format.js";
import { defineDisplay } from "./display/host.js";
import { el, type HtmlNode } from "./display/html.js";
import { type Table, table } from "./display/table.js";
import { ConfigError } from "./errors.js";
import { barHtml, compareTable, estimatePlot } from "./estimate-show.js";
import { listParameters } from "./lora/parameters.js";
import { adapterParameters } from "./lora/wrap.js";
import type { CausalLM } from "./models/causal.js";
import type { Plot } from "./plot/index.js";
import { countTrainable } from "./report.js";
import type { Device } from "./tensor/device.js";
import { roundedBytes } from "./tensor/dry.js";
import { type DTypeName, floatDType } from "./tensor/dtype.js";
import { openDevices, stats } from "./tensor/native.js";
import { estimateStep, type PlannedStep } from "./training/estimate.js";
import { stepFlops } from "./training/flops.js";
import { optimizerName } from "./training/optimizer-names.js";
import { type TrainOptions, trainSettings } from "./training/options.js";

/** What `model.estimate` takes: the options of `train`, of which those are read that bear on memory, and some of its own. */
export interface EstimateOptions<Row = Record<string, unknown>> extends TrainOptions<Row> {
  /** Tokens a row (of "orpo" and "dpo" each of its two sequences); `maxLength`, or 1,024 or what the model was made for if that is less, by default. */
  length?: number;
  /** Of a model that sees: tokens that each image of a row takes. They are among its `length`; none by default. */
  imageTokens?: readonly number[] | undefined;
  /** The model's own by default; a GPU need not be there. */
  device?: Device;
  /** Dtype of activations on a GPU; the model's own by default. */
  activations?: DTypeName;
  /** Bytes that tensors may take; what the device allows by default. */
  limit?: number;
  /** Instead of `limit`, bytes of a card (or machine) as it is sold; what a process takes for itself is left out of them: see `usableBytes`. */
  memory?: number;
}

/**
 * What tensors can have of a device with so many bytes. On a GPU the driver and the kernels take about 512 MiB, and as much is left alone
 * (native/cuda/backend.cu); on a CPU Node and the working memory of operations take about 256 MiB.
 */
export function usableBytes(memory: number, device: Device): number {
  return Math.max(0, memory - (device === "cuda" ? 1024 : 256) * 2 ** 20);
}

const MOST_ROWS = 2 ** 16;

/**
 * Predicted peak of a training step in bytes, by part. On the CPU `logits` and `scratch`, the working memory of operations, stand beside `peak`, as
 * in `memory()` and a run's `peakMemory`; on a GPU they are part of it.
 */
export class MemoryEstimate {
  readonly weights: number;
  readonly adapters: number;
  readonly gradients: number;
  readonly optimizer: number;
  readonly activations: number;
  /** Copies of the best parameters, with `keepBest`. */
  readonly other: number;
  readonly logits: number;
  readonly scratch: number;
  /** In a GPU's host memory, beside all others. */
  readonly host: number;
  readonly peak: number;
  /** Bytes that may be taken; `undefined` for a device that is not there. */
  readonly limit: number | undefined;
  /** What it was made for. */
  readonly step: Readonly<PlannedStep>;
  private readonly network: CausalLM;

  constructor(network: CausalLM, step: PlannedStep, limit: number | undefined) {
    const { weights, adapters } = storedBytes(network, step.device);
    const s = estimateStep(network, step);
    this.weights = weights;
    this.adapters = adapters;
    this.gradients = s.gradients;
    this.optimizer = s.optimizer;
    this.activations = s.activations;
    this.other = s.other;
    this.logits = s.logits;
    this.scratch = s.scratch;
    this.host = s.host;
    const kept = weights + adapters + s.gradients + s.optimizer + s.activations + s.other;
    this.peak = step.device === "cuda" ? kept + s.logits + s.scratch : kept;
    this.limit = limit;
    this.step = step;
    this.network = network;
  }

  /** Parameters in all, and those that are trained. */
  get parameters(): number {
    return countTrainable(this.network).total;
  }

  get trained(): number {
    return countTrainable(this.network).trainable;
  }

  /** Floating-point operations of an optimizer step, all its micro-batches together. */
  get flops(): number {
    return stepFlops(this.network, this.step);
  }

  /** Whether it stays below the limit. */
  get fits(): boolean {
    return this.limit === undefined || this.peak <= this.limit;
  }

  /** The largest batch below the limit, 0 when not even one row fits; with another way of checkpointing if one is given. */
  largestBatch(checkpointing: Checkpointing = this.step.checkpointing): number {
    const { limit } = this;
    if (limit === undefined) return Number.POSITIVE_INFINITY;
    const peak = (batch: number): number =>
      new MemoryEstimate(this.network, { ...this.step, checkpointing, batch }, limit).peak;
    const one = peak(1);
    if (one > limit) return 0;
    // Memory grows evenly with the rows, but for chunks and the rounding of sizes: a first guess, and steps around it.
    const slope = (peak(9) - one) / 8;
    let low = 1;
    let high = MOST_ROWS + 1;
    let guess = Math.max(2, Math.min(MOST_ROWS, Math.floor(1 + (limit - one) / slope)));
    for (let step = 1; high - low > 1; step *= 2) {
      if (peak(guess) <= limit) low = guess;
      else high = guess;
      const next = low === guess ? guess + step : guess - step;
      guess = next > low && next < high ? next : (low + high) >> 1;
    }
    return low;
  }

  /** The longest rows below the limit at this batch, up to what the model was made for; 0 when not even one token fits. */
  largestLength(checkpointing: Checkpointing = this.step.checkpointing): number {
    const { limit, network } = this;
    const most = network.config.maxPositions;
    if (limit === undefined) return most;
    const fits = (length: number): boolean =>
      new MemoryEstimate(network, { ...this.step, checkpointing, length }, limit).fits;
    if (fits(most)) return most;
    // Working memory comes in chunks, so that a longer row may need a little less: the search ends where the one after does not fit.
    let [low, high] = [0, most];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (fits(middle)) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The same step with each way of checkpointing; on the CPU "offload" is "full". */
  private ways(): MemoryEstimate[] {
    const modes = this.step.device === "cpu" ? CHECKPOINTING.filter((mode) => mode !== "offload") : CHECKPOINTING;
    return modes.map((checkpointing) => new MemoryEstimate(this.network, { ...this.step, checkpointing }, this.limit));
  }

  /** Side by side for each way of checkpointing: the peak, and the largest batch and the longest rows that fit. */
  compare(): Table {
    return compareTable(this.ways());
  }

  /** Bars by part for each way of checkpointing, and the limit. */
  plot(): Plot {
    return estimatePlot(this.ways());
  }

  /** The bar by part, the table, and what would fit. */
  toHtml(): HtmlNode {
    const advice = this.fits ? "" : this.advice();
    return el("div", {}, barHtml(this), this.toTable().toHtml(), advice === "" ? null : el("p", {}, advice));
  }

  /** What would fit: other checkpointing at this batch, and the largest batches. */
  advice(): string {
    const { limit, step, network } = this;
    if (limit === undefined) return "";
    const ways = CHECKPOINTING.slice(CHECKPOINTING.indexOf("selective"));
    const modes = step.device === "cpu" ? ways.filter((m) => m !== "offload") : ways; // there it equals full
    const whole = modes.find((m) => new MemoryEstimate(network, { ...step, checkpointing: m }, limit).fits);
    const words = modes.map((m) => `${this.largestBatch(m)} with "${m}"`).join(", ");
    const largest = Math.max(...modes.map((m) => this.largestBatch(m)));
    if (largest === 0)
      return `Not even a batch of 1 fits below ${formatBytes(limit)}: shorten the rows (maxLength), quantise the model, or lower the adapter's rank.`;
    const now = whole ? `Batch ${step.batch} fits with checkpointing: "${whole}". ` : "";
    return `${now}The largest batch below ${formatBytes(limit)} at ${step.length} tokens is ${words}.`;
  }

  toTable(): Table {
    const { device, batch, length, checkpointing, optimizer } = this.step;
    const beside = device === "cpu" ? ", beside the peak" : "";
    const rows: [string, string][] = [
      ["weights", formatBytes(this.weights)],
      ["adapters", formatBytes(this.adapters)],
      ["gradients", formatBytes(this.gradients)],
      ["optimizer", formatBytes(this.optimizer)],
      ["activations", formatBytes(this.activations)],
      ...(this.other > 0 ? [["other: the best parameters", formatBytes(this.other)] as [string, string]] : []),
      [`logits chunk${beside}`, formatBytes(this.logits)],
      [`scratch${beside}`, formatBytes(this.scratch)],
      ...(this.host > 0 ? [["host memory, beside the peak", formatBytes(this.host)] as [string, string]] : []),
      ["peak", formatBytes(this.peak)],
      ...(this.limit === undefined
        ? []
        : ([
            ["limit", formatBytes(this.limit)],
            ["fits", this.fits ? "yes" : "no"],
          ] as [string, string][])),
    ];
    return table(["part", "predicted"], rows, {
      title: `Memory of a step of ${batch} x ${length} tokens on ${device}, checkpointing "${checkpointing}", ${optimizer}`,
      align: { predicted: "right" },
    });
  }
}

/** Bytes of the base model and of its adapters as the device rounds them. */
function storedBytes(network: CausalLM, device: Device): { weights: number; adapters: number } {
  let adapters = 0;
  for (const p of adapterParameters(network)) adapters += roundedBytes(p.reservedBytes, device);
  const all = listParameters(network).reduce((n, p) => n + roundedBytes(p.bytes, device), 0);
  return { weights: all - adapters, adapters };
}

/** Checks the options and predicts. @throws ConfigError naming the option, what it must be and what came. */
export function estimateMemory(network: CausalLM, options: EstimateOptions = {}): MemoryEstimate {
  const { batch = 4, accumulate = 1, checkpointing = "selective", momentum = 0, device = network.device } = options;
  const { method, neftune, lossType } = trainSettings({
    ...(options.method ? { method: options.method } : {}),
    ...(options.neftune ? { neftune: options.neftune } : {}),
    ...(options.lossType ? { lossType: options.lossType } : {}),
  });
  const length = options.length ?? options.maxLength ?? Math.min(1024, network.config.maxPositions);
  for (const [name, value] of Object.entries({ batch, length, accumulate }))
    if (!Number.isInteger(value) || value < 1)
      throw new ConfigError(`estimate: ${name} must be a whole number from 1, received ${String(value)}.`);
  if (!CHECKPOINTING.includes(checkpointing))
    throw new ConfigError(
      `estimate: checkpointing must be one of ${CHECKPOINTING.join(", ")}, received ${JSON.stringify(checkpointing)}.`,
    );
  const { imageTokens } = options;
  if (imageTokens) checkImages(network, imageTokens, length, method);
  if (device !== "cpu" && device !== "cuda")
    throw new ConfigError(`estimate: device must be "cpu" or "cuda", received ${JSON.stringify(device)}.`);
  const activations = options.activations === undefined ? undefined : floatDType(options.activations);
  if (options.activations !== undefined && activations === undefined)
    throw new ConfigError(
      `estimate: activations must be "float32", "bfloat16" or "float16", received ${JSON.stringify(options.activations)}.`,
    );
  const optimizer = optimizerName(options.optimizer ?? "adamw");
  const step = {
    ...{ batch, length, accumulate, checkpointing, optimizer, momentum, device, activations },
    ...{ keepBest: options.keepBest ?? false, method, neftune, lossType, imageTokens },
  };
  return new MemoryEstimate(network, step, limitOf(options, device));
}

function checkImages(network: CausalLM, tokens: readonly number[], length: number, method: string): void {
  const wrong = (what: string): ConfigError => new ConfigError(`estimate: imageTokens ${what}`);
  if (!network.sight) throw wrong("are for a model that sees; this one takes text alone: leave them out.");
  if (method !== "sft") throw wrong(`go with method "sft": rows of ${method} are text alone.`);
  const sum = tokens.reduce((n, each) => n + each, 0);
  if (!tokens.every((n) => Number.isInteger(n) && n > 0) || sum >= length)
    throw wrong(`must be whole numbers whose sum is less than the row's ${length} tokens, received [${tokens}].`);
}

function limitOf({ limit, memory }: EstimateOptions, device: Device): number | undefined {
  for (const [name, bytes] of Object.entries({ limit, memory }))
    if (bytes !== undefined && !(Number.isFinite(bytes) && bytes > 0))
      throw new ConfigError(
        `estimate: ${name} must be a number of bytes, such as 24 * 2 ** 30, received ${String(bytes)}.`,
      );
  if (limit !== undefined && memory !== undefined)
    throw new ConfigError("estimate: give limit (what tensors may take) or memory (what the device has), not both.");
  if (memory !== undefined) return usableBytes(memory, device);
  return limit ?? (openDevices().includes(device) ? stats(device).limitBytes : undefined);
}

defineDisplay(
  MemoryEstimate,
  (e) => ({ "text/html": e.toHtml().toString(), "text/plain": e.toTable().toText() }),
  (e) => e.toTable().toText(),
);
