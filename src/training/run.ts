import { Dataset } from "../data/dataset.js";
import type { Format } from "../data/format.js";
import { describeMask } from "../data/mask.js";
import { packExamples } from "../data/pack.js";
import { describeReport } from "../data/tokenize.js";
import { formatBytes, formatDuration, formatNumber, formatPercent } from "../display/format.js";
import {
  defineDisplay,
  displaySymbol,
  inspectSymbol,
  interruptHost,
  interruptible,
  interruptSignal,
  type MimeBundle,
} from "../display/host.js";
import { type Table, table } from "../display/table.js";
import { InterruptedError } from "../errors.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalLM } from "../models/causal.js";
import type { Plot } from "../plot/index.js";
import { recover, stats } from "../tensor/native.js";
import { seed } from "../tensor/ops/random.js";
import { Callbacks } from "./callbacks.js";
import type { Checkpoints } from "./checkpoints.js";
import { type Panel, runPlot } from "./dashboard.js";
import type { PlannedStep } from "./estimate.js";
import { LiveRun } from "./live.js";
import { RunLog } from "./log/run-log.js";
import { type LoopResult, planRun, type RunPlan, trainLoop } from "./loop.js";
import { stepMemory } from "./memory.js";
import { ofPairs, type TrainOptions, type TrainSettings, type TrainStep, trainSettings } from "./options.js";
import { RunSaving } from "./resume.js";
import { trainingRows } from "./rows.js";

/** What a finished run gives. Losses in nats a token, memory in bytes. */
export interface TrainResult {
  steps: number;
  /** Mean training loss over the steps. */
  loss: number;
  seconds: number;
  samplesPerSecond: number;
  stepsPerSecond: number;
  tokensPerSecond: number;
  /** 6 · tokens · parameters without embeddings, as transformers counts. */
  flops: number;
  peakMemory: number;
  epoch: number;
  /** With `packing`: how many rows the examples were put into, and how full these are (0 … 1). */
  packing: { examples: number; rows: number; capacity: number; efficiency: number } | undefined;
  best: { step: number; validationLoss: number } | undefined;
  history: Dataset;
  /** Folder the adapter was saved to, when `output` was given. */
  adapter: string | undefined;
  /** The newest checkpoint of the run, and why checkpoints are missing where some could not be saved. */
  checkpoint: { folder: string; step: number } | undefined;
  warnings: string[];
  /** "finished", "stopped" or "early stopping". */
  ended: LoopResult["ended"];
  toTable(): Table;
}

type Figures = Pick<
  TrainResult,
  | "steps"
  | "loss"
  | "seconds"
  | "samplesPerSecond"
  | "stepsPerSecond"
  | "tokensPerSecond"
  | "flops"
  | "peakMemory"
  | "epoch"
>;

function resultTable(values: Figures, best: TrainResult["best"], packing: TrainResult["packing"]): Table {
  const rows = [
    ["steps", formatNumber(values.steps)],
    ["epochs", formatNumber(values.epoch)],
    ["training loss", formatNumber(values.loss)],
    ...(best ? [["best validation loss", `${formatNumber(best.validationLoss)} at step ${best.step}`]] : []),
    ...(packing ? [["packing", describePacking(packing)]] : []),
    ["time", formatDuration(values.seconds)],
    ["samples/s", formatNumber(values.samplesPerSecond)],
    ["steps/s", formatNumber(values.stepsPerSecond)],
    ["tokens/s", formatNumber(Math.round(values.tokensPerSecond))],
    ["FLOPs", values.flops.toExponential(2)],
    ["peak memory", formatBytes(values.peakMemory)],
  ];
  return table(["result", "value"], rows, { title: "Training", align: { value: "right" }, maxTextCell: 80 });
}

function describePacking({ examples, rows, capacity, efficiency }: NonNullable<TrainResult["packing"]>): string {
  return `${examples} rows in ${rows} of ${capacity} tokens, ${formatPercent(efficiency)} full`;
}

/** What a run needs of the model's facade. */
export interface Trained {
  readonly tokenizer: Tokenizer;
  /** Saves what was trained: the adapter, or without one the whole model. */
  saveTrained(folder: string): Promise<void>;
  /** How the active adapter was made; `undefined` without one. */
  adapterSettings(): object | undefined;
  stopIds(): number[];
  withoutAdapter<T>(fn: () => T | Promise<T>): Promise<T>;
}

/** Called once at the end with the bytes of the run's parts. */
export type RunEnd = (bytes: { gradients: number; optimizer: number; peak: number }) => void;

/**
 * A training run. It starts at once; `await run` gives its result, `for await (const step of run)` its steps (those that were taken before come
 * first). Its live display goes on after the cell that started it.
 */
