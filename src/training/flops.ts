import { runsAgain } from "../autograd/checkpoint.js";
import { listParameters } from "../lora/parameters.js";
import type { CausalLM } from "../models/causal.js";
import { EmbeddingLike } from "../nn/layers.js";
import { sizeOf } from "../tensor/shape.js";
import { type PlannedStep, sequencesOf } from "./estimate.js";

/**
 * Floating-point operations of an optimizer step as they are computed: two a parameter and token in the forward pass and two more for the inputs'
 * gradients, two for the gradient of a trained one, two where the blocks run again ("full", "offload"); attention over half of the T x T pairs
 * (two products forward, five backward). A vision tower is computed for images alone. `TrainResult.flops` is transformers' rule of thumb instead: six a
 * parameter, whatever is trained.
 */
export function stepFlops(network: CausalLM, step: PlannedStep): number {
  const { layers, heads, headDim, vocabSize, hiddenSize, tied } = network.config;
  const again = runsAgain(step.checkpointing);
  // Rows of a table are copied, not multiplied, unless it is the output layer as well.
  const tables = new Set<string>();
  for (const [name, m] of network.namedModules()) if (m instanceof EmbeddingLike) tables.add(`${name}.weight`);
  const table = vocabSize * hiddenSize;
  const tower = network.tower?.prefix;
  let all = 0;
  let trained = 0;
  for (const { name, shape, trainable } of listParameters(network)) {
    const size = sizeOf(shape);
    if (shape.length < 2 || (tables.has(name) && !(tied && size === table))) continue;
    if (tower !== undefined && name.startsWith(tower)) continue;
    all += size;
    if (trainable) trained += size;
  }
  const matrices = 4 * all + 2 * trained + (again ? 2 * (all - table) : 0);
  const attention = layers * heads * headDim * step.length * (2 + 5 + (again ? 2 : 0));
  return sequencesOf(step) * step.accumulate * (step.length * (matrices + attention) + imageFlops(network, step));
}

// Of the images of one sequence. A tower of which nothing is trained has no backward pass.
function imageFlops(network: CausalLM, step: PlannedStep): number {
  const { tower, sight } = network;
  const { imageTokens = [] } = step;
  if (tower === undefined || sight === undefined) return 0;
  const own = listParameters(network).filter(({ name }) => name.startsWith(tower.prefix));
  const learns = own.some(({ trainable }) => trainable);
  const again = learns && runsAgain(step.checkpointing);
  let token = 0;
  for (const { name, shape, trainable } of own) {
    if (shape.length < 2) continue;
    const repeated = again && name.startsWith(tower.blocks);
    token +=
      sizeOf(shape) * tower.rowsPerToken(name) * (2 + (learns ? 2 : 0) + (trainable ? 2 : 0) + (repeated ? 2 : 0));
  }
  const products = 2 + (learns ? 5 : 0) + (again ? 2 : 0);
  return imageTokens.reduce((sum, tokens) => {
    const patches = tokens * sight.settings.mergeSize ** 2;
    return sum + tokens * token + 2 * tower.depth * tower.dim * patches ** 2 * products;
  }, 0);
}
