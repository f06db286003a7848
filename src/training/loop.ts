import { type Batch, collate } from "../data/collate.js";
import type { Example } from "../data/mask.js";
import { BatchSampler, updatesPerEpoch } from "../data/sampler.js";
import { throwIfInterrupted, toItsEnd } from "../display/host.js";
import { DataError, InterruptedError } from "../errors.js";
import { loraPlusRates } from "../lora/plus.js";
import type { CausalLM } from "../models/causal.js";
import type { Parameter } from "../nn/module.js";
import { stats } from "../tensor/native.js";
import { addScaled, fill } from "../tensor/ops/elementwise.js";
import { clone } from "../tensor/ops/layout.js";
import { randomState, restoreRandomState } from "../tensor/ops/random.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { empty, type Tensor, view } from "../tensor/tensor.js";
import { wholeUpdate } from "../tensor/update.js";
import { type RunState, restoreTensors, stateTensors } from "./checkpoint-state.js";
import type { Checkpoints } from "./checkpoints.js";
import { decaying } from "./decay.js";
import { improves } from "./early-stopping.js";
import { AdapterCheck, explainDivergence } from "./health.js";
import { interruptOver, readAfterUpdate } from "./interrupted.js";
import { restoreGradients } from "./loss.js";
import { type MicroBatch, type Objective, TokenObjective } from "./objective.js";
import { Optimizer } from "./optimizer.js";
import { optimizerKind } from "./optimizer-names.js";
import { ofPairs, type TrainSettings, type TrainStep } from "./options.js";
import { scheduleFactor, warmupSteps } from "./schedule.js";

/** What a run works on. */
export interface LoopInput {
  model: CausalLM;
  train: readonly Example[];
  /** Numbers of the examples that stand together in a row (packing); each in its own by default. */
  rows?: readonly Int32Array[] | undefined;
  validation?: readonly Example[] | undefined;
  settings: TrainSettings;
  /** The loss; that of the trained tokens by default. */
  objective?: Objective | undefined;
  /** Stands behind a shorter row's end; 0 by default. */
  padId?: number;
  /** Called with the tokens of a micro-batch, padding included, and those of its images, before it is computed. */
  onBatch?: (tokens: number, ofImages: number) => void;
  /** Called after a step and its measurement, before it is yielded. */
  onStep?: (step: TrainStep, optimizerBytes: number) => unknown;
  /** Asks the run to end after the step it is in. */
  stopped?: () => boolean;
  /** Where the run is saved now and then. */
  checkpoints?: Checkpoints | undefined;
  /** What a checkpoint says of the run; the loop adds the rest. */
  identity?: Pick<RunState, "fingerprint" | "machine"> | undefined;
  /** A checkpoint to go on from: its folder, and what stands in it. */
  resumed?: { folder: string; state: RunState } | undefined;
  /** Says which example a number stands for, for errors. */
  describe?: (example: number) => string;
}

/** Lengths of a run, known before it starts. */
export interface RunPlan {
  batchesPerEpoch: number;
  stepsPerEpoch: number;
  steps: number;
  warmup: number;
  evalEvery: number;
  /** Steps between checkpoints; Infinity for none. */
  saveEvery: number;
}

// As transformers' Trainer.
const DEFAULT_SAVE = 500;

/** Optimizer steps an epoch: full groups of micro-batches, and one for the rest (as transformers' Trainer counts). */
export function planRun(rows: number, s: TrainSettings): RunPlan {
  const batchesPerEpoch = Math.ceil(rows / s.batch);
  const stepsPerEpoch = updatesPerEpoch(batchesPerEpoch, s.accumulate);
  const steps = s.steps ?? Math.max(1, Math.ceil(stepsPerEpoch * s.epochs));
  const share = (every: number | "epoch"): number => {
    if (every === "epoch") return stepsPerEpoch;
    return every < 1 ? Math.max(1, Math.round(steps * every)) : every;
  };
  const saves = s.output !== undefined && s.saveEvery !== 0;
  return {
    batchesPerEpoch,
    stepsPerEpoch,
    steps,
    warmup: warmupSteps(s.warmup, steps),
    evalEvery: share(s.evalEvery ?? "epoch"),
    saveEvery: saves ? share(s.saveEvery ?? DEFAULT_SAVE) : Number.POSITIVE_INFINITY,
  };
}

