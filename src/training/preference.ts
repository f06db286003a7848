/** ORPO (Hong et al. 2024) and DPO (Rafailov et al. 2023) with the losses sigmoid, hinge and ipo, as TRL computes them. */
import { type Batch, collate } from "../data/collate.js";
import type { Pair } from "../data/preference.js";
import { throwIfInterrupted, toItsEnd } from "../display/host.js";
import { answerLengths, chosenTokens, pairExamples, pairLogps, referenceLogps } from "../evaluation/preference.js";
import type { CausalLM } from "../models/causal.js";
import { addScaled, fill, unary } from "../tensor/ops/elementwise.js";
import { clone } from "../tensor/ops/layout.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope, scope } from "../tensor/scope.js";
import { empty, type Tensor, tensor } from "../tensor/tensor.js";
import { accumulateLoss } from "./loss.js";
import type { MicroBatch, Objective } from "./objective.js";
import type { TrainSettings, TrainStep } from "./options.js";

/** What is measured of the pairs of a step, under TRL's names. Rewards are beta · log-probability (dpo: its gain over the reference's). */
export interface PreferenceMetrics {
  "rewards/chosen"?: number;
  "rewards/rejected"?: number;
  /** Share of the pairs whose chosen answer has the higher reward. */
  "rewards/accuracies"?: number;
  "rewards/margins"?: number;
  /** Log-probabilities of the answers in nats: sums (dpo) or means over their tokens (orpo). */
  "logps/chosen"?: number;
  "logps/rejected"?: number;
  /** orpo: cross entropy of the chosen sequences, prompts included. */
  nll_loss?: number;
  /** orpo: mean log σ of the log odds ratio. */
  log_odds_ratio?: number;
  /** orpo: mean log odds ratio. */
  log_odds_chosen?: number;
}

/** What a step is divided by: its pairs, and (orpo) the tokens of its chosen sequences. */
interface Totals {
  pairs: number;
  tokens: number;
  /** Trained tokens, by which float16 gradients are scaled. */
  trained: number;
}

/** What came out of a batch: its log-probabilities on the device (2B, or 2B + 1), and the reference's of the same answers. */
interface Outcome {
  values: Tensor;
  reference: Float32Array | undefined;
}

/** Log-probabilities of the reference, which is the model with its adapter switched off, each computed once. */
class Reference {
  private readonly pairs: readonly Pair[];
  private readonly logps: Float32Array;
  private readonly model: CausalLM;
  private readonly without: Without;

  constructor(model: CausalLM, pairs: readonly Pair[], without: Without) {
    this.model = model;
    this.pairs = pairs;
    this.without = without;
    this.logps = new Float32Array(2 * pairs.length).fill(Number.NaN);
  }

  /** Computes what is missing of these pairs (all by default). */
  async ready(rows: Iterable<number> = this.pairs.keys(), signal?: AbortSignal): Promise<void> {
    const missing = [...new Set(rows)].filter((row) => Number.isNaN(this.logps[2 * row]));
    if (missing.length === 0) return;
    const pairs = missing.map((row) => this.pairs[row]!);
    const found = await this.without(() => referenceLogps(this.model, pairs, { signal }));
    for (const [i, row] of missing.entries()) this.logps.set(found.subarray(2 * i, 2 * i + 2), 2 * row);
  }

  /** Of a batch: (2B), the chosen answers first. */
  of(rows: Int32Array): Float32Array {
    return Float32Array.from(
      [...rows].map((r) => this.logps[2 * r]!).concat([...rows].map((r) => this.logps[2 * r + 1]!)),
    );
  }
}

type Without = <T>(fn: () => T | Promise<T>) => Promise<T>;

/** The loss of pairs. A row of the sampler is a pair: example 2i is chosen, example 2i + 1 rejected. */
export class PreferenceObjective implements Objective {
  private readonly model: CausalLM;
  private readonly settings: TrainSettings;
  private readonly validation: readonly Pair[];
  private readonly references: { train: Reference; validation: Reference } | undefined;
  private totals: Totals = { pairs: 1, tokens: 1, trained: 1 };
  private outcomes: Outcome[] = [];

  /** @param without Runs a function with the adapter switched off. */
  constructor(
    model: CausalLM,
    settings: TrainSettings,
    train: readonly Pair[],
    validation: readonly Pair[],
    without: Without,
  ) {
    this.model = model;
    this.settings = settings;
    this.validation = validation;
    const reference = (pairs: readonly Pair[]): Reference => new Reference(model, pairs, without);
    if (settings.method === "dpo") this.references = { train: reference(train), validation: reference(validation) };
  }

