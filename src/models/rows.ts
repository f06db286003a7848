import { ConfigError } from "../errors.js";
import { packedRows, type Rows } from "../nn/cache.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import type { CausalLM } from "./causal.js";
import { requireTokens } from "./classifier.js";

/** One row of token ids as a model takes it, on its device. @throws ConfigError for an id that is none, or no ids at all. */
export function idRows(model: CausalLM, ids: readonly number[]): Rows {
  const { vocabSize } = model.config;
  const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (ids.length === 0 || bad !== undefined)
    throw new ConfigError(
      `Token ids must be whole numbers from 0 to ${vocabSize - 1}, at least one; received ${bad ?? "none"}.`,
    );
  const positions = Int32Array.from(ids.keys());
  return packedRows(Int32Array.from(ids), positions, Int32Array.of(0), Int32Array.of(ids.length), model.device);
}

/** Logits of rows of ids as one array of `shape` [rows, longest row, vocab or classes]; what stands behind a shorter row's end is 0. */
export async function rowLogits(
  model: CausalLM,
  ids: readonly (readonly number[])[],
): Promise<Float32Array & { shape: [number, number, number] }> {
  const width = model.labels?.length ?? model.config.vocabSize;
  const length = ids.reduce((n, row) => Math.max(n, row.length), 0);
  const out = new Float32Array(ids.length * length * width);
  for (const [i, row] of ids.entries()) {
    const y = scope(() => noGrad(() => model.logits(model.hidden(idRows(model, row)))));
    out.set(await y.data(), i * length * width);
    y.dispose();
  }
  return Object.assign(out, { shape: [ids.length, length, width] as [number, number, number] });
}

/** Mean cross entropy of rows in nats a token; labels stand at their ids and are shifted here, -100 is left out. @throws ConfigError without any label. */
export async function labelledLoss(
  model: CausalLM,
  ids: readonly (readonly number[])[],
  labels: readonly (readonly number[])[],
): Promise<number> {
  requireTokens(model, "loss");
  let sum = 0;
  let count = 0;
  for (const [i, row] of ids.entries()) {
    const shifted = Int32Array.from(row, (_, t) => labels[i]?.[t + 1] ?? -100);
    const { total } = scope(() =>
      noGrad(() => model.headLoss(model.hidden(idRows(model, row)), tensor(shifted, { device: model.device }), 1)),
    );
    sum += await total.item();
    total.dispose();
    count += shifted.reduce((n, l) => n + (l === -100 ? 0 : 1), 0);
  }
  if (count === 0) throw new ConfigError("loss: every label is -100; there is nothing to measure.");
  return sum / count;
}
