import { TunebookError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import { fill } from "../tensor/ops/elementwise.js";
import { sumSquares } from "../tensor/ops/reduce.js";
import { outsideScope } from "../tensor/scope.js";
import { empty } from "../tensor/tensor.js";
import type { MicroBatch, Objective } from "./objective.js";

/** A loss or gradient that is no number: the message names the step, the micro-batch and the first parameter concerned. */
export class DivergenceError extends TunebookError {}

/**
 * Runs the micro-batches of a step that went wrong once more, one by one, to say where it did. The optimizer has changed nothing: it leaves
 * parameters alone when the gradient's norm is not finite.
 */
export async function explainDivergence(
  model: CausalLM,
  objective: Objective,
  batches: readonly MicroBatch[],
  step: number,
): Promise<DivergenceError> {
  const fix = "Lower lr, check the rows for broken text, or start again from the last good parameters.";
  for (const [name, p] of model.namedParameters()) {
    if (!p.materialized || p.dtype !== "float32") continue;
    if (!Number.isFinite(await total(p)))
      return new DivergenceError(`Step ${step}: the parameter ${name} itself holds NaN or infinity. ${fix}`);
  }
  const named = new Map([...model.namedParameters()].map(([name, p]) => [p, name]));
  for (const [index, batch] of batches.entries()) {
    model.zeroGrad();
    const sum = outsideScope(() => fill(empty([1], "float32", model.device), 0));
    await objective.begin([batch]);
    objective.accumulate(batch, sum);
    const loss = await sum.item();
    sum.dispose();
    const bad: string[] = [];
    for (const p of model.trainableParameters()) {
      if (p.grad && !Number.isFinite(await total(p.grad))) bad.push(named.get(p)!);
    }
    model.zeroGrad();
    if (!Number.isFinite(loss) || bad.length > 0) {
      const where =
        bad.length > 0
          ? `the gradient of ${bad.length} parameters is not finite, the last layer's first: ${bad.at(-1)}`
          : "no gradient is";
      return new DivergenceError(
        `Step ${step}, micro-batch ${index + 1} of ${batches.length}: the loss is ${loss} and ${where}. ${fix}`,
      );
    }
  }
  return new DivergenceError(
    `Step ${step}: the gradient's norm is not finite, though each micro-batch alone is. ${fix}`,
  );
}

async function total(t: Parameters<typeof sumSquares>[0][number]): Promise<number> {
  const s = outsideScope(() => sumSquares([t]));
  try {
    return await s.item();
  } finally {
    s.dispose();
  }
}
