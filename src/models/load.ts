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
  for (const [name, target] of targets) {
    signal?.throwIfAborted();
    if ("layer" in target && !(target.layer instanceof QuantizedLinear)) {
      await readPacked(source, name, target.layer);
      done += source.entry(name).bytes;
      onProgress?.(done, total, name);
      continue;
    }
    const holder = "layer" in target ? target.layer : target.parameter;
    const wanted = "layer" in target ? arriving(source, name, holder.device) : target.parameter.dtype;
    const weight = await readTensor(source, name, target.shape, wanted, holder.device);
    if ("layer" in target) {
      (target.layer as QuantizedLinear).load(weight);
      weight.dispose();
    } else if (weight.dtype === wanted) target.parameter.adopt(weight);
    else {
      target.parameter.adopt(outsideScope(() => noGrad(() => weight.to(wanted))));
      weight.dispose();
    }
    // One tensor at a time: what was queued is done before the next is read, so memory stays at one tensor above the model's own.
    await settle();
    done += source.entry(name).bytes;
    onProgress?.(done, total, name);
  }
}

// What will be quantised comes as float32; to the GPU 16 bits are sent as they are, and widened there.
function arriving(source: WeightSource, name: string, device: Device): DType {
  const { dtype } = source.entry(name);
  if (device === "cpu" || !source.read) return "float32";
  return dtype === "BF16" ? "bfloat16" : dtype === "F16" ? "float16" : "float32";
}

async function readPacked(source: WeightSource, name: string, layer: PackedLinear | PackedEmbedding): Promise<void> {
  const blocks = await source.readBlocks?.(name);
  if (blocks === undefined)
    throw new CheckpointError(`${source.where}: ${name} is ${source.entry(name).dtype}, expected ${layer.format}.`);
  layer.adoptBlocks(blocks);
}

// A 16-bit tensor that stays as it is never exists in 32 bits; everything else comes as float32.
async function readTensor(
  source: WeightSource,
  name: string,
  shape: readonly number[],
  wanted: DType,
  device: Device,
): Promise<Tensor> {
  const { dtype } = source.entry(name);
  const same = (dtype === "BF16" && wanted === "bfloat16") || (dtype === "F16" && wanted === "float16");
  if (same && source.read) {
    const bytes = await source.read(name);
    const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
    return outsideScope(() => tensor(bits, { shape, dtype: wanted, device }));
  }
  const data = await source.readFloat32(name);
  return outsideScope(() => tensor(data, { shape, device }));
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