  /**
   * Computes the whole reference where training would change it: when more than an adapter is trained. Otherwise each pair's is computed when it
   * is drawn first.
   */
  async prepare(without: Without): Promise<void> {
    if (!this.references) return;
    const changes = await without(() => this.model.trainableParameters().length > 0);
    if (!changes) return;
    await this.references.train.ready(undefined, this.settings.signal);
    await this.references.validation.ready(undefined, this.settings.signal);
  }

  async begin(step: readonly MicroBatch[]): Promise<void> {
    this.dispose();
    this.totals = totalsOf(step.map(({ batch }) => batch));
    const rows = step.flatMap((micro) => [...micro.rows]);
    await this.references?.train.ready(rows, this.settings.signal);
  }

  accumulate({ batch, rows }: MicroBatch, sum: Tensor): void {
    const { model, totals } = this;
    const reference = this.references?.train.of(rows);
    accumulateLoss(model, totals.trained, this.settings.checkpointing, sum, (scale) => {
      const { loss, values } = this.forward(batch, reference, totals, scale);
      this.outcomes.push({ values, reference });
      return loss;
    });
  }

  async end(): Promise<PreferenceMetrics> {
    const read: [Float32Array, Float32Array | undefined][] = [];
    for (const { values, reference } of this.outcomes) read.push([await values.data(), reference]);
    this.dispose();
    return metricsOf(read, this.totals, this.settings);
  }

  async validate(): Promise<Partial<TrainStep> & { validationLoss: number }> {
    const { model, settings, validation, references } = this;
    await references?.validation.ready(undefined, settings.signal);
    const batches: MicroBatch[] = [];
    for (let i = 0; i < validation.length; i += settings.batch) {
      const rows = Int32Array.from(validation.keys()).subarray(i, i + settings.batch);
      const examples = pairExamples(validation.slice(i, i + settings.batch));
      batches.push({ batch: collate(examples, { paddingSide: "none" }), rows });
    }
    const totals = totalsOf(batches.map(({ batch }) => batch));
    const sum = outsideScope(() => fill(empty([1], "float32", model.device), 0));
    const read: [Float32Array, Float32Array | undefined][] = [];
    try {
      for (const { batch, rows } of batches) {
        throwIfInterrupted("Evaluation", settings.signal);
        const reference = references?.validation.of(rows);
        const values = toItsEnd(() =>
          scope(() =>
            noGrad(() => {
              const out = this.forward(batch, reference, totals, 1);
              addScaled(sum, out.loss);
              return out.values;
            }),
          ),
        );
        read.push([await values.data(), reference]);
        values.dispose();
      }
      const metrics = metricsOf(read, totals, settings);
      return {
        validationLoss: await sum.item(),
        validationAccuracy: metrics["rewards/accuracies"] ?? 0,
        validationMargin: metrics["rewards/margins"] ?? 0,
      };
    } finally {
      sum.dispose();
    }
  }

  dispose(): void {
    for (const { values } of this.outcomes.splice(0)) values.dispose();
  }

  /** The batch's share of the loss, times `scale`, one element; and its log-probabilities, which the caller frees. */
  private forward(
    batch: Batch,
    reference: Float32Array | undefined,
    totals: Totals,
    scale: number,
  ): { loss: Tensor; values: Tensor } {
    const orpo = this.settings.method === "orpo";
    const sums = pairLogps(this.model, batch, orpo ? "mean" : "sum", orpo); // (2B, 1), orpo: (2B + 1, 1)
    const values = outsideScope(() => noGrad(() => clone(sums)));
    const loss = orpo
      ? orpoLoss(sums, totals, this.settings.beta, scale)
      : dpoLoss(sums, reference!, answerLengths(batch), this.settings)
          .sum()
          .mul(scale / totals.pairs);
    return { loss, values };
  }
}

function totalsOf(batches: readonly Batch[]): Totals {
  const totals = { pairs: 0, tokens: 0, trained: 0 };
  for (const batch of batches) {
    totals.pairs += batch.sequences.length.length / 2;
    totals.tokens += chosenTokens(batch);
    totals.trained += batch.tokens;
  }
  return totals;
}

