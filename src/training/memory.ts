import { weightBytes } from "../lora/parameters.js";
import type { CausalLM } from "../models/causal.js";
import { resetPeak, stats } from "../tensor/native.js";
import type { TrainStep } from "./options.js";

/**
 * Starts to watch the memory of a run: the function that comes back writes each step's peak into the step, by part, and returns it in bytes.
 * Other tensors that were alive when the run began are in the peak and in none of the parts.
 */
export function stepMemory(network: CausalLM): (step: TrainStep, optimizerBytes: number) => number {
  const { device } = network;
  const { weights, adapters } = weightBytes(network);
  resetPeak(device);
  const before = stats(device).liveBytes;
  const gradients = network.trainableParameters().reduce((n, p) => n + p.bytes, 0);
  return (step, optimizer) => {
    const peak = stats(device).peakBytes;
    resetPeak(device);
    const activations = Math.max(0, peak - before - gradients - optimizer);
    step.peakMemory = peak;
    step.memoryParts = { weights, adapters, gradients, optimizer, activations };
    return peak;
  };
}
