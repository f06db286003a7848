import { StateError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import { Linear } from "../nn/layers.js";
import { FrozenLinear } from "../quantization/frozen.js";
import { mergeLora } from "./merge.js";
import { MergeReport } from "./merge-report.js";

/**
 * Merges an adapter and compares the logits of a probe before and after.
 * @param name what the base is called.
 * @param merged called when the weights have changed.
 * @throws StateError when they changed by more than rounding.
 */
export async function mergeChecked(
  network: CausalLM,
  adapter: string,
  name: string,
  logits: (rows: number[][]) => Promise<Float32Array>,
  merged: () => void,
): Promise<MergeReport> {
  const { vocabSize, maxPositions } = network.config;
  const probe = Array.from({ length: Math.min(32, maxPositions) }, (_, i) => (i * 7919 + 13) % vocabSize);
  // A sum kept in 16 bits is rounded, and a product or an activation rounded to 16 bits rounds the dense weight elsewhere.
  const rounds =
    network.activations !== "float32" ||
    [...network.namedModules()].some(([, m]) =>
      m instanceof FrozenLinear ? m.compute !== "float32" : m instanceof Linear && m.weight.dtype !== "float32",
    );
  const before = await logits([probe]);
  const { layers, dequantised } = mergeLora(network, adapter);
  merged();
  const after = await logits([probe]);
  const largest = before.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  const difference = before.reduce((most, v, i) => Math.max(most, Math.abs(after[i]! - v)), 0) / largest;
  const base = dequantised > 0 ? `${name}, ${dequantised} quantised layers restored to dense` : name;
  if (![...network.namedModules()].some(([, m]) => m instanceof FrozenLinear)) network.setRequiresGrad(true);
  if (!(difference < (rounds ? 0.05 : 1e-3)))
    throw new StateError(
      `merge: the logits changed by ${difference.toExponential(1)} of their size when "${adapter}" was merged into ${base}; do not use this model, load it again.`,
    );
  return new MergeReport(base, adapter, layers, difference);
}
