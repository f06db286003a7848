/** Learning-rate schedules of transformers' `get_scheduler`. */
export type ScheduleName = "linear" | "cosine" | "constant";

/** Warmup in steps: a whole number as it is, a fraction below 1 as a share of the run (rounded up). */
export function warmupSteps(warmup: number, total: number): number {
  return warmup > 0 && warmup < 1 ? Math.ceil(total * warmup) : warmup;
}

/**
 * Factor of the learning rate for an optimizer step counted from 0: k/w while warming up (0 at the first step), then linear
 * (T-k)/(T-w), cosine (1 + cos(π p))/2 or constant 1.
 */
export function scheduleFactor(name: ScheduleName, step: number, warmup: number, total: number): number {
  if (step < warmup) return step / Math.max(1, warmup);
  if (name === "constant") return 1;
  const rest = Math.max(1, total - warmup);
  if (name === "linear") return Math.max(0, (total - step) / rest);
  return Math.max(0, 0.5 * (1 + Math.cos((Math.PI * (step - warmup)) / rest)));
}
