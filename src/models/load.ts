import { CheckpointError } from "../errors.js";
import type { WeightSource } from "../hub/weight-source.js";
import { type Module, Parameter } from "../nn/module.js";
import { QuantizedLinear } from "../quantization/nf4.js";
import { PackedEmbedding, PackedLinear } from "../quantization/packed.js";
import type { Device } from "../tensor/device.js";
import type { DType } from "../tensor/dtype.js";
import { settle } from "../tensor/native.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { shapeText } from "../tensor/shape.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { type Arrival, streamWeights } from "./stream.js";

/** Where one tensor of a checkpoint goes. */
type Target =
  | { shape: readonly number[]; parameter: Parameter }
  | { shape: readonly number[]; layer: QuantizedLinear | PackedLinear | PackedEmbedding };

// Tables that old checkpoints carry though they follow from the config.
const DERIVED = /(^|\.)rotary_emb\.inv_freq$/;

/** Reports progress in bytes of the checkpoint. */
export type LoadProgress = (doneBytes: number, totalBytes: number, name: string) => void;

/**
 * Fills a model from a checkpoint tensor by tensor; layers prepared for quantisation are quantised as their weight arrives, so that the model
 * never exists whole in its own precision. Names and shapes are all compared before anything is read.
 * @throws CheckpointError naming missing, unexpected and misshapen tensors.
 */
export async function loadWeights(
  model: Module,
  source: WeightSource,
  tied: readonly string[],
  onProgress?: LoadProgress,
  signal?: AbortSignal,
): Promise<void> {
  const targets = checkpointTargets(model);
  compare(targets, source, tied);
  const total = [...targets.keys()].reduce((n, name) => n + source.entry(name).bytes, 0);
  let done = 0;
  const taken = (name: string): void => {
    done += source.entry(name).bytes;
    onProgress?.(done, total, name);
  };
  const plain = new Map<Device, Arrival[]>();
  const decoded: [string, Target][] = [];
  for (const [name, target] of targets) {
    const holder = "layer" in target ? target.layer : target.parameter;
    const arrival = plainArrival(source, name, target);
    if (arrival === undefined) decoded.push([name, target]);
    else plain.set(holder.device, [...(plain.get(holder.device) ?? []), arrival]);
  }
  for (const [device, arrivals] of plain) await streamWeights(arrivals, device, ({ name }) => taken(name), signal);
  for (const [name, target] of decoded) {
    signal?.throwIfAborted();
    await decode(source, name, target);
    // One tensor at a time: what was queued is done before the next is read, so memory stays at one tensor above the model's own.
    await settle();
    taken(name);
  }
}

const PLAIN: Readonly<Record<string, DType>> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

// A tensor that can be read as it stands in the file; undefined for one that must be decoded.
function plainArrival(source: WeightSource, name: string, target: Target): Arrival | undefined {
  if ("layer" in target && !(target.layer instanceof QuantizedLinear)) return undefined;
  const dtype = PLAIN[source.entry(name).dtype];
  const place = source.locate?.(name);
  if (dtype === undefined || place === undefined) return undefined;
  const common = { name, place, shape: target.shape, dtype };
  if ("layer" in target) {
    const layer = target.layer as QuantizedLinear;
    return { ...common, kept: false, take: (weight) => layer.load(weight) };
  }
  const { parameter } = target;
  if (parameter.dtype === dtype) return { ...common, kept: true, take: (weight) => void parameter.adopt(weight) };
  return { ...common, kept: false, take: (weight) => void parameter.adopt(converted(weight, parameter.dtype)) };
}

const converted = (weight: Tensor, dtype: DType): Tensor => outsideScope(() => noGrad(() => weight.to(dtype)));

async function decode(source: WeightSource, name: string, target: Target): Promise<void> {
  if ("layer" in target && !(target.layer instanceof QuantizedLinear)) return readPacked(source, name, target.layer);
  const { device } = "layer" in target ? target.layer : target.parameter;
  const data = await source.readFloat32(name);
  const weight = outsideScope(() => tensor(data, { shape: target.shape, device }));
  if ("parameter" in target) {
    const { dtype } = target.parameter;
    target.parameter.adopt(dtype === "float32" ? weight : converted(weight, dtype));
  } else (target.layer as QuantizedLinear).load(weight);
  weight.dispose();
}

async function readPacked(source: WeightSource, name: string, layer: PackedLinear | PackedEmbedding): Promise<void> {
  const blocks = await source.readBlocks?.(name);
  if (blocks === undefined)
    throw new CheckpointError(`${source.where}: ${name} is ${source.entry(name).dtype}, expected ${layer.format}.`);
  layer.adoptBlocks(blocks);
}

/** Gives every parameter its initial values (`weights: "random"`), quantising layer by layer. */
export async function randomWeights(model: Module): Promise<void> {
  for (const target of checkpointTargets(model).values()) {
    if ("layer" in target) {
      if (target.layer instanceof QuantizedLinear) target.layer.initialize();
    } else target.parameter.materialize();
    await settle();
  }
}

/** Every tensor a checkpoint of this model holds, by name, in the order of the modules. */
export function checkpointTargets(model: Module): Map<string, Target> {
  const targets = new Map<string, Target>();
  const seen = new Set<Parameter>();
  for (const [name, module] of model.namedModules()) {
    const full = (key: string): string => (name === "" ? key : `${name}.${key}`);
    if (module instanceof QuantizedLinear)
      targets.set(full("weight"), { shape: [module.outFeatures, module.inFeatures], layer: module });
    else if (module instanceof PackedLinear || module instanceof PackedEmbedding)
      targets.set(full("weight"), { shape: module.shape, layer: module });
    for (const [key, child] of module.children()) {
      if (!(child instanceof Parameter) || seen.has(child)) continue;
      seen.add(child);
      targets.set(full(key), { shape: child.shape, parameter: child });
    }
  }
  return targets;
}

function compare(targets: Map<string, Target>, source: WeightSource, tied: readonly string[]): void {
  const missing = [...targets.keys()].filter((name) => !source.has(name));
  const extra = source.names().filter((name) => !targets.has(name) && !tied.includes(name) && !DERIVED.test(name));
  if (missing.length > 0) {
    throw new CheckpointError(
      `${source.where}: ${missing.length} tensors that the config asks for are missing (${list(missing)})${extra.length > 0 ? `; instead there are ${list(extra)}` : ""}. Check that ${source.described} belongs to these weights.`,
    );
  }
  if (extra.length > 0) {
    throw new CheckpointError(
      `${source.where}: ${extra.length} tensors have no place in the model of this config (${list(extra)}). Check that ${source.described} belongs to these weights.`,
    );
  }
  for (const [name, target] of targets) {
    const entry = source.entry(name);
    if (shapeText(entry.shape) !== shapeText(target.shape)) {
      throw new CheckpointError(
        `${source.where}: ${name} should have shape ${shapeText(target.shape)} by ${source.described}, the file holds ${shapeText(entry.shape)}.`,
      );
    }
  }
}

function list(names: readonly string[]): string {
  return names.slice(0, 3).join(", ") + (names.length > 3 ? `, … ${names.length - 3} more` : "");
}
