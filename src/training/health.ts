import { StateError, TunebookError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import type { Parameter } from "../nn/module.js";
import { addScaled, fill } from "../tensor/ops/elementwise.js";
import { sumSquares } from "../tensor/ops/reduce.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope, scope } from "../tensor/scope.js";
import { empty, type Tensor, view } from "../tensor/tensor.js";
import { firstNonFinite } from "./first-nonfinite.js";
import type { MicroBatch, Objective } from "./objective.js";

/** A loss or gradient that is no number: the message names the step, the micro-batch, the row, the first layer and parameter concerned. */
export class DivergenceError extends TunebookError {}

/** The rows behind a step's micro-batches, to say which of them went wrong. */
export interface StepRows {
  /** What of a micro-batch can be tried alone: its examples, or its pairs (by the number of the chosen answer's example). */
  parts(micro: MicroBatch): { example: number; micro: MicroBatch }[];
  /** An example's text, or what else says which it is. */
  describe(example: number): string;
}

/**
 * Runs the micro-batches of a step that went wrong once more, one by one, to say where it did. The optimizer has changed nothing: it leaves
 * parameters alone when the gradient's norm is not finite.
 */
export async function explainDivergence(
  model: CausalLM,
  objective: Objective,
  batches: readonly MicroBatch[],
  step: number,
  rows?: StepRows,
  saved = "",
): Promise<DivergenceError> {
  const fix = `Lower lr, check the rows for broken text, or start again from the last good parameters.${saved && ` ${saved}`}`;
  for (const [name, p] of model.namedParameters()) {
    if (!p.materialized || p.dtype !== "float32") continue;
    if (!Number.isFinite(await total(p)))
      return new DivergenceError(`Step ${step}: the parameter ${name} itself holds NaN or infinity. ${fix}`);
  }
  const named = new Map([...model.namedParameters()].map(([name, p]) => [p, name]));
  const whichRow = async (micro: MicroBatch): Promise<string> => {
    const parts = rows?.parts(micro) ?? [];
    for (const part of parts) {
      const { loss, bad } = await tryBatch(model, objective, part.micro, named);
      if (!Number.isFinite(loss) || bad.length > 0)
        return ` It comes from training example ${part.example} (counted from 0): ${rows!.describe(part.example)}`;
    }
    if (parts.length === 0) return "";
    const numbers = parts.map(({ example }) => example).join(", ");
    return ` It comes from training examples ${numbers} together, from none of them alone.`;
  };
  for (const [index, micro] of batches.entries()) {
    const { loss, bad } = await tryBatch(model, objective, micro, named);
    if (!Number.isFinite(loss) || bad.length > 0) {
      const where =
        bad.length > 0
          ? `the gradient of ${bad.length} parameters is not finite, the last layer's first: ${bad.at(-1)}`
          : "no gradient is";
      const layer = await firstNonFinite(model, () => void startBatch(model, objective, micro).dispose());
      model.zeroGrad();
      const from = layer === undefined ? "" : `, from the output of ${layer} on,`;
      return new DivergenceError(
        `Step ${step}, micro-batch ${index + 1} of ${batches.length}: the loss is ${loss}${from} and ${where}.${await whichRow(micro)} ${fix}`,
      );
    }
  }
  return new DivergenceError(
    `Step ${step}: the gradient's norm is not finite, though each micro-batch alone is. ${fix}`,
  );
}

/** Loss of a micro-batch, and the parameters whose gradient is not finite with it. */
async function tryBatch(
  model: CausalLM,
  objective: Objective,
  micro: MicroBatch,
  named: ReadonlyMap<Parameter, string>,
): Promise<{ loss: number; bad: string[] }> {
  await objective.begin([micro]);
  const sum = startBatch(model, objective, micro);
  const loss = await sum.item();
  sum.dispose();
  const bad: string[] = [];
  for (const p of model.trainableParameters())
    if (p.grad && !Number.isFinite(await total(p.grad))) bad.push(named.get(p)!);
  model.zeroGrad();
  return { loss, bad };
}

/** Loss of a micro-batch that the objective has begun with, not waited for; its gradients are the parameters' own. */
function startBatch(model: CausalLM, objective: Objective, micro: MicroBatch): Tensor {
  model.zeroGrad();
  const sum = outsideScope(() => fill(empty([1], "float32", model.device), 0));
  objective.accumulate(micro, sum);
  return sum;
}

// B begins at zero, so A has no gradient before B has moved: the second step with a learning rate is the first that can reach both.
const CHECKED_STEPS = 3;

/** Makes sure that every matrix of an adapter is reached by the loss: one that is not would be saved as it began, and nobody would know. */
export class AdapterCheck {
  private readonly matrices: [string, Parameter][];
  private sums: Tensor | undefined;
  private steps = 0;

  constructor(model: CausalLM) {
    this.matrices = [...model.namedParameters()].filter(([name, p]) => p.requiresGrad && name.includes(".lora_"));
    const { length } = this.matrices;
    if (length > 0) this.sums = outsideScope(() => fill(empty([length], "float32", model.device), 0));
  }

  /** Takes note of the gradients before an optimizer step uses them up. */
  gradients(): void {
    const { sums } = this;
    if (!sums) return;
    scope(() =>
      noGrad(() =>
        this.matrices.forEach(([, { grad }], i) => {
          if (grad) addScaled(view(sums, [1], i), sumSquares([grad]));
        }),
      ),
    );
  }

  /**
   * After a step that was taken.
   * @throws StateError after the third with a learning rate above 0 when a matrix never had a gradient: it names them.
   */
  async after(step: number, lr: number): Promise<void> {
    if (!this.sums || lr === 0 || ++this.steps < CHECKED_STEPS) return;
    const sums = await this.sums.data();
    this.dispose();
    const never = this.matrices.flatMap(([name], i) => (sums[i] === 0 ? [name] : []));
    if (never.length > 0)
      throw new StateError(
        `Step ${step}: ${never.length} of the adapter's ${this.matrices.length} matrices never had a gradient other than 0, so they are not trained: ` +
          `${never.slice(0, 4).join(", ")}${never.length > 4 ? " …" : ""}. Name target layers that the rows go through, and look whether the labels are masked.`,
      );
  }

  dispose(): void {
    this.sums?.dispose();
    this.sums = undefined;
  }
}

async function total(t: Parameters<typeof sumSquares>[0][number]): Promise<number> {
  const s = outsideScope(() => sumSquares([t]));
  try {
    return await s.item();
  } finally {
    s.dispose();
  }
}
