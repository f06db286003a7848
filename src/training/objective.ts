import type { Batch } from "../data/collate.js";
import type { Example } from "../data/mask.js";
import { meanLoss } from "../evaluation/loss.js";
import type { CausalLM } from "../models/causal.js";
import type { Tensor } from "../tensor/tensor.js";
import { accumulateGradients } from "./loss.js";
import type { TrainSettings, TrainStep } from "./options.js";

/** A micro-batch, and the numbers of the rows that it was drawn from. */
export interface MicroBatch {
  batch: Batch;
  rows: Int32Array;
}

/** What a run makes smaller: the loss of a method. The loop knows no other difference between methods. */
export interface Objective {
  /** Prepares an optimizer step of these micro-batches. */
  begin(step: readonly MicroBatch[]): void | Promise<void>;
  /** Adds the gradients of one of its micro-batches to the parameters and its share of the loss to `sum`. */
  accumulate(micro: MicroBatch, sum: Tensor): void;
  /** What else is known of the step, once it was taken. */
  end(): Partial<TrainStep> | Promise<Partial<TrainStep>>;
  /** Measures the validation rows. */
  validate(): Promise<Partial<TrainStep> & { validationLoss: number }>;
  /** Frees what it holds between steps. */
  dispose?(): void;
}

/** Mean cross entropy of the trained tokens (sft). */
export class TokenObjective implements Objective {
  private readonly model: CausalLM;
  private readonly settings: TrainSettings;
  private readonly validation: readonly Example[];
  private readonly padId: number;
  private tokens = 1;

  constructor(model: CausalLM, settings: TrainSettings, validation: readonly Example[], padId: number) {
    this.model = model;
    this.settings = settings;
    this.validation = validation;
    this.padId = padId;
  }

  begin(step: readonly MicroBatch[]): void {
    this.tokens = step.reduce((n, { batch }) => n + batch.tokens, 0);
  }

  accumulate({ batch }: MicroBatch, sum: Tensor): void {
    if (batch.tokens === 0) return;
    const { labelSmoothing, checkpointing, neftune } = this.settings;
    accumulateGradients(this.model, batch, this.tokens, labelSmoothing, sum, checkpointing, neftune);
  }

  end(): Partial<TrainStep> {
    return {};
  }

  async validate(): Promise<{ validationLoss: number }> {
    return { validationLoss: await meanLoss(this.model, this.validation, this.settings, this.padId) };
  }
}
