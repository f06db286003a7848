import { StateError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import { Embedding, Linear } from "../nn/layers.js";
import type { Parameter } from "../nn/module.js";
import { FrozenLinear } from "../quantization/frozen.js";
import { addScaled } from "../tensor/ops/elementwise.js";
import { clone } from "../tensor/ops/layout.js";
import { gemm } from "../tensor/ops/matmul.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope, scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { removeBiases } from "./biases.js";
import { LoraEmbedding } from "./embedding.js";
import type { LoraLinear } from "./linear.js";
import { type Adapted, adaptedLayers, savedModules } from "./wrap.js";

/** What a merge did. */
export interface Merged {
  /** Names of the layers whose weights changed. */
  layers: string[];
  /** Of these, how many were quantised and are dense now. */
  dequantised: number;
}

/**
 * Adds an adapter to the weights it stands beside, W + s · B A in float32 (DoRA: its rows brought to their lengths), puts modules that it trained
 * whole in place, and takes every adapter out. A quantised weight is restored first and stays dense: quantising the sum again would change what was
 * trained. An output layer that was tied to an adapted table gets a table of its own.
 *
 * @throws StateError when no layer has that adapter.
 */
export function mergeLora(model: CausalLM, name: string): Merged {
  const layers = adaptedLayers(model);
  const saved = savedModules(model);
  if (![...layers, ...saved].some(([, m]) => has(m, name)))
    throw new StateError(`merge: no layer has an adapter named "${name}".`);
  for (const [path, layer] of layers)
    if (!(layer instanceof LoraEmbedding) && layer.lora_B[name]?.bias && !layer.base_layer.bias)
      throw new StateError(`merge: B of "${path}" has a bias (loraBias) and the layer itself has none to add it to.`);
  const merged: Merged = { layers: [], dequantised: 0 };
  const changes = [...layers, ...saved].some(([path, m]) => has(m, name) && (path === model.headName || isTable(m)));
  if (changes && headIsTied(model)) untie(model);
  removeBiases(model, name, true);
  for (const [path, layer] of layers) {
    let base = layer.base_layer;
    if (layer.adapters.includes(name)) {
      if (layer instanceof LoraEmbedding) addTable(layer, name);
      else {
        const sums = outsideScope(() => noGrad(() => gain(layer, name))); // before the weight changes
        if (base instanceof FrozenLinear) {
          base = restored(base);
          merged.dequantised++;
        }
        addMatrix(layer, name, base as Linear, sums);
        sums?.dispose();
      }
      merged.layers.push(path);
    }
    for (const key of layer.adapters) layer.remove(key);
    base.training = layer.training;
    model.replace(path, base);
  }
  for (const [path, module] of saved) {
    const own = module.modules_to_save[name];
    if (own) {
      delete module.modules_to_save[name];
      module.original_module.dispose();
      merged.layers.push(path);
    }
    for (const key of Object.keys(module.modules_to_save)) module.remove(key);
    model.replace(path, own ?? module.original_module);
  }
  return merged;
}

function has(m: Adapted | ReturnType<typeof savedModules>[number][1], name: string): boolean {
  return "adapters" in m ? m.adapters.includes(name) : name in m.modules_to_save;
}

function isTable(m: object): boolean {
  return m instanceof LoraEmbedding || ("original_module" in m && m.original_module instanceof Embedding);
}

function headIsTied(model: CausalLM): boolean {
  if (model.headName === "") return true;
  const seen = new Set<Parameter>();
  for (const [, m] of model.namedModules())
    for (const [, p] of m.children())
      if (!("children" in p)) {
        if (seen.has(p)) return true;
        seen.add(p);
      }
  return false;
}

// The output layer keeps the table as it was.
function untie(model: CausalLM): void {
  model.separateHead();
  const at = model.module(model.headName);
  const head = "base_layer" in at ? at.base_layer : "original_module" in at ? at.original_module : at;
  if (!(head instanceof Linear)) return;
  const { weight } = head;
  const own = weight.inDType(weight.dtype, (init) => init);
  own.requiresGrad = false;
  own.adopt(outsideScope(() => noGrad(() => clone(weight))));
  head.weight = own;
  model.untied();
}

function restored(quantised: FrozenLinear): Linear {
  const dense = new Linear(quantised.inFeatures, quantised.outFeatures, { bias: false });
  dense.weight.adopt(outsideScope(() => noGrad(() => quantised.quantized.restore())));
  dense.bias = quantised.bias;
  quantised.bias = undefined; // it lives on in the dense layer
  quantised.dispose();
  return dense;
}

/** DoRA's m / n (out); nothing for a plain adapter. */
function gain(layer: Adapted, name: string): Tensor | undefined {
  const lengths = layer.lora_magnitude_vector[name]?.weight;
  return lengths && scope(() => lengths.div(layer.norms(name)));
}

function addMatrix(layer: LoraLinear, name: string, { weight, bias }: Linear, gain: Tensor | undefined): void {
  const a = layer.lora_A[name]!.weight; // (r, in)
  const b = layer.lora_B[name]!.weight; // (out, r)
  const [rank, inputs] = a.shape as [number, number];
  const scale = layer.scaleOf(name);
  change(weight, gain && (() => gain.reshape(-1, 1)), (full) =>
    gemm(b, a, full, layer.outFeatures, inputs, rank, { alpha: scale, beta: 1 }),
  );
  const own = layer.lora_B[name]!.bias;
  if (own && bias) addScaled(bias, own, scale);
}

function addTable(layer: LoraEmbedding, name: string): void {
  const a = layer.lora_embedding_A[name]!; // (r, vocab)
  const b = layer.lora_embedding_B[name]!; // (dim, r)
  const [rank, vocab] = a.shape as [number, number];
  const sums = outsideScope(() => noGrad(() => gain(layer, name)));
  const options = { transA: true, transB: true, alpha: layer.scaleOf(name), beta: 1 };
  change(layer.base_layer.weight, sums && (() => sums), (full) => gemm(a, b, full, vocab, b.shape[0]!, rank, options));
  sums?.dispose();
}

/** The sum is made in float32; a 16-bit weight is rounded once, at the end. */
function change(weight: Parameter, gain: (() => Tensor) | undefined, add: (full: Tensor) => void): void {
  scope(() =>
    noGrad(() => {
      const full = weight.to("float32");
      add(full);
      const made = gain ? full.mul(gain()) : full;
      if (made !== weight)
        weight.adopt(outsideScope(() => (weight.dtype === "float32" ? clone(made) : made.to(weight.dtype))));
    }),
  );
}
