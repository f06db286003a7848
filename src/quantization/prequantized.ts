/** Models whose checkpoint is in 4 bits already: its bytes are kept. */
import { CheckpointError, ConfigError } from "../errors.js";
import type { BnbConfig } from "../hub/bnb-weights.js";
import type { FourBitSource } from "../hub/weight-source.js";
import { Embedding, Linear } from "../nn/layers.js";
import type { Module } from "../nn/module.js";
import { type DTypeName, floatDType } from "../tensor/dtype.js";
import { Nf4Weight } from "../tensor/ops/nf4.js";
import { outsideScope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import { QuantizedLinear, quantizeSettings } from "./nf4.js";

/**
 * Freezes a model without weights and makes place for the 4-bit matrices of a checkpoint.
 *
 * @throws CheckpointError for a matrix that has no linear layer in the model, or another shape.
 */
export async function prepareFourBit(model: Module, source: FourBitSource, config: BnbConfig): Promise<void> {
  model.setRequiresGrad(false);
  const modules = new Map(model.namedModules());
  for (const name of source.fourBitNames()) {
    const path = name.replace(/\.weight$/, "");
    const layer = modules.get(path);
    if (!(layer instanceof Linear))
      throw new CheckpointError(
        `${source.where}: ${name} is in 4 bits, and the model of config.json has no such linear layer.`,
      );
    const { kind, shape, block, nested } = await source.fourBitShape(name);
    if (shape[0] !== layer.outFeatures || shape[1] !== layer.inFeatures)
      throw new CheckpointError(
        `${source.where}: ${name} should have shape [${layer.outFeatures}, ${layer.inFeatures}] by config.json, its quant_state says [${shape.join(", ")}].`,
      );
    const compute = config.compute as DTypeName;
    const settings = quantizeSettings({ type: kind, doubleQuant: nested, blockSize: block, compute });
    model.replace(path, new QuantizedLinear(layer, settings));
  }
  for (const module of modules.values())
    if (module instanceof Embedding) module.activations = floatDType(config.compute) ?? module.activations;
}

/** Reads a matrix into its layer, on the layer's device. */
export async function loadFourBit(layer: QuantizedLinear, source: FourBitSource, name: string): Promise<void> {
  const { kind, shape, block, codes, absmax, nested } = await source.fourBit(name);
  const { device } = layer;
  outsideScope(() => {
    const put = (data: Uint8Array | Float32Array) => tensor(data, { shape: [data.length], device });
    const scales = nested && [put(nested.absmax), put(Float32Array.of(nested.offset))];
    layer.adopt(new Nf4Weight(shape, block, put(codes), put(absmax), scales?.[0], scales?.[1], kind));
  });
}

/** @throws ConfigError when a quantised checkpoint is to be quantised once more. */
export function refuseTwice(config: BnbConfig): never {
  throw new ConfigError(
    `quantize: the checkpoint is in 4 bits already (${config.kind}${config.nested ? ", doubly quantised" : ""}, by bitsandbytes): leave .quantize out, or load the model that it was made from.`,
  );
}
