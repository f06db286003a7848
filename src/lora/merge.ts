import { StateError } from "../errors.js";
import { Linear } from "../nn/layers.js";
import type { Module } from "../nn/module.js";
import { FrozenLinear } from "../quantization/frozen.js";
import { gemm } from "../tensor/ops/matmul.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { type LoraLinear, loraLayers } from "./wrap.js";

/** What a merge did. */
export interface Merged {
  /** Names of the layers whose weights changed. */
  layers: string[];
  /** Of these, how many were quantised and are dense now. */
  dequantised: number;
}

/**
 * Adds an adapter to the weights it stands beside, W + s · B A in float32, and takes every adapter out. A quantised weight is restored first and
 * stays dense: quantising the sum again would change what was trained.
 *
 * @throws StateError when no layer has that adapter.
 */
export function mergeLora(model: Module, name: string): Merged {
  const layers = loraLayers(model);
  const merged: Merged = { layers: [], dequantised: 0 };
  if (!layers.some(([, layer]) => name in layer.lora_A))
    throw new StateError(`merge: no layer has an adapter named "${name}".`);
  for (const [path, layer] of layers) {
    let base = layer.base_layer;
    if (name in layer.lora_A) {
      if (base instanceof FrozenLinear) {
        base = restored(base);
        merged.dequantised++;
      }
      add(layer, name, base);
      merged.layers.push(path);
    }
    for (const key of Object.keys(layer.lora_A)) layer.remove(key);
    base.training = layer.training;
    model.replace(path, base);
  }
  return merged;
}

/** Takes one adapter out; layers without any adapter are what they were before. */
export function removeLora(model: Module, name: string): void {
  for (const [path, layer] of loraLayers(model)) {
    if (name in layer.lora_A) layer.remove(name);
    if (Object.keys(layer.lora_A).length === 0) model.replace(path, layer.base_layer);
  }
}

function restored(quantised: FrozenLinear): Linear {
  const dense = new Linear(quantised.inFeatures, quantised.outFeatures, { bias: false });
  dense.weight.adopt(outsideScope(() => noGrad(() => quantised.quantized.restore())));
  dense.bias = quantised.bias;
  quantised.bias = undefined; // it lives on in the dense layer
  quantised.dispose();
  return dense;
}

function add(layer: LoraLinear, name: string, { weight }: Linear): void {
  const a = layer.lora_A[name]!.weight; // (r, in)
  const b = layer.lora_B[name]!.weight; // (out, r)
  const [rank, inputs] = a.shape as [number, number];
  const options = { alpha: layer.scaleOf(name), beta: 1 };
  outsideScope(() =>
    noGrad(() => {
      // The sum is made in float32; a 16-bit weight is rounded once, at the end.
      const full = weight.to("float32");
      gemm(b, a, full, layer.outFeatures, inputs, rank, options);
      if (full === weight) return;
      weight.adopt(full.to(weight.dtype));
      full.dispose();
    }),
  );
}
