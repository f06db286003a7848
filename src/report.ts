import { formatBytes, formatCount } from "./display/format.js";
import { defineDisplay } from "./display/host.js";
import { type Table, table } from "./display/table.js";
import { listParameters, type ParameterInfo, weightBytes } from "./lora/parameters.js";
import type { CausalLM } from "./models/causal.js";
import { cudaAvailable, type Device } from "./tensor/device.js";
import { openDevice, stats } from "./tensor/native.js";

const elements = (p: ParameterInfo): number => p.shape.reduce((a, b) => a * b, 1);

/** Counts as PEFT's `print_trainable_parameters` gives them, and shown as its line. */
export class TrainableCount {
  readonly trainable: number;
  readonly total: number;
  /** 100 · trainable / total. */
  readonly percent: number;

  constructor(trainable: number, total: number) {
    this.trainable = trainable;
    this.total = total;
    this.percent = (100 * trainable) / total;
  }

  /** "trainable params: 1,949,696 || all params: 6,245,533,696 || trainable%: 0.0312" */
  toString(): string {
    const count = (n: number): string => n.toLocaleString("en-US");
    return `trainable params: ${count(this.trainable)} || all params: ${count(this.total)} || trainable%: ${this.percent.toFixed(4)}`;
  }
}

defineDisplay(TrainableCount, (count) => ({ "text/plain": count.toString() }), String);

export function countTrainable(model: CausalLM): TrainableCount {
  let trainable = 0;
  let total = 0;
  for (const p of listParameters(model)) {
    total += elements(p);
    if (p.trainable) trainable += elements(p);
  }
  return new TrainableCount(trainable, total);
}

/** Parameters grouped over the layers: "model.layers.*.mlp.up_proj.weight × 30". */
export function summaryTable(model: CausalLM, device: string): Table {
  const groups = new Map<string, { count: number; info: ParameterInfo; elements: number; bytes: number }>();
  for (const p of listParameters(model)) {
    const name = p.name.replace(/\.\d+\./g, ".*.");
    const key = `${name}|${p.dtype}|${p.shape.join("x")}|${p.trainable}`;
    const group = groups.get(key) ?? { count: 0, info: { ...p, name }, elements: 0, bytes: 0 };
    group.count++;
    group.elements += elements(p);
    group.bytes += p.bytes;
    groups.set(key, group);
  }
  const count = countTrainable(model);
  const { config } = model;
  const rows = [...groups.values()].map((g) => [
    g.count > 1 ? `${g.info.name} × ${g.count}` : g.info.name,
    g.info.shape.join(" × "),
    g.info.dtype,
    formatCount(g.elements),
    formatBytes(g.bytes),
    g.info.trainable ? "yes" : "",
  ]);
  const { weights, adapters } = weightBytes(model);
  return table(["parameter", "shape", "dtype", "elements", "memory", "trained"], rows, {
    title: `${config.modelType}: ${formatCount(count.total)} parameters, ${config.layers} layers, hidden ${config.hiddenSize}, ${config.heads} heads (${config.kvHeads} for keys), context ${config.maxPositions}, on ${device}`,
    footer: `${count} · weights ${formatBytes(weights)}${adapters > 0 ? ` · adapters ${formatBytes(adapters)}` : ""}`,
    maxRows: 60,
    maxTextCell: 64,
    align: { elements: "right", memory: "right", shape: "right" },
  });
}

/** Memory by part, in bytes. */
export interface MemoryParts {
  /** Where the model stands. */
  device: Device;
  weights: number;
  adapters: number;
  gradients: number;
  optimizer: number;
  activations: number;
  peak: number;
}

/** Memory now, and gradients, optimizer and activations of the peak of the last training step. */
export function memoryParts(
  model: CausalLM,
  last: { gradients: number; optimizer: number; peak: number },
): MemoryParts {
  const { weights, adapters } = weightBytes(model);
  const { gradients, optimizer, peak } = last;
  const top = Math.max(peak, weights + adapters);
  const activations = Math.max(0, top - weights - adapters - gradients - optimizer);
  return { device: model.device, weights, adapters, gradients, optimizer, activations, peak: top };
}

/** Memory by part as a table. */
export function memoryTable(parts: MemoryParts): Table {
  const { device, ...bytes } = parts;
  const rows = Object.entries(bytes).map(([part, n]) => [part, formatBytes(n)]);
  return table(["part", "memory"], rows, { title: `Memory by part, on ${device}`, align: { memory: "right" } });
}

/** One device that models can run on. */
export interface DeviceInfo {
  /** What `loadModel` and `x.to` call it. */
  name: Device;
  /** What it is: "NVIDIA H200", … */
  model?: string;
  /** Threads that compute. */
  threads: number;
  /** Instruction set in use, or the GPU's compute capability. */
  isa: string;
  /** Bytes that tensors may take. */
  memory: number;
}

/** The devices of this machine that models can run on; a GPU is opened by this. */
export function devices(): DeviceInfo[] {
  const { threads, isa, limitBytes } = stats("cpu");
  const found: DeviceInfo[] = [{ name: "cpu", threads, isa, memory: limitBytes }];
  if (cudaAvailable()) {
    const facts = openDevice();
    const gpu = stats("cuda");
    const capability = facts.computeCapability ?? gpu.isa;
    found.push({ name: "cuda", model: facts.name, threads: gpu.threads, isa: capability, memory: gpu.limitBytes });
  }
  return found;
}
