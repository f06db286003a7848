import type { SafetensorsFile, TensorEntry } from "../hub/safetensors.js";
import type { CausalLM } from "../models/causal.js";
import { PREFIX } from "./files.js";

/** The tensors of an adapter, by the names that they have in this model. */
export interface AdapterFile {
  readonly path: string;
  names(): string[];
  has(name: string): boolean;
  entry(name: string): TensorEntry;
  readFloat32(name: string): Promise<Float32Array>;
}

/** An adapter's file as this model spells its names: older transformers gave some models others (see `CausalLM.ownName`). */
export function adapterFile(model: CausalLM, file: SafetensorsFile): AdapterFile {
  const theirs = new Map<string, string>();
  for (const name of file.names()) {
    const own = name.startsWith(PREFIX) ? PREFIX + model.ownName(name.slice(PREFIX.length)) : name;
    theirs.set(own, name);
  }
  const of = (name: string): string => theirs.get(name) ?? name;
  return {
    path: file.path,
    names: () => [...theirs.keys()],
    has: (name) => theirs.has(name),
    entry: (name) => file.entry(of(name)),
    readFloat32: (name) => file.readFloat32(of(name)),
  };
}
