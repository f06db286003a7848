import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.js";
import { float32ToBfloat16, float32ToFloat16 } from "../hub/float16.js";
import { SafetensorsFolder } from "../hub/safetensors-folder.js";
import { replaceFile, type TensorToWrite, writeSafetensors } from "../hub/safetensors-write.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { sizeOf } from "../tensor/shape.js";
import type { CausalLM } from "./causal.js";
import { headConfig } from "./classifier.js";
import type { ExportDType } from "./export-options.js";
import { checkpointTargets, type Target } from "./load.js";
import { respelled } from "./respell.js";
import { preprocessorConfig } from "./sight.js";

const WRITTEN: Readonly<Record<ExportDType, { name: string; bytes: number }>> = {
  float32: { name: "F32", bytes: 4 },
  bfloat16: { name: "BF16", bytes: 2 },
  float16: { name: "F16", bytes: 2 },
};

/** Bytes of a shard at most, as huggingface_hub splits. */
const SHARD_BYTES = 5e9;

/**
 * Writes a model as Hugging Face lays it out: config.json, and model.safetensors or shards with their index. Tensors are read, restored where
 * they are quantised, and written one at a time; then they are read back and compared.
 *
 * @throws CheckpointError for a weight that holds NaN or infinity, or is beyond float16's range; nothing is left under the final name of its file.
 */
export async function exportSafetensors(
  model: CausalLM,
  folder: string,
  dtype: ExportDType,
  shardBytes: number = SHARD_BYTES,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const { name: written, bytes } = WRITTEN[dtype];
  const shards: { tensors: TensorToWrite[]; bytes: number }[] = [];
  for (const [name, target] of checkpointTargets(model)) {
    const tensor = {
      name: model.spellings(name)[0]!,
      dtype: written,
      shape: target.shape,
      data: async () => encode(await valuesOf(target), dtype, name),
    };
    const size = bytes * sizeOf(target.shape);
    let shard = shards.at(-1);
    if (!shard || shard.bytes + size > shardBytes) shards.push((shard = { tensors: [], bytes: 0 }));
    shard.tensors.push(tensor);
    shard.bytes += size;
  }
  const map: Record<string, string> = {};
  for (const [i, { tensors }] of shards.entries()) {
    const number = (n: number): string => String(n).padStart(5, "0");
    const file =
      shards.length === 1 ? "model.safetensors" : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    await writeSafetensors(join(folder, file), tensors, { format: "pt" });
    for (const { name } of tensors) map[name] = file;
  }
  if (shards.length > 1) {
    const total = shards.reduce((n, shard) => n + shard.bytes, 0);
    await writeJson(folder, "model.safetensors.index.json", { metadata: { total_size: total }, weight_map: map });
  }
  await writeJson(folder, "config.json", configOf(model, dtype));
  if (model.sight) await writeJson(folder, "preprocessor_config.json", preprocessorConfig(model.sight.settings));
  await compareWithFolder(model, folder, dtype);
}

/** Writes a model's folder: config, weights, and what says where texts end, with the tokenizer's files. @returns the folder */
export async function exportFolder(
  model: CausalLM,
  folder: string,
  parts: { readonly tokenizer: Tokenizer | Error | undefined; readonly eosIds: readonly number[] },
  options: { dtype?: ExportDType; shardBytes?: number } = {},
): Promise<string> {
  await exportSafetensors(model, folder, options.dtype ?? "float32", options.shardBytes);
  const { tokenizer, eosIds } = parts;
  if (eosIds.length > 0) await writeJson(folder, "generation_config.json", { eos_token_id: eosIds });
  if (tokenizer && !(tokenizer instanceof Error)) await tokenizer.save(folder);
  return folder;
}

/** A weight as it is computed with, in 32 bits. */
export async function valuesOf(target: Target): Promise<Float32Array> {
  if ("parameter" in target) return (await target.parameter.data()) as Float32Array;
  const dense = outsideScope(() => noGrad(() => target.layer.quantized.restore()));
  try {
    return (await dense.data()) as Float32Array;
  } finally {
    dense.dispose();
  }
}

/** Reads a folder as `loadModel` does, tensor by tensor. @throws CheckpointError when it gives another model than the one in memory. */
async function compareWithFolder(model: CausalLM, folder: string, dtype: ExportDType): Promise<void> {
  await using files = await SafetensorsFolder.open(folder);
  const source = respelled(model, files);
  const targets = checkpointTargets(model);
  for (const [name, target] of targets) {
    const same =
      source.has(name) &&
      Buffer.compare(
        encode(await source.readFloat32(name), dtype, name),
        encode(await valuesOf(target), dtype, name),
      ) === 0;
    if (!same || source.names().length !== targets.size)
      throw new CheckpointError(
        `export: read back from ${folder}, ${same ? "there are other tensors" : `${name} is not`} what was written. Does another model's file stand in that folder, or is the disk damaged? Export to an empty folder.`,
      );
  }
}

/** Writes an object as a JSON file, whole or not at all. */
export async function writeJson(folder: string, name: string, value: object): Promise<void> {
  const text = `${JSON.stringify(value, null, 2)}\n`;
  await replaceFile(join(folder, name), async (file) => void (await file.writeFile(text)));
}

/** The config that it was loaded with; what described the old file's weights is replaced. */
function configOf(model: CausalLM, dtype: ExportDType): Record<string, unknown> {
  const { quantization_config: _, dtype: __, ...raw } = model.config.raw;
  return {
    ...raw,
    architectures: raw.architectures ?? [model.constructor.name],
    ...headConfig(model, raw),
    model_type: model.config.modelType,
    torch_dtype: dtype,
  };
}

function encode(values: Float32Array, dtype: ExportDType, name: string): Uint8Array {
  const limit = dtype === "float16" ? 65504 : Number.MAX_VALUE;
  for (const v of values) {
    if (!(Math.abs(v) <= limit))
      throw new CheckpointError(`export: ${name} holds ${v}, which ${dtype} cannot hold; it was not written.`);
  }
  const out =
    dtype === "float32" ? values : dtype === "bfloat16" ? float32ToBfloat16(values) : float32ToFloat16(values);
  return new Uint8Array(out.buffer, out.byteOffset, out.byteLength);
}
