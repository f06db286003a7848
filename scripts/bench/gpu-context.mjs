// Long rows on a GPU: what one optimizer step on a single row of so many tokens takes, within 80 GB. QLoRA r 32 on 7 targets, checkpoints in host memory.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const worker = join(fileURLToPath(new URL(".", import.meta.url)), "context-worker.mjs");
const LIMIT = 80e9;

/** The last JSON line of the worker; undefined, after saying why, when it fails. */
function measure(request, limit) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [worker, JSON.stringify(request)], {
      env: { TUNEBOOK_CUDA_MEMORY_LIMIT: String(limit), ...process.env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let out = "";
    child.stdout.on("data", (data) => {
      out += data;
    });
    child.on("error", (error) => {
      console.error(String(error));
      resolve(undefined);
    });
    child.on("close", (code) => {
      const last = out
        .split("\n")
        .filter((line) => line.startsWith("{"))
        .at(-1);
      if (code !== 0 || !last) console.error(`a row of ${request.tokens} tokens failed (${code})`);
      resolve(last === undefined ? undefined : JSON.parse(last));
    });
  });
}

/**
 * Measures rows of each length in `tokens`; with `compare` the gradients in tiles beside those of all rows at once.
 * @param options { tokens: numbers, layers?, steps?, checkpointing?, compare?, tile?, device? }
 * @returns rows for a table.
 */
export async function benchContext(model, options) {
  const { tokens, layers = model.num_hidden_layers, steps = 1, checkpointing = "offload", compare = false } = options;
  const { device = "cuda", rank = 32, limit = LIMIT } = options;
  const shape = { ...model, num_hidden_layers: layers, max_position_embeddings: 2 ** 20 };
  const rows = [];
  for (const length of tokens) {
    const tile = options.tile ?? Math.min(16384, Math.floor(length / 4));
    console.log(`==> one row of ${length} tokens, ${layers} layers, checkpointing ${checkpointing}`);
    const r = await measure({ model: shape, tokens: length, steps, checkpointing, compare, tile, device, rank }, limit);
    if (!r) {
      rows.push({ tokens: length, layers, failed: true });
      continue;
    }
    if (compare) console.log(JSON.stringify(r));
    const digits = (x, n) => Number(x.toFixed(n));
    rows.push(
      compare
        ? {
            tokens: length,
            layers,
            "loss at once": r.whole.loss,
            "in tiles": r.tiled.loss,
            "largest gradient error": r.worst.error,
            of: r.worst.name,
            "GiB at once": digits(r.whole.peakGib, 2),
            "GiB in tiles": digits(r.tiled.peakGib, 2),
          }
        : {
            tokens: length,
            layers,
            seconds: digits(Math.min(...r.seconds), 1),
            "tokens/s": digits(length / Math.min(...r.seconds), 0),
            "peak GiB": digits(r.peakGib, 2),
            "reserved GiB": digits(r.reservedGib, 2),
            "limit GiB": digits(r.limitGib, 2),
            "predicted GiB": digits(r.predictedGib, 2),
            "host GiB": digits(r.hostGib, 2),
            loss: digits(r.loss, 4),
            "gradient norm": digits(r.gradNorm, 4),
          },
    );
    for (const { op, calls, seconds } of (r.ops ?? []).slice(0, 12))
      console.log(`  ${op}: ${calls} calls, ${seconds.toFixed(2)} s`);
  }
  return rows;
}
