import { readConfig } from "../../src/hub/config.js";
import { SafetensorsFolder } from "../../src/hub/safetensors-folder.js";
import type { CausalLM } from "../../src/models/causal.js";
import { loadWeights } from "../../src/models/load.js";
import { createModel } from "../../src/models/registry.js";
import { packedRows, type Rows } from "../../src/nn/cache.js";
import { type QuantizeOptions, quantizeModule, quantizeSettings } from "../../src/quantization/nf4.js";

/** A row of ids with labels as transformers takes them: as long as the ids, not shifted, -100 not trained. */
export interface LabelledRow {
  ids: number[];
  labels: number[];
}

/** Reads a model folder below the facade, so that gradients can be looked at. */
export async function readModel(folder: string, quantize?: QuantizeOptions): Promise<CausalLM> {
  const model = createModel(await readConfig(folder));
  if (quantize) quantizeModule(model, quantizeSettings(quantize), ["lm_head"]);
  await using weights = await SafetensorsFolder.open(folder);
  await loadWeights(model, weights, model.config.tied ? ["lm_head.weight"] : []);
  return model;
}

/** Sequences one behind the other, without padding. */
export function flatRows(sequences: readonly (readonly number[])[]): Rows {
  const lengths = sequences.map((ids) => ids.length);
  const begin = lengths.map((_, i) => lengths.slice(0, i).reduce((a, b) => a + b, 0));
  const positions = sequences.flatMap((ids) => ids.map((_, i) => i));
  return packedRows(
    Int32Array.from(sequences.flat()),
    Int32Array.from(positions),
    Int32Array.from(begin),
    Int32Array.from(lengths),
  );
}

/** What each flat row must predict: the next label of its sequence, and nothing at its end. */
export function nextLabels(rows: readonly LabelledRow[]): Int32Array {
  return Int32Array.from(rows.flatMap(({ labels }) => [...labels.slice(1), -100]));
}
