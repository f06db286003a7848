import { collate } from "../data/collate.js";
import type { Example } from "../data/mask.js";
import { BatchSampler, updatesPerEpoch } from "../data/sampler.js";
import { throwIfInterrupted, toItsEnd } from "../display/host.js";
import { DataError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import type { Parameter } from "../nn/module.js";
import { stats } from "../tensor/native.js";
import { addScaled, fill } from "../tensor/ops/elementwise.js";
import { clone } from "../tensor/ops/layout.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { empty, type Tensor, view } from "../tensor/tensor.js";
import { decaying } from "./decay.js";
import { explainDivergence } from "./health.js";
import { restoreGradients } from "./loss.js";
import { type MicroBatch, type Objective, TokenObjective } from "./objective.js";
import { Optimizer } from "./optimizer.js";
import { optimizerKind } from "./optimizer-names.js";
import type { TrainSettings, TrainStep } from "./options.js";
import { scheduleFactor, warmupSteps } from "./schedule.js";

/** What a run works on. */
export interface LoopInput {
  model: CausalLM;
  train: readonly Example[];
  /** Numbers of the examples that stand together in a row (packing); each in its own by default. */
  rows?: readonly Int32Array[] | undefined;
  validation: readonly Example[] | undefined;
  settings: TrainSettings;
  /** The loss; that of the trained tokens by default. */
  objective?: Objective | undefined;
  padId: number;
  /** Called with the tokens of a micro-batch, padding included, before it is computed. */
  onBatch?: (tokens: number) => void;
  /** Asks the run to end after the step it is in. */
  stopped: () => boolean;
}

/** Lengths of a run, known before it starts. */
export interface RunPlan {
  batchesPerEpoch: number;
  stepsPerEpoch: number;
  steps: number;
  warmup: number;
  evalEvery: number;
}

/** Optimizer steps an epoch: full groups of micro-batches, and one for the rest (as transformers' Trainer counts). */
export function planRun(rows: number, s: TrainSettings): RunPlan {
  const batchesPerEpoch = Math.ceil(rows / s.batch);
  const stepsPerEpoch = updatesPerEpoch(batchesPerEpoch, s.accumulate);
  const steps = s.steps ?? Math.max(1, Math.ceil(stepsPerEpoch * s.epochs));
  const every = s.evalEvery ?? stepsPerEpoch;
  return {
    batchesPerEpoch,
    stepsPerEpoch,
    steps,
    warmup: warmupSteps(s.warmup, steps),
    evalEvery: every < 1 ? Math.max(1, Math.round(steps * every)) : every,
  };
}

/** What a run leaves behind. */
export interface LoopResult {
  history: TrainStep[];
  /** Lowest validation loss and its step. */
  best: { step: number; validationLoss: number } | undefined;
  /** Tokens that went through the model. */
  processed: number;
  /** Rows that went through the model. */
  samples: number;
  optimizerBytes: number;
  /** Why it ended. */
  ended: "finished" | "stopped" | "early stopping";
}

/** Runs the optimizer steps one by one; each is yielded after it was applied. */
export async function* trainLoop(input: LoopInput): AsyncGenerator<TrainStep, LoopResult> {
  const { model, train, validation, settings: s } = input;
  const packed = input.rows ?? Array.from(train, (_, i) => Int32Array.of(i));
  const plan = planRun(packed.length, s);
  const parameters = model.trainableParameters();
  const [beta1, beta2] = s.adamBetas;
  const { kind, paged } = optimizerKind(s.optimizer);
  const optimizer = new Optimizer(parameters, {
    name: kind,
    paged,
    weightDecay: s.weightDecay,
    epsilon: s.adamEpsilon,
    beta1,
    beta2,
    momentum: s.momentum,
    decays: decaying(model),
  });
  const sampler = new BatchSampler(
    Int32Array.from(packed, (row) => row.reduce((n, i) => n + train[i]!.ids.length, 0)),
    {
      batch: s.batch,
      seed: s.seed,
      shuffle: s.shuffle,
      groupByLength: s.groupByLength,
    },
  );
  const objective: Objective = input.objective ?? new TokenObjective(model, s, validation ?? [], input.padId);
  // TRL's trainers of preferences switch dropout off: both answers go through the same model as the reference's.
  const noisy = s.method === "sft";
  const sum = outsideScope(() => empty([2], "float32", model.device)); // [loss, squared norm]: read in one go
  const best = new BestKeeper(parameters);
  const result: LoopResult = {
    history: [],
    best: undefined,
    processed: 0,
    samples: 0,
    optimizerBytes: 0,
    ended: "finished",
  };
  let worse = 0;
  model.train(noisy);
  try {
    for (let step = 1; step <= plan.steps; step++) {
      throwIfInterrupted("Training", s.signal);
      if (input.stopped()) {
        result.ended = "stopped";
        break;
      }
      const started = performance.now();
      const inEpoch = (step - 1) % plan.stepsPerEpoch;
      const micro = Math.min(s.accumulate, plan.batchesPerEpoch - inEpoch * s.accumulate);
      const batches = Array.from({ length: micro }, () => {
        const rows = nextBatch(sampler);
        const examples = Array.from(rows, (row) => Array.from(packed[row]!, (i) => train[i]!)).flat();
        return { rows, batch: collate(examples, { padId: input.padId, paddingSide: s.paddingSide }) };
      });
      for (const { batch } of batches) input.onBatch?.(batch.inputIds.length);
      const lr = s.lr * scheduleFactor(s.schedule, step - 1, plan.warmup, plan.steps);
      const { loss, norm, tokens } = await optimizerStep(objective, model, parameters, optimizer, batches, lr, s, sum);
      if (!Number.isFinite(loss) || !Number.isFinite(norm))
        throw await explainDivergence(model, objective, batches, step);
      const seconds = (performance.now() - started) / 1000;
      const processed = batches.reduce((n, { batch }) => n + batch.sequences.length.reduce((a, l) => a + l, 0), 0);
      result.processed += processed;
      result.samples += batches.reduce((n, { rows }) => n + rows.reduce((m, row) => m + packed[row]!.length, 0), 0);
      const info: TrainStep = {
        step,
        epoch: round((step - 1) / plan.stepsPerEpoch + 1 / plan.stepsPerEpoch),
        loss,
        lr,
        gradNorm: norm,
        tokens,
        tokensPerSecond: processed / seconds,
        memory: stats(model.device).liveBytes,
        ...(await objective.end()),
      };
      if (validation && (step % plan.evalEvery === 0 || step === plan.steps)) {
        model.train(false);
        const measured = Object.assign(info, await objective.validate());
        model.train(noisy);
        if (!result.best || measured.validationLoss < result.best.validationLoss) {
          result.best = { step, validationLoss: measured.validationLoss };
          worse = 0;
          if (s.keepBest) best.keep();
        } else worse++;
      }
      result.history.push(info);
      for (const callback of s.callbacks) await callback(info);
      yield info;
      if (s.earlyStopping !== undefined && worse >= s.earlyStopping) {
        result.ended = "early stopping";
        break;
      }
    }
    if (s.keepBest) best.restore();
    return result;
  } finally {
    result.optimizerBytes = optimizer.bytes;
    model.train(false);
    model.zeroGrad();
    best.dispose();
    objective.dispose?.();
    optimizer.dispose();
    sum.dispose();
  }
}

async function optimizerStep(
  objective: Objective,
  model: CausalLM,
  parameters: readonly Parameter[],
  optimizer: Optimizer,
  batches: readonly MicroBatch[],
  lr: number,
  s: TrainSettings,
  sum: Tensor,
): Promise<{ loss: number; norm: number; tokens: number }> {
  const tokens = batches.reduce((n, { batch }) => n + batch.tokens, 0);
  if (tokens === 0)
    throw new DataError(
      "train: a step has no trained token: every label is masked; check format, maxLength and the prompt's length.",
    );
  fill(sum, 0);
  const loss = outsideScope(() => view(sum, [1], 0));
  const squares = outsideScope(() => view(sum, [1], 1));
  try {
    await objective.begin(batches);
    for (const batch of batches) toItsEnd(() => objective.accumulate(batch, loss));
    toItsEnd(() => {
      restoreGradients(model, parameters, tokens);
      const norm = outsideScope(() => optimizer.step(lr, s.maxGradNorm));
      addScaled(squares, norm);
      norm.dispose();
    });
  } finally {
    loss.dispose();
    squares.dispose();
  }
  const [l, n] = await sum.data();
  return { loss: l!, norm: Math.sqrt(n!), tokens };
}

// The sampler says once where an epoch ends; the loop counts epochs by steps.
function nextBatch(sampler: BatchSampler): Int32Array {
  return sampler.next() ?? sampler.next()!;
}

/** Copies of the trained parameters at the lowest validation loss. */
class BestKeeper {
  private readonly parameters: readonly Parameter[];
  private copies: Tensor[] = [];

  constructor(parameters: readonly Parameter[]) {
    this.parameters = parameters;
  }

  keep(): void {
    this.dispose();
    this.copies = outsideScope(() => noGrad(() => this.parameters.map((p) => clone(p))));
  }

  restore(): void {
    this.copies.forEach((copy, i) => {
      this.parameters[i]!.adopt(copy);
    });
    this.copies = [];
  }

  dispose(): void {
    for (const copy of this.copies.splice(0)) copy.dispose();
  }
}

function round(x: number): number {
  return Math.round(x * 1e4) / 1e4;
}
