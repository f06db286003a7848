import { listParameters } from "../lora/parameters.js";
import type { CausalLM } from "../models/causal.js";
import { EmbeddingLike } from "../nn/layers.js";
import { type PlannedStep, sequencesOf } from "./estimate.js";

/**
 * Floating-point operations of an optimizer step as they are computed: two a parameter and token in the forward pass and two more for the inputs'
 * gradients, two for the gradient of a trained one, two where the blocks run again ("full", "offload"); attention over half of the T x T pairs
 * (two products forward, five backward). `TrainResult.flops` is transformers' rule of thumb instead: six a parameter, whatever is trained.
 */
export function stepFlops(network: CausalLM, step: PlannedStep): number {
  const { layers, heads, headDim, vocabSize, hiddenSize, tied } = network.config;
  const again = step.checkpointing === "full" || step.checkpointing === "offload";
  // Rows of a table are copied, not multiplied, unless it is the output layer as well.
  const tables = new Set<string>();
  for (const [name, m] of network.namedModules()) if (m instanceof EmbeddingLike) tables.add(`${name}.weight`);
  const table = vocabSize * hiddenSize;
  let all = 0;
  let trained = 0;
  for (const { name, shape, trainable } of listParameters(network)) {
    const size = shape.reduce((a, b) => a * b, 1);
    if (shape.length < 2 || (tables.has(name) && !(tied && size === table))) continue;
    all += size;
    if (trainable) trained += size;
  }
  const matrices = 4 * all + 2 * trained + (again ? 2 * (all - table) : 0);
  const attention = layers * heads * headDim * step.length * (2 + 5 + (again ? 2 : 0));
  return sequencesOf(step) * step.length * step.accumulate * (matrices + attention);
}