type Boundary = Pick<RunState, "sampler" | "random" | "optimizerSteps">;

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
  const { model, train, validation, settings: s, padId = 0 } = input;
  const packed = input.rows ?? Array.from(train, (_, i) => Int32Array.of(i));
  const plan = planRun(packed.length, s);
  const named = new Map([...model.namedParameters()].filter(([, p]) => p.requiresGrad));
  const parameters = [...named.values()];
  const collateRows = (numbers: readonly number[]): Batch =>
    collate(
      numbers.map((i) => train[i]!),
      { padId, paddingSide: s.paddingSide },
    );
  // The answers of a pair belong together; packed examples can be told apart.
  const partsOf = ({ rows }: MicroBatch): { example: number; micro: MicroBatch }[] =>
    Array.from(rows).flatMap((row) => {
      const examples = Array.from(packed[row]!);
      const groups = ofPairs(s.method) ? [examples] : examples.map((e) => [e]);
      return groups.map((g) => ({ example: g[0]!, micro: { batch: collateRows(g), rows: Int32Array.of(row) } }));
    });
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
    rates: loraPlusRates(model, s),
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
  const objective: Objective = input.objective ?? new TokenObjective(model, s, validation ?? [], padId);
  // TRL's trainers of preferences switch dropout off: both answers go through the same model as the reference's.
  const noisy = !ofPairs(s.method);
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
  let done = 0;
  let updated = 0; // the newest step whose update was applied
  let spent = 0;
  const check = new AdapterCheck(model);
  // What is read after an update is waited for where an interrupt would otherwise leave a step that cannot be saved.
  const read = <T>(from: () => T | Promise<T>): T | Promise<T> =>
    input.checkpoints ? readAfterUpdate(model.device, from) : from();
  const now = (): Boundary => ({
    sampler: sampler.state(),
    random: randomState(),
    optimizerSteps: optimizer.steps,
  });
  // What stands before a step: when it is broken off, the run can be saved as it was there.
  let boundary = now();
  const save = async (at: Boundary = now()): Promise<void> => {
    if (!input.checkpoints || !input.identity || input.checkpoints.holds(done)) return;
    const { best: lowest, processed, samples } = result;
    const numbers = { step: done, seconds: spent, best: lowest, worse, processed, samples, ...input.identity };
    const history = result.history.slice();
    await input.checkpoints.save({ ...numbers, ...at, history }, stateTensors(named, optimizer, best.tensors));
  };
  model.train(noisy);
  try {
    if (input.resumed) {
      const { folder, state } = input.resumed;
      await restoreTensors(folder, named, optimizer, () => best.keep());
      sampler.restore(state.sampler);
      restoreRandomState(state.random);
      optimizer.steps = state.optimizerSteps;
      ({ step: done, seconds: spent, worse } = state);
      const { best: lowest, processed, samples } = state;
      Object.assign(result, { best: lowest, processed, samples, history: [...state.history] });
    }
    updated = done;
    for (let step = done + 1; step <= plan.steps; step++) {
      boundary = now();
      throwIfInterrupted("Training", s.signal);
      if (input.stopped?.()) {
        result.ended = "stopped";
        if (done > 0) await save();
        break;
      }
      const started = performance.now();
      const inEpoch = (step - 1) % plan.stepsPerEpoch;
      const micro = Math.min(s.accumulate, plan.batchesPerEpoch - inEpoch * s.accumulate);
      const batches = Array.from({ length: micro }, () => {
        const rows = nextBatch(sampler);
        return { rows, batch: collateRows(Array.from(rows, (row) => Array.from(packed[row]!)).flat()) };
      });
      for (const { batch } of batches)
        input.onBatch?.(batch.inputIds.length, batch.pictures?.flat().reduce((n, p) => n + p.tokens, 0) ?? 0);
      const lr = s.lr * scheduleFactor(s.schedule, step - 1, plan.warmup, plan.steps);
      const { loss, norm, tokens } = await optimizerStep(
        objective,
        model,
        parameters,
        optimizer,
        batches,
        lr,
        s,
        sum,
        check,
      );
      if (!Number.isFinite(loss) || !Number.isFinite(norm)) {
        await input.checkpoints?.settle();
        const rows = { parts: partsOf, describe: input.describe ?? String };
        throw await explainDivergence(model, objective, batches, step, rows, input.checkpoints?.hint());
      }
      updated = step;
      await read(() => check.after(step, lr));
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
        ...(await read(() => objective.end())),
      };
      if (validation && (step % plan.evalEvery === 0 || step === plan.steps)) {
        model.train(false);
        const { validationLoss } = Object.assign(info, await objective.validate());
        model.train(noisy);
        const lowest = result.best?.validationLoss;
        worse = improves(validationLoss, lowest, s.earlyStopping?.threshold ?? 0) ? 0 : worse + 1;
        if (improves(validationLoss, lowest, 0)) {
          result.best = { step, validationLoss };
          if (s.keepBest) best.keep();
        }
      }
      result.history.push(info);
      await input.onStep?.(info, optimizer.bytes);
      done = step;
      boundary = now();
      spent += (performance.now() - started) / 1000;
      yield info;
      if (s.earlyStopping !== undefined && worse >= s.earlyStopping.patience) {
        result.ended = "early stopping";
        break;
      }
      if (input.checkpoints?.due(step)) await save();
    }
    await input.checkpoints?.settle();
    if (s.keepBest) best.restore();
    return result;
  } catch (error) {
    if (!(error instanceof InterruptedError)) throw error;
    // Between an update and its measurement there is no state to go on from.
    if (input.checkpoints && done > 0 && updated === done) {
      await input.checkpoints.settle();
      await interruptOver(model.device);
      if (s.keepBest && result.best?.step === done) best.keep(); // its copies may be among what was dropped
      await save(boundary).catch(() => {});
      await input.checkpoints.settle();
    }
    const hint = input.checkpoints?.hint() ?? "";
    throw new InterruptedError(`Training was interrupted after step ${done}.${hint && ` ${hint}`}`, { cause: error });
  } finally {
    await input.checkpoints?.settle();
    check.dispose();
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
  check: AdapterCheck,
): Promise<{ loss: number; norm: number; tokens: number }> {
  const tokens = batches.reduce((n, { batch }) => n + batch.tokens, 0);
  if (tokens === 0)
    throw new DataError(
      "train: a step has no trained token: every label is masked; check format, maxLength and the prompt's length.",
    );
  fill(sum, 0);
  const loss = outsideScope(() => view(sum, [1], 0));
  const squares = outsideScope(() => view(sum, [1], 1));
  let figures: Promise<Float32Array>;
  try {
    await objective.begin(batches);
    for (const batch of batches) toItsEnd(() => objective.accumulate(batch, loss));
    figures = toItsEnd(() => {
      restoreGradients(model, parameters, tokens);
      if (lr > 0) check.gradients();
      return wholeUpdate(model.device, () => {
        const norm = outsideScope(() => optimizer.step(lr, s.maxGradNorm));
        addScaled(squares, norm);
        norm.dispose();
        return sum.data();
      });
    });
  } finally {
    loss.dispose();
    squares.dispose();
  }
  const [l, n] = await figures;
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

  /** The copies; none before the first measurement. */
  get tensors(): readonly Tensor[] {
    return this.copies;
  }

  keep(): readonly Tensor[] {
    this.dispose();
    this.copies = outsideScope(() => noGrad(() => this.parameters.map((p) => clone(p))));
    return this.copies;
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
