import type { TrainStep } from "../../src/index.js";

/** Steps as a run makes them; every `evalEvery`th (0: none) with a validation loss. */
export function dashboardSteps(count: number, evalEvery: number): TrainStep[] {
  return Array.from({ length: count }, (_, i) => {
    const step = i + 1;
    return {
      step,
      epoch: step / count,
      loss: 1 + 2 * Math.exp((-4 * i) / count) + 0.1 * Math.sin(i),
      ...(evalEvery > 0 && step % evalEvery === 0 ? { validationLoss: 1.2 + 2 * Math.exp((-4 * i) / count) } : {}),
      lr: 2e-4 * (1 - i / count),
      gradNorm: 1 + Math.cos(i / 3) ** 2,
      tokens: 100,
      tokensPerSecond: 1500 + 100 * Math.sin(i / 5),
      memory: 5 * 2 ** 20,
      peakMemory: 10 * 2 ** 20,
      memoryParts: {
        weights: 2 ** 20,
        adapters: 2 ** 19,
        gradients: 2 ** 19,
        optimizer: 2 ** 20,
        activations: (6 + Math.sin(i)) * 2 ** 20,
      },
    };
  });
}
