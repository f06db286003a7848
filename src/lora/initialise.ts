import { throwIfInterrupted } from "../display/host.js";
import { ConfigError, StateError } from "../errors.js";
import { Linear } from "../nn/layers.js";
import type { Module } from "../nn/module.js";
import { QuantizedLinear, quantizeSettings } from "../quantization/nf4.js";
import { clone } from "../tensor/ops/layout.js";
import { gemm } from "../tensor/ops/matmul.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { LoraLinear } from "./linear.js";
import type { LoraSettings } from "./options.js";
import { topSvd } from "./svd.js";
import { loraLayers } from "./wrap.js";

/** @throws StateError for weights that an adapter cannot be computed from, before anything is changed. */
export function requireDense(layers: readonly [string, LoraLinear][], init: "pissa" | "loftq"): void {
  for (const [path, layer] of layers) {
    const base = layer.denseBase(`addLora: init "${init}" of "${path}"`);
    if (!base.materialized && !base.weight.materialize().materialized)
      throw new StateError(`addLora: init "${init}" needs weights, and "${path}" has none; load them.`);
    if (layer.adapters.length > 1)
      throw new StateError(
        `addLora: init "${init}" changes the weight of "${path}", which the adapter "${layer.adapters[0]}" stands on too; remove that one first.`,
      );
    const { rank } = layer.settingsOf(layer.adapters.at(-1)!);
    const most = Math.min(layer.inFeatures, layer.outFeatures);
    if (rank > most)
      throw new ConfigError(`addLora: init "${init}": rank ${rank} is more than the ${most} that "${path}" can have.`);
  }
}

/** @throws ConfigError for an init that takes time. */
export function requireImmediate({ init }: Pick<LoraSettings, "init">): void {
  if (init === "pissa" || init === "loftq")
    throw new ConfigError(
      `addLora: init "${init}" is computed from the weights: say it in the plan, loadModel(…).addLora({ init: "${init}", … }), or await model.adaptLora({ … }).`,
    );
}

/** Computes an adapter's first values from the weights that it stands on, layer by layer, and changes these (PiSSA, LoftQ). */
export async function initialise(
  model: Module,
  settings: Pick<LoraSettings, "init" | "loftq" | "name">,
): Promise<void> {
  const { init, name } = settings;
  if (init !== "pissa" && init !== "loftq") return;
  const layers = loraLayers(model).filter(([, layer]) => layer.adapters.includes(name));
  if (layers.some(([, { base_layer: base }]) => base instanceof Linear && base.weight.valueless)) {
    // A model without weights: what is planned with it has the same shapes.
    if (init === "loftq") for (const [, layer] of layers) quantiseBase(layer, settings.loftq.quantize);
    return;
  }
  requireDense(layers, init);
  for (const [, layer] of layers) {
    throwIfInterrupted(`Initialising by "${init}"`);
    if (init === "pissa") await pissa(layer, name);
    else await loftq(layer, name, settings.loftq);
    layer.baseChanged();
    layer.remeasure(name);
  }
}

/** A B = the r largest parts of W divided by the scale, half of each singular value's root in both; W keeps the rest. */
async function pissa(layer: LoraLinear, name: string): Promise<void> {
  const { weight } = layer.denseBase("pissa");
  const scale = layer.scaleOf(name);
  const full = outsideScope(() => noGrad(() => (weight.dtype === "float32" ? clone(weight) : weight.to("float32"))));
  const values = await decompose(full, layer, name, scale);
  layer.initial.set(name, values);
  subtract(full, layer, name, scale);
  weight.adopt(weight.dtype === "float32" ? full : outsideScope(() => noGrad(() => full.to(weight.dtype))));
  full.dispose();
}

/** R = W; then, taking turns: Q = quantised R, A B = the r largest parts of W - Q, R = W - A B (Li et al. 2023, algorithm 1). */
async function loftq(layer: LoraLinear, name: string, options: LoraSettings["loftq"]): Promise<void> {
  const base = layer.denseBase("loftq");
  const full = outsideScope(() =>
    noGrad(() => (base.weight.dtype === "float32" ? clone(base.weight) : base.weight.to("float32"))),
  );
  const quantised = quantiseBase(layer, options.quantize);
  for (let i = 0; i < options.iterations; i++) {
    const rest = outsideScope(() => clone(full));
    if (i > 0) {
      subtract(rest, layer, name, 1);
      quantised.load(rest);
      rest.set(await full.data());
    }
    const restored = outsideScope(() => noGrad(() => quantised.quantized.restore()));
    const error = outsideScope(() => noGrad(() => rest.sub(restored)));
    restored.dispose();
    rest.dispose();
    await decompose(error, layer, name, 1);
    error.dispose();
  }
  full.dispose();
}

/** Puts a quantised layer in the place of the dense one that an adapter stands on. */
function quantiseBase(layer: LoraLinear, options: LoraSettings["loftq"]["quantize"]): QuantizedLinear {
  const base = layer.denseBase("loftq");
  const quantised = new QuantizedLinear(base, quantizeSettings(options));
  quantised.training = base.training;
  layer.base_layer = quantised;
  return quantised;
}

/** Sets A and B to the r largest parts of a matrix (out, in) divided by `scale`. */
async function decompose(
  w: Tensor,
  layer: LoraLinear,
  name: string,
  scale: number,
): Promise<{ a: Float32Array; b: Float32Array }> {
  const [outputs, inputs] = w.shape as [number, number];
  const { rank } = layer.settingsOf(name);
  const { u, s, v } = await topSvd(w, rank);
  const a = new Float32Array(rank * inputs);
  const b = new Float32Array(outputs * rank);
  for (let r = 0; r < rank; r++) {
    const half = Math.sqrt(s[r]! / scale);
    for (let i = 0; i < inputs; i++) a[r * inputs + i] = v[r]![i]! * half;
    for (let o = 0; o < outputs; o++) b[o * rank + r] = u[r]![o]! * half;
  }
  layer.lora_A[name]!.weight.set(a);
  layer.lora_B[name]!.weight.set(b);
  return { a, b };
}

/** w -= scale · B A, in place. */
function subtract(w: Tensor, layer: LoraLinear, name: string, scale: number): void {
  const [outputs, inputs] = w.shape as [number, number];
  const { rank } = layer.settingsOf(name);
  const [a, b] = [layer.lora_A[name]!.weight, layer.lora_B[name]!.weight];
  noGrad(() => gemm(b, a, w, outputs, inputs, rank, { alpha: -scale, beta: 1 }));
}