export class TrainRun implements PromiseLike<TrainResult>, AsyncIterable<TrainStep> {
  /** Steps taken so far. */
  readonly steps: TrainStep[] = [];
  private readonly settings: TrainSettings;
  private readonly promise: Promise<TrainResult>;
  private readonly live: LiveRun | undefined;
  private wake: (() => void)[] = [];
  private ended = false;
  private broken = false;
  private stopping = false;
  private packing: TrainResult["packing"];
  private checkpoints: Checkpoints | undefined;
  private tokens = 0; // of the largest micro-batch
  private imageTokens = 0; // of that with the most
  private peak = 0; // bytes, of the steps so far
  private readonly callbacks: Callbacks;

  constructor(
    model: Trained,
    network: CausalLM,
    data: Iterable<Record<string, unknown>>,
    options: TrainOptions,
    ready: () => Promise<void>,
    onEnd: RunEnd,
  ) {
    this.settings = trainSettings(options);
    const signal = interruptSignal(this.settings.signal);
    if (signal) this.settings.signal = signal;
    this.callbacks = new Callbacks(this.settings.callbacks, { stop: () => this.stop(), steps: this.steps }, signal);
    this.live = this.settings.progress ? new LiveRun(this.settings.logEvery) : undefined;
    this.promise = this.start(model, network, data, ready, onEnd);
    // The failure is shown in the run's own display; whoever awaits gets it again.
    this.promise.catch(() => {});
    interruptHost()?.beside?.(this.promise);
  }

  /** Whether it has ended, for whatever reason. */
  get over(): boolean {
    return this.ended;
  }

  /** Whether it was interrupted or has failed, and is about to end. @internal */
  get ending(): boolean {
    return !this.ended && (this.broken || this.settings.signal?.aborted === true);
  }

  /** Fulfilled when it has ended, however. @internal */
  get end(): Promise<void> {
    return this.promise.then(
      () => {},
      () => {},
    );
  }

  /** Its largest micro-batch so far and what else its memory depends on; `undefined` before the first one. */
  get plannedStep(): Omit<PlannedStep, "device" | "activations"> | undefined {
    if (this.tokens === 0) return undefined;
    const { batch, accumulate, checkpointing, optimizer, momentum } = this.settings;
    const length = Math.ceil(this.tokens / batch);
    const imageTokens = this.imageTokens > 0 ? [Math.ceil(this.imageTokens / batch)] : undefined;
    return { batch, length, accumulate, checkpointing, optimizer, momentum, imageTokens };
  }

  /** Asks the run to end after the step it is in; the model keeps what it has learnt. */
  stop(): void {
    this.stopping = true;
  }

  /** The steps so far as charts: loss, learning rate, gradient norm, tokens a second and memory by part; or one of them alone. */
  plot(panel?: Panel): Plot {
    return runPlot(this.steps, panel);
  }

