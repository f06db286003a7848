import { outsideScope } from "./scope.js";
import { activationDType, activationLike, emptyLike, type Tensor } from "./tensor.js";

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

/**
 * Where a backward pass may add the gradient of one of its inputs, when it can add to what stands there: to what later readers of that input have given already
 * (then nothing is returned for it), or to a tensor of its own, which is to be returned.
 */
export function inputGradient(x: Tensor): { grad: Tensor; beta: 0 | 1; returned: Tensor | undefined } {
  const before = x.adjoint;
  if (before && !x.leaf && before.holders === 1 && !before.aliased && before.dtype === activationDType(x))
    return { grad: before, beta: 1, returned: undefined };
  const grad = activationLike(x);
  return { grad, beta: 0, returned: grad };
}
