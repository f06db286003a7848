import { CheckpointError } from "../errors.js";
import { type FourBitSource, hasFourBits, type WeightSource } from "../hub/weight-source.js";
import { type Module, Parameter } from "../nn/module.js";
import { QuantizedLinear } from "../quantization/nf4.js";
import { PackedEmbedding, PackedLinear } from "../quantization/packed.js";
import { loadFourBit } from "../quantization/prequantized.js";
import type { DType } from "../tensor/dtype.js";
import { isRestored } from "../tensor/load.js";
import { settle } from "../tensor/native.js";
import type { BlockWeight } from "../tensor/ops/blocks.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { shapeText } from "../tensor/shape.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { type Arrival, type BlocksArrival, type PlainArrival, type RestoredArrival, streamWeights } from "./stream.js";

/** Where a tensor of a checkpoint goes. */
export type Target = { shape: readonly number[]; parameter: Parameter } | { shape: readonly number[]; layer: Layer };
type Layer = QuantizedLinear | PackedLinear | PackedEmbedding;

// Tables that old checkpoints carry though they follow from the config.
const DERIVED = /(^|\.)rotary_(pos_)?emb\.inv_freq$/;

/** Reports progress in bytes of the checkpoint. */
export type LoadProgress = (doneBytes: number, totalBytes: number, name: string) => void;

/**
 * Fills a model from a checkpoint tensor by tensor; layers prepared for quantisation are quantised as their weight arrives, so that the model
 * never exists whole in its own precision. Names and shapes are all compared before anything is read.
 * @param spare names that the source may have and the model lacks. @param fresh names that the source may lack: these begin as random.
 * @throws CheckpointError naming missing, unexpected and misshapen tensors.
 */
export async function loadWeights(
  model: Module,
  source: WeightSource,
  spare: readonly string[],
  onProgress?: LoadProgress,
  signal?: AbortSignal,
  fresh: readonly string[] = [],
): Promise<void> {
  const targets = checkpointTargets(model);
  for (const name of fresh) {
    const target = targets.get(name);
    if (target === undefined || source.has(name)) continue;
    if ("parameter" in target) target.parameter.materialize();
    targets.delete(name);
  }
  compare(targets, source, spare);
  const total = [...targets.keys()].reduce((n, name) => n + source.entry(name).bytes, 0);
  let done = 0;
  const taken = (name: string): void => {
    done += source.entry(name).bytes;
    onProgress?.(done, total, name);
  };
  const arrivals: Arrival[] = [];
  const others: [string, Target][] = [];
  for (const [name, target] of targets) {
    const arrival = blocksArrival(source, name, target) ?? plainArrival(source, name, target);
    if (arrival === undefined) others.push([name, target]);
    else arrivals.push(arrival);
  }
  await streamWeights(arrivals, taken, signal);
  for (const [name, target] of others) {
    signal?.throwIfAborted();
    if (isFourBit(source, name)) {
      await loadFourBit((target as { layer: QuantizedLinear }).layer, source, name);
      await settle();
      taken(name);
      continue;
    }
    const data = await source.readFloat32(name);
    const weight = outsideScope(() => tensor(data, { shape: target.shape, device: holderOf(target).device }));
    fill(target, weight);
    weight.dispose();
    // One tensor at a time: what was queued is done before the next is read, so memory stays at one tensor above the model's own.
    await settle();
    taken(name);
  }
}

const PLAIN: Readonly<Record<string, DType>> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

const holderOf = (target: Target): Parameter | Layer => ("layer" in target ? target.layer : target.parameter);
const isPacked = (target: Target): target is { shape: readonly number[]; layer: PackedLinear | PackedEmbedding } =>
  "layer" in target && !(target.layer instanceof QuantizedLinear);

// A tensor that can be read as it stands in the file; undefined for one that must be decoded.
function plainArrival(source: WeightSource, name: string, target: Target): PlainArrival | undefined {
  const dtype = PLAIN[source.entry(name).dtype];
  const place = source.locate?.(name);
  if (dtype === undefined || place === undefined || isPacked(target)) return undefined;
  const kept = "parameter" in target && target.parameter.dtype === dtype;
  const { device } = holderOf(target);
  return { name, place, shape: target.shape, dtype, device, kept, take: (weight) => fill(target, weight) };
}

// A matrix in blocks, which are kept or restored to 32 bits.
function blocksArrival(
  source: WeightSource,
  name: string,
  target: Target,
): BlocksArrival | RestoredArrival | undefined {
  const place = source.locateBlocks?.(name);
  if (isPacked(target)) {
    const { layer } = target;
    const dtype = place?.format ?? source.entry(name).dtype;
    if (place === undefined || dtype.toLowerCase() !== layer.format)
      throw new CheckpointError(`${source.where}: ${name} is ${dtype}, expected ${layer.format}.`);
    return { name, place, shape: target.shape, kept: true, take: (weight: BlockWeight) => layer.adopt(weight) };
  }
  if (place === undefined) return undefined;
  const { device } = holderOf(target);
  const put = (restored: Tensor): void => {
    const there = device === "cpu" ? restored : outsideScope(() => noGrad(() => restored.to(device)));
    fill(target, there);
    if (there !== restored) there.dispose();
  };
  // Float32 on the CPU is restored to where it stays, by the threads that read.
  const kept = device === "cpu" && "parameter" in target && target.parameter.dtype === "float32";
  if (kept || isRestored(place.format)) return { name, place, shape: target.shape, kept, restored: true, take: put };
  const take = (weight: BlockWeight): void => {
    const restored = outsideScope(() => noGrad(() => weight.restore()));
    put(restored);
    restored.dispose();
  };
  return { name, place, shape: target.shape, kept: false, take };
}

// A weight on its target's device to where it belongs; what is not kept is left to the caller.
function fill(target: Target, weight: Tensor): void {
  if ("parameter" in target) {
    const { parameter } = target;
    const same = parameter.dtype === weight.dtype;
    parameter.adopt(same ? weight : outsideScope(() => noGrad(() => weight.to(parameter.dtype))));
  } else (target.layer as QuantizedLinear).load(weight);
}

/** Whether a tensor is a matrix in 4 bits, for which `prepareFourBit` has made a place of its shape. */
function isFourBit(source: WeightSource, name: string): source is FourBitSource {
  return hasFourBits(source) && source.isFourBit(name);
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

function compare(targets: Map<string, Target>, source: WeightSource, spare: readonly string[]): void {
  const missing = [...targets.keys()].filter((name) => !source.has(name));
  const extra = source.names().filter((name) => !targets.has(name) && !spare.includes(name) && !DERIVED.test(name));
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
    if (isFourBit(source, name)) continue;
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
