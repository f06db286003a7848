import { CheckpointError, StateError } from "../errors.js";
import { SafetensorsFile } from "../hub/safetensors.js";
import { writeSafetensors } from "../hub/safetensors-write.js";
import type { Module, Parameter } from "../nn/module.js";
import { outsideScope } from "../tensor/scope.js";
import { shapeText } from "../tensor/shape.js";
import { tensor } from "../tensor/tensor.js";

/**
 * Writes the parameters of a module that need gradients into a safetensors file, by their full names, in float32: what was trained of modules of one's
 * own. (Adapters of `addLora` are saved by `model.save`.)
 *
 * @example await saveParameters(model.module, "out/own.safetensors")
 * @throws StateError when no parameter needs a gradient; CheckpointError for one that holds NaN or infinity: then no file is written.
 */
export async function saveParameters(module: Module, file: string): Promise<void> {
  const parameters = trained(module, "saveParameters");
  await writeSafetensors(
    file,
    [...parameters].map(([name, p]) => ({
      name,
      dtype: "F32",
      shape: p.shape,
      data: async () => {
        const values = finite(await p.data(), `saveParameters: ${name}`, "it was not saved");
        return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      },
    })),
    { format: "pt" },
  );
}

/**
 * Reads what `saveParameters` wrote into the parameters of the same names that need gradients: put the same modules in the same places first.
 *
 * @throws CheckpointError when the file has other names or shapes than these parameters: then nothing is changed.
 */
export async function loadParameters(module: Module, file: string): Promise<void> {
  const parameters = trained(module, "loadParameters");
  await using source = await SafetensorsFile.open(file);
  const strange = source.names().filter((name) => !parameters.has(name));
  const missing = [...parameters.keys()].filter((name) => !source.has(name));
  if (strange.length > 0 || missing.length > 0)
    throw new CheckpointError(
      `${file} does not fit: ${missing.length} of the parameters that need gradients are not in it (${list(missing)}), ${strange.length} of its tensors have no such parameter (${list(strange)}). Put the same modules in the same places, with the same parameters to be trained.`,
    );
  for (const [name, p] of parameters) {
    const { shape } = source.entry(name);
    if (shapeText(shape) !== shapeText(p.shape))
      throw new CheckpointError(
        `${file}: ${name} has the shape ${shapeText(shape)}, here it is ${shapeText(p.shape)}.`,
      );
  }
  const values = new Map<Parameter, Float32Array>();
  for (const [name, p] of parameters)
    values.set(p, finite(await source.readFloat32(name), `${file}: ${name}`, "it cannot be used"));
  for (const [p, data] of values) p.adopt(outsideScope(() => tensor(data, { shape: p.shape, device: p.device })));
}

function trained(module: Module, what: string): Map<string, Parameter> {
  const all = new Map([...module.namedParameters()].filter(([, p]) => p.requiresGrad));
  if (all.size === 0)
    throw new StateError(
      `${what}: no parameter needs a gradient. Those of modules of your own do unless setRequiresGrad(false) was called after they were put in their places.`,
    );
  for (const [name, p] of all)
    if (p.dtype !== "float32")
      throw new StateError(
        `${what}: ${name} is ${p.dtype}, and what is trained is float32; freeze it with requiresGrad = false.`,
      );
  return all;
}

function finite(values: Float32Array, where: string, then: string): Float32Array {
  for (const v of values)
    if (!Number.isFinite(v)) throw new CheckpointError(`${where} holds NaN or infinity; ${then}.`);
  return values;
}

function list(names: readonly string[]): string {
  if (names.length === 0) return "none";
  return names.slice(0, 3).join(", ") + (names.length > 3 ? " …" : "");
}