  then<A = TrainResult, B = never>(
    onfulfilled?: ((result: TrainResult) => A | PromiseLike<A>) | null,
    onrejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return interruptible(this.promise, "the training run", "running").then(onfulfilled, onrejected);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TrainStep, void> {
    const next = (): Promise<void> => new Promise<void>((resolve) => this.wake.push(resolve));
    for (let i = 0; ; i++) {
      while (i >= this.steps.length && !this.ended) await interruptible(next(), "the next step");
      const step = this.steps[i];
      if (!step) break;
      yield step;
    }
    await this.promise;
  }

  private async start(
    model: Trained,
    network: CausalLM,
    data: Iterable<Record<string, unknown>>,
    ready: () => Promise<void>,
    onEnd: RunEnd,
  ): Promise<TrainResult> {
    const s = this.settings;
    const bytes = { gradients: 0, optimizer: 0, peak: 0 };
    let log: RunLog | undefined;
    try {
      // The caller has the run before any work is done.
      await ready();
      const { tokenizer } = model;
      const limit = network.config.maxPositions;
      // A run that cannot go on where another ended must not begin.
      const saving = await RunSaving.open(s, network, model);
      const prepare = {
        maxLength: Math.min(s.maxLength ?? limit, limit),
        overlong: s.overlong,
        sight: network.sight,
        ...(s.textField === undefined ? {} : { textField: s.textField }),
        ...(s.format ? { format: s.format as Format } : {}),
        ...(s.signal ? { signal: s.signal } : {}),
      };
      const rows = await trainingRows(model, network, data, s, prepare);
      const packed = s.packing
        ? packExamples(
            rows.train.map((e) => e.ids.length),
            s.maxLength,
            limit,
          )
        : undefined;
      if (packed) {
        const { rows: filled, capacity, efficiency } = packed;
        this.packing = { examples: rows.train.length, rows: filled.length, capacity, efficiency };
      }
      const plan = planRun(packed?.rows.length ?? rows.groups?.length ?? rows.train.length, s);
      const { identity, resumed } = saving.join(rows.train, rows.validation);
      const checkpoints = saving.checkpoints(plan.saveEvery, () => this.live?.saved(checkpoints?.note() ?? ""));
      this.checkpoints = checkpoints;
      const report = describeReport(rows.report, prepare.maxLength);
      this.live?.start(plan, {
        ...(report === "" ? {} : { rows: report }),
        ...(this.packing ? { packing: describePacking(this.packing) } : {}),
        ...(saving.note === "" ? {} : { resumed: saving.note }),
      });
      for (const step of resumed?.state.history ?? []) this.push(step);
      log = new RunLog(s.log, s.logEvery);
      log.start({ ...plan, rows: rows.report });
      const measure = stepMemory(network);
      seed(s.seed);
      const started = performance.now();
      const loop = trainLoop({
        model: network,
        train: rows.train,
        rows: packed?.rows ?? rows.groups,
        validation: rows.validation,
        settings: s,
        objective: rows.objective,
        padId: tokenizer.padId ?? tokenizer.eosId ?? 0,
        onBatch: (tokens, ofImages) => {
          this.tokens = Math.max(this.tokens, tokens);
          this.imageTokens = Math.max(this.imageTokens, ofImages);
        },
        onStep: async (step, optimizer) => {
          this.peak = Math.max(this.peak, measure(step, optimizer));
          log?.step(step);
          await this.callbacks.step(step);
        },
        stopped: () => this.stopping,
        checkpoints,
        identity,
        resumed,
        describe: (i) => describeMask(rows.train[i]!, tokenizer, 200),
      });
      let next = await loop.next();
      while (!next.done) {
        this.push(next.value);
        next = await loop.next();
      }
      const seconds = (resumed?.state.seconds ?? 0) + (performance.now() - started) / 1000;
      const result = next.value;
      bytes.optimizer = result.optimizerBytes;
      if (s.output !== undefined) {
        await model.saveTrained(s.output);
        await this.callbacks.save({ step: this.steps.length, folder: s.output });
      }
      const summary = this.summarize(result, plan, seconds, network);
      const { history: _, toTable: __, ...figures } = summary;
      log.end(figures);
      await this.live?.finish(summary);
      await this.callbacks.end(summary);
      return summary;
    } catch (error) {
      this.broken = true;
      log?.fail(error);
      const shown = this.live?.fail(error);
      // An interrupted cell must come back at once: its last picture may follow.
      if (error instanceof InterruptedError || (error as Error)?.name === "AbortError") recover();
      else await shown;
      throw error;
    } finally {
      bytes.gradients = network.trainableParameters().reduce((n, p) => n + p.bytes, 0);
      bytes.peak = Math.max(this.peak, stats(network.device).peakBytes);
      this.ended = true;
      onEnd(bytes);
      for (const resolve of this.wake.splice(0)) resolve();
    }
  }

  private push(step: TrainStep): void {
    this.steps.push(step);
    this.live?.step(step, this.steps);
    for (const resolve of this.wake.splice(0)) resolve();
  }

  private summarize(result: LoopResult, plan: RunPlan, seconds: number, network: CausalLM): TrainResult {
    const { history } = result;
    const dense = network.config;
    const parameters =
      [...network.namedParameters()].reduce((n, [, p]) => n + p.size, 0) +
      [...network.namedModules()].reduce((n, [, m]) => n + m.ownElements(), 0);
    const embedding = dense.vocabSize * dense.hiddenSize;
    const values = {
      steps: history.length,
      loss: history.reduce((n, h) => n + h.loss, 0) / Math.max(1, history.length),
      seconds,
      samplesPerSecond: result.samples / seconds,
      stepsPerSecond: history.length / seconds,
      tokensPerSecond: result.processed / seconds,
      flops: 6 * result.processed * (parameters - embedding),
      peakMemory: Math.max(this.peak, stats(network.device).peakBytes),
      epoch: history.length / plan.stepsPerEpoch,
    };
    const { last } = this.checkpoints ?? {};
    const shown = resultTable(values, result.best, this.packing);
    const out: TrainResult = {
      ...values,
      packing: this.packing,
      best: result.best,
      history: Dataset.from(history.map((h) => withMeasured(h, this.settings.method))),
      adapter: this.settings.output,
      checkpoint: last && { folder: last.folder, step: last.step },
      warnings: this.checkpoints?.warnings() ?? [],
      ended: result.ended,
      toTable: () => shown,
    };
    Object.defineProperty(out, displaySymbol, {
      value: (): MimeBundle => ({ "text/html": shown.toHtml().toString(), "text/plain": shown.toText() }),
    });
    Object.defineProperty(out, inspectSymbol, { value: () => shown.toText() });
    return out;
  }
}

/** A step with null where nothing was measured after it: a column has a value in each row. */
function withMeasured(step: TrainStep, method: TrainSettings["method"]): Record<string, unknown> {
  const { memoryParts: _, validationLoss = null, validationAccuracy = null, validationMargin = null, ...rest } = step;
  return { ...rest, validationLoss, ...(ofPairs(method) ? { validationAccuracy, validationMargin } : {}) };
}

const stateOf = (run: TrainRun): string => {
  const state = run.over ? `ended after ${run.steps.length} steps` : "under way: await it, or end it with run.stop()";
  return `TrainRun (${state})`;
};
defineDisplay(TrainRun, (run) => ({ "text/plain": stateOf(run) }), stateOf);
