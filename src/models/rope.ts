import { ConfigError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import type { Device } from "../tensor/device.js";
import { dryMemory } from "../tensor/native.js";
import type { RopeTables } from "../tensor/ops/attention.js";
import { outsideScope } from "../tensor/scope.js";
import { empty, tensor } from "../tensor/tensor.js";

/** Rotary embedding as a config describes it. */
export interface RopeConfig {
  theta: number;
  /** Rotated dimensions of a head. */
  dim: number;
  scaling?: RopeScaling | undefined;
}

export type RopeScaling =
  | { type: "linear"; factor: number }
  | { type: "llama3"; factor: number; lowFreqFactor: number; highFreqFactor: number; originalMaxPositions: number };

/** `rope_theta` and `rope_scaling`, or transformers 5's `rope_parameters` that holds both. */
export function ropeConfig(c: ConfigFields, dim: number): RopeConfig {
  const p = c.object("rope_parameters") ?? c.object("rope_scaling");
  const theta = p?.has("rope_theta") ? p.number("rope_theta") : c.number("rope_theta", { default: 10000 });
  if (!p) return { theta, dim };
  const type = p.string(p.has("rope_type") ? "rope_type" : "type", { default: "default" });
  let scaling: RopeScaling | undefined;
  if (type === "linear") scaling = { type, factor: p.number("factor") };
  else if (type === "llama3") {
    scaling = {
      type,
      factor: p.number("factor"),
      lowFreqFactor: p.number("low_freq_factor"),
      highFreqFactor: p.number("high_freq_factor"),
      originalMaxPositions: p.integer("original_max_position_embeddings"),
    };
  } else if (type !== "default")
    throw new ConfigError(`${c.where}: rope type must be "default", "linear" or "llama3", received "${type}".`);
  return { theta, dim, scaling };
}

/** Frequency of each rotated pair, rounded to float32 where the reference implementation (transformers) rounds. */
export function inverseFrequencies(config: RopeConfig): Float32Array {
  const { dim, theta, scaling } = config;
  if (dim % 2 !== 0) throw new ConfigError(`Rotary embedding needs an even number of dimensions, received ${dim}.`);
  const out = new Float32Array(dim / 2);
  for (let i = 0; i < out.length; i++) {
    const f = Math.fround(1 / Math.fround(theta ** ((2 * i) / dim)));
    out[i] = scaling ? scaled(f, scaling) : f;
  }
  return out;
}

// Llama 3.1: long wavelengths are stretched by the factor, short ones kept, those between interpolated.
function scaled(frequency: number, scaling: RopeScaling): number {
  if (scaling.type === "linear") return frequency / scaling.factor;
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = scaling;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength > originalMaxPositions / lowFreqFactor) return frequency / factor;
  if (wavelength < originalMaxPositions / highFreqFactor) return frequency;
  const smooth = (originalMaxPositions / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

/** Tables that grow with the longest position asked for. */
export class RopeCache {
  private readonly frequencies: Float32Array;
  private tables: RopeTables | undefined;
  private length = 0;

  constructor(config: RopeConfig) {
    this.frequencies = inverseFrequencies(config);
  }

  /** Tables for positions 0 … length-1 at least, on a device. */
  upTo(length: number, device: Device): RopeTables {
    if (this.tables && length <= this.length && this.tables.cos.device === device) return this.tables;
    if (dryMemory()) {
      const shape = [2 ** Math.ceil(Math.log2(Math.max(64, length))), this.frequencies.length];
      return { cos: empty(shape, "float32", device), sin: empty(shape, "float32", device) };
    }
    this.dispose();
    this.length = Math.max(64, this.length, 2 ** Math.ceil(Math.log2(length)));
    const half = this.frequencies.length;
    const cos = new Float32Array(this.length * half);
    const sin = new Float32Array(this.length * half);
    for (let p = 0; p < this.length; p++) {
      for (let i = 0; i < half; i++) {
        const angle = Math.fround(p * this.frequencies[i]!);
        cos[p * half + i] = Math.cos(angle);
        sin[p * half + i] = Math.sin(angle);
      }
    }
    const shape = [this.length, half];
    this.tables = outsideScope(() => ({ cos: tensor(cos, { shape, device }), sin: tensor(sin, { shape, device }) }));
    return this.tables;
  }

  dispose(): void {
    this.tables?.cos.dispose();
    this.tables?.sin.dispose();
    this.tables = undefined;
  }
}