/** Loss of each pair (B, 1) from summed log-probabilities (2B, 1) and the reference's; `lengths` are the answers' tokens. */
function dpoLoss(sums: Tensor, reference: Float32Array, lengths: Float32Array, s: TrainSettings): Tensor {
  const pairs = lengths.length / 2;
  const constants = (values: Float32Array): Tensor => tensor(values, { device: sums.device }).reshape(values.length, 1);
  const ratios = sums.sub(constants(reference)); // (2B, 1)
  const { beta, labelSmoothing: e } = s;
  if (s.lossType === "ipo") {
    const means = ratios.mul(constants(lengths.map((n) => 1 / n)));
    return difference(means, pairs)
      .sub(1 / (2 * beta))
      .square();
  }
  const delta = difference(ratios, pairs);
  if (s.lossType === "hinge") return delta.mul(-beta).add(1).relu();
  const right = unary("log_sigmoid", delta.mul(beta)).mul(-(1 - e));
  return e === 0 ? right : right.add(unary("log_sigmoid", delta.mul(-beta)).mul(-e));
}

/** Chosen minus rejected, (B, 1), of (2B or more, 1). */
function difference(x: Tensor, pairs: number): Tensor {
  return x.slice(0, 0, pairs).sub(x.slice(0, pairs, 2 * pairs));
}

// A mean log-probability of exactly 0 would have infinite odds.
const SUREST = -1e-7;

/** Cross entropy of the chosen sequences - beta · mean of log σ(log odds ratio), from (2B + 1, 1). */
function orpoLoss(sums: Tensor, totals: Totals, beta: number, scale: number): Tensor {
  const count = sums.dim(0) - 1;
  const logps = sums.slice(0, 0, count).clamp(-1e30, SUREST); // (2B, 1)
  // log(1 - e^x) = log(-tanh(x/2)) + log(1 + e^x): neither term cancels, near 0 or far from it.
  const rest = logps.mul(0.5).tanh().neg().log().add(logps.exp().add(1).log());
  const odds = difference(logps.sub(rest), count / 2); // (B, 1)
  const ratio = unary("log_sigmoid", odds).sum();
  const nll = sums.slice(0, count, count + 1).sum();
  return nll.mul(scale / totals.tokens).add(ratio.mul((-beta * scale) / totals.pairs));
}

function metricsOf(
  read: readonly [Float32Array, Float32Array | undefined][],
  totals: Totals,
  s: TrainSettings,
): PreferenceMetrics {
  const sums = { chosen: 0, rejected: 0, right: 0, c: 0, r: 0, nll: 0, ratio: 0, odds: 0 };
  for (const [values, reference] of read) {
    const pairs = Math.floor(values.length / 2);
    for (let i = 0; i < pairs; i++) {
      const [c, r] = [values[i]!, values[pairs + i]!];
      const chosen = s.beta * (c - (reference?.[i] ?? 0));
      const rejected = s.beta * (r - (reference?.[pairs + i] ?? 0));
      sums.chosen += chosen;
      sums.rejected += rejected;
      sums.right += chosen > rejected ? 1 : 0;
      sums.c += c;
      sums.r += r;
      const odds = c - r - (logOneLess(c) - logOneLess(r));
      sums.odds += odds;
      sums.ratio += -Math.log1p(Math.exp(-Math.abs(odds))) + Math.min(0, odds);
    }
    if (values.length % 2 === 1) sums.nll += values[2 * pairs]!;
  }
  const { pairs, tokens } = totals;
  const metrics: PreferenceMetrics = {
    "rewards/chosen": sums.chosen / pairs,
    "rewards/rejected": sums.rejected / pairs,
    "rewards/accuracies": sums.right / pairs,
    "rewards/margins": (sums.chosen - sums.rejected) / pairs,
    "logps/chosen": sums.c / pairs,
    "logps/rejected": sums.r / pairs,
  };
  if (s.method !== "orpo") return metrics;
  return {
    ...metrics,
    nll_loss: sums.nll / tokens,
    log_odds_ratio: sums.ratio / pairs,
    log_odds_chosen: sums.odds / pairs,
  };
}

/** log(1 - e^x), x < 0. */
function logOneLess(x: number): number {
  const y = Math.min(x, SUREST);
  return y < -Math.LN2 ? Math.log1p(-Math.exp(y)) : Math.log(-Math.expm1(y));
}
