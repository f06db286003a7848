/** A model as one GGUF file, llama.cpp's format: the inverse of gguf-config.ts, gguf-weights.ts and gguf-tokenizer.ts. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError, ConfigError } from "../errors.js";
import { GgufFile } from "../hub/gguf.js";
import { ggufConfig } from "../hub/gguf-config.js";
import { type GgufForm, ggufName } from "../hub/gguf-forms.js";
import { packBlocks, WRITTEN_BLOCKS } from "../hub/gguf-quantize.js";
import { GgufWeights, isOffset, pairedHeads, pairRowOrder } from "../hub/gguf-weights.js";
import { type GgufTensor, writeGguf } from "../hub/gguf-write.js";
import { unsafeName } from "../hub/path.js";
import type { CausalConfig, CausalLM } from "./causal.js";
import { valuesOf } from "./export.js";
import type { GgufDType } from "./export-options.js";
import { configDifference, type GgufParts, ggufForm, metadataOf, ropeDivisors } from "./gguf-fields.js";
import { checkpointTargets, type Target } from "./load.js";

/** How far a tensor that was read back may be from the weights, as a quotient of root mean squares: rounding and no more. */
const ROUNDING: Readonly<Record<string, number>> = {
  F32: 0,
  F16: 1e-3,
  BF16: 4e-3,
  Q8_0: 1.5e-2,
  Q6_K: 4e-2,
  Q5_0: 8e-2,
  Q5_K: 8e-2,
  Q4_0: 0.16,
  Q4_K: 0.16,
};
// Halves cannot hold more, nor can the scales of blocks.
const LARGEST_HALF = 65504;

/**
 * Writes a model into one file of a folder, tensor by tensor, and reads it back: config and every tensor are compared with the model in memory.
 * Rows that are no whole blocks of a type are written in the next better one (Q4_K: Q5_0; Q6_K: Q8_0; then F16).
 *
 * @returns the file's path.
 * @throws ConfigError for an architecture or a rope scaling that cannot be written; CheckpointError for a weight that holds NaN or infinity or is beyond
 * what the type holds: nothing is left under the final name then; or when the file that was read back is another model's.
 */
export async function exportGguf(model: CausalLM, folder: string, dtype: GgufDType, parts: GgufParts): Promise<string> {
  const form = ggufForm(model);
  await mkdir(folder, { recursive: true });
  const metadata = metadataOf(model, form, dtype, parts);
  const tensors: GgufTensor[] = [];
  const divisors = ropeDivisors(model.config);
  if (divisors !== undefined) {
    const data = async (): Promise<Uint8Array> => packBlocks("F32", divisors);
    tensors.push({ name: "rope_freqs.weight", dtype: "F32", shape: [divisors.length], data });
  }
  for (const [name, target] of checkpointTargets(model)) tensors.push(tensorOf(model, form, name, target, dtype));
  const stem = unsafeName(parts.name, true) === undefined ? parts.name : "model";
  const path = join(folder, `${stem}-${dtype}.gguf`);
  await writeGguf(path, metadata, tensors);
  await compareWithFile(model, form, path);
  return path;
}

function tensorOf(model: CausalLM, form: GgufForm, name: string, target: Target, dtype: GgufDType): GgufTensor {
  const named = ggufName(form, name);
  if (named === undefined)
    throw new ConfigError(`export: ${name} has no place in a GGUF file; export as "safetensors".`);
  const type = tensorType(model.config, named, target.shape, dtype);
  const data = async (): Promise<Uint8Array> => {
    const values = await valuesOf(target);
    const limit = type === "F32" || type === "BF16" ? Number.MAX_VALUE : LARGEST_HALF;
    for (const v of values)
      if (!(Math.abs(v) <= limit))
        throw new CheckpointError(`export: ${name} holds ${v}, which ${type} cannot hold; it was not written.`);
    return packBlocks(type, stored(form, model.config, named, values, target.shape));
  };
  return { name: named, dtype: type, shape: target.shape, data };
}

/** A tensor as the file holds it: rows of Q and K in pairs, norms with what they add. */
function stored(
  form: GgufForm,
  config: CausalConfig,
  name: string,
  values: Float32Array,
  shape: readonly number[],
): Float32Array {
  if (isOffset(form, name)) return values.map((value) => value + form.normOffset);
  const heads = pairedHeads(form, name);
  return heads === undefined ? values : pairRowOrder(values, config[heads], shape[1] ?? 1);
}

/** The type of one tensor in a file of a type, as llama.cpp's quantiser chooses: vectors and positions whole, the output layer and some others better. */
function tensorType({ layers, tied }: CausalConfig, name: string, shape: readonly number[], dtype: GgufDType): string {
  if (shape.length < 2 || name === "position_embd.weight") return "F32";
  let type: string = dtype === "Q4_K_M" ? "Q4_K" : dtype;
  const output = name === "output.weight" || (tied && name === "token_embd.weight");
  if (dtype === "Q4_0" || dtype === "Q4_K_M") {
    if (output) type = "Q6_K";
    else if (dtype === "Q4_K_M" && name.endsWith(".attn_qkv.weight")) type = "Q5_K";
    else if (dtype === "Q4_K_M" && /\.(attn_v|ffn_down)\./.test(name)) {
      const layer = Number(/^blk\.(\d+)\./.exec(name)?.[1]);
      const eighth = Math.floor(layers / 8);
      // The first and the last eighth of the layers, and every third between.
      if (layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2) type = "Q6_K";
    }
  }
  const fits = (candidate: string): boolean => shape.at(-1)! % WRITTEN_BLOCKS[candidate]! === 0;
  if (!fits(type)) type = type === "Q4_K" ? "Q5_0" : type.endsWith("_K") ? "Q8_0" : "F16";
  return fits(type) ? type : "F16";
}

/** Reads a file as `loadModel` does, tensor by tensor. @throws CheckpointError when it gives another model than the one in memory. */
async function compareWithFile(model: CausalLM, form: GgufForm, path: string): Promise<void> {
  await using file = await GgufFile.open(path);
  const fields = await ggufConfig(file);
  const wrong = (what: string): CheckpointError =>
    new CheckpointError(`export: read back from ${path}, ${what}. Is the disk damaged? Export again, to another one.`);
  const different = configDifference(model.config, fields);
  if (different !== undefined) throw wrong(`${different} is another`);
  const source = new GgufWeights(file, fields);
  const targets = checkpointTargets(model);
  for (const [name, target] of targets) {
    if (!source.has(name)) throw wrong(`${name} is missing`);
    const [found, wanted] = [await source.readFloat32(name), await valuesOf(target)];
    const offset = isOffset(form, ggufName(form, name)!) ? form.normOffset : 0;
    let [error, size] = [0, 0];
    for (let i = 0; i < wanted.length; i++) {
      const held = Math.fround(Math.fround(wanted[i]! + offset) - offset); // a sum rounds
      error += (found[i]! - held) ** 2;
      size += held ** 2;
    }
    const { dtype } = source.entry(name);
    if (!(Math.sqrt(error) <= ROUNDING[dtype]! * Math.sqrt(size)))
      throw wrong(`${name} differs by ${(Math.sqrt(error / size) * 100).toFixed(2)} %, more than ${dtype} rounds`);
  }
  if (source.names().length !== targets.size) throw wrong("there are other tensors too");
}
