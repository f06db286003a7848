import { outsideScope } from "./scope.js";
import { emptyLike, type Tensor } from "./tensor.js";

/**
 * Where a backward pass may add a leaf's gradient directly, sparing a tensor and an addition: the accumulated gradient and the factor of
 * what stands in it (`beta` of a product). Gradients of leaves are float32, whatever dtype activations have. `undefined` for results of other
 * operations, whose gradient must be returned.
 */
export function leafGradient(t: Tensor): { grad: Tensor; beta: 0 | 1 } | undefined {
  if (!t.leaf || !t.requiresGrad || t.dtype !== "float32") return undefined;
  if (t.grad) return { grad: t.grad, beta: 1 };
  t.grad = outsideScope(() => emptyLike(t));
  return { grad: t.grad, beta: 0 };
}
