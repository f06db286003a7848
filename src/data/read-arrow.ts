/** Arrow files: IPC files (Feather V2) and streams. */
import { readFile, stat } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import type { Table } from "apache-arrow";
import { DataError } from "../errors.js";
import { decodeArrow } from "./arrow-decode.js";
import { defaultMaxBytes, type ReadBudget } from "./read-text.js";

const MiB = 1024 * 1024;

/** Reads an Arrow file. @throws DataError for other files, damaged ones and compressed ones. */
export async function readArrow(file: string, budget: ReadBudget = {}): Promise<Table> {
  const { size } = await stat(file);
  // Node reads at most 2 GiB into one buffer.
  const limit = Math.min(budget.maxBytes ?? defaultMaxBytes, 2 ** 31 - 1);
  if (size > limit) throw new DataError(`${file}: ${size} bytes are more than the ${limit} allowed; split the file`);
  let bytes: Uint8Array<ArrayBuffer> = await readFile(file, budget.signal ? { signal: budget.signal } : {});
  let table: Table;
  try {
    bytes = await tryInWorker(bytes, budget.signal);
    table = decodeArrow(bytes);
  } catch (error) {
    if (budget.signal?.aborted) throw error;
    const message = (error as Error).message;
    const why = /codec|compress/i.test(message)
      ? "its buffers are compressed, which is not supported; write it uncompressed (pyarrow: compression='uncompressed')"
      : `not an Arrow file, or damaged (${message.slice(0, 200)})`;
    throw new DataError(`${file}: ${why}`, { cause: error });
  }
  if (table.schema.fields.length === 0) throw new DataError(`${file}: no Arrow data, or no columns`);
  return table;
}

/**
 * Decodes once in a thread with limits on time and memory: a damaged or hostile file can send the Arrow library into a
 * loop without end or let it allocate without bounds. The bytes go there and come back without a copy.
 */
function tryInWorker(
  bytes: Uint8Array<ArrayBuffer>,
  signal: AbortSignal | undefined,
): Promise<Uint8Array<ArrayBuffer>> {
  const owned = bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
  const seconds = 5 + owned.byteLength / (50 * MiB);
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./arrow-worker.js", import.meta.url), {
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 512 + Math.ceil(owned.byteLength / MiB) },
    });
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      settle();
      void worker.terminate();
    };
    const fail = (error: unknown): void => end(() => reject(error));
    const abort = (): void => fail(signal?.reason);
    const timer = setTimeout(() => fail(new Error(`decoding took over ${Math.round(seconds)} s`)), seconds * 1000);
    signal?.addEventListener("abort", abort);
    worker.on("error", fail);
    worker.on("exit", () => fail(new Error("the decoding thread ended")));
    worker.on("message", (answer: { bytes: Uint8Array<ArrayBuffer>; error?: string }) => {
      if (answer.error === undefined) end(() => resolve(answer.bytes));
      else fail(new Error(answer.error));
    });
    worker.postMessage(owned, [owned.buffer]);
  });
}
