/** Bytes and text of a file, with budgets. */
import { open } from "node:fs/promises";
import { createGunzip } from "node:zlib";
import { throwIfInterrupted } from "../display/host.js";
import { DataError } from "../errors.js";

const MiB = 1024 * 1024;

/** Limits on what a file may turn into. */
export interface ReadBudget {
  /** Most bytes of text, unpacked. Default 4 GiB. */
  maxBytes?: number;
  signal?: AbortSignal | undefined;
}

export const defaultMaxBytes: number = 4096 * MiB;
/** A packed file of text larger than 16 MiB unpacked may not be more than this many times its packed size. */
const maxRatio = 200;
const freeBytes = 16 * MiB;
const chunkBytes = MiB;

/** Whether a name ends in `.gz`. */
export const isPacked = (file: string): boolean => /\.gz$/i.test(file);

async function* fileBytes(file: string, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  const handle = await open(file, "r");
  try {
    for (;;) {
      throwIfInterrupted(`reading ${file}`, signal);
      const buffer = Buffer.allocUnsafe(chunkBytes);
      const { bytesRead } = await handle.read(buffer, 0, chunkBytes, null);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

/** The bytes of a file, unpacked where it ends in `.gz`. @throws DataError past the budget or where the packing is damaged. */
export async function* readBytes(file: string, budget: ReadBudget = {}): AsyncGenerator<Buffer> {
  const limit = budget.maxBytes ?? defaultMaxBytes;
  let total = 0;
  if (!isPacked(file)) {
    for await (const chunk of fileBytes(file, budget.signal)) {
      total += chunk.length;
      if (total > limit) throw overBudget(file, limit);
      yield chunk;
    }
    return;
  }
  let packed = 0;
  const gunzip = createGunzip({ chunkSize: chunkBytes });
  const feed = (async () => {
    for await (const chunk of fileBytes(file, budget.signal)) {
      packed += chunk.length;
      if (!gunzip.write(chunk)) {
        await new Promise<void>((resolve) => {
          gunzip.once("drain", resolve);
          gunzip.once("close", resolve);
        });
      }
      if (gunzip.destroyed) return;
    }
    gunzip.end();
  })();
  feed.catch((error: Error) => gunzip.destroy(error));
  try {
    for await (const chunk of gunzip as AsyncIterable<Buffer>) {
      total += chunk.length;
      if (total > limit) throw overBudget(file, limit);
      if (total > freeBytes && total > maxRatio * packed) {
        throw new DataError(
          `${file}: unpacks to more than ${maxRatio} times its size, which no data set does; refused`,
        );
      }
      yield chunk;
    }
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (typeof code !== "string" || !(code.startsWith("Z_") || code.startsWith("ERR_"))) throw error;
    throw new DataError(`${file}: the gzip data is damaged or cut short (${(error as Error).message}); fetch it anew`, {
      cause: error,
    });
  } finally {
    gunzip.destroy();
  }
}

function overBudget(file: string, limit: number): DataError {
  return new DataError(`${file}: more than ${Math.round(limit / MiB)} MiB; pass maxBytes to allow more`);
}

/** The text of a file in pieces. A byte order mark is left out. @throws DataError where the bytes are not UTF-8. */
export async function* readText(file: string, budget: ReadBudget = {}): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let lines = 1;
  const decode = (bytes?: Buffer): string => {
    try {
      return bytes ? decoder.decode(bytes, { stream: true }) : decoder.decode();
    } catch (error) {
      throw new DataError(`${file}, at or after line ${lines}: not UTF-8 text; save the file as UTF-8`, {
        cause: error,
      });
    }
  };
  for await (const bytes of readBytes(file, budget)) {
    const text = decode(bytes);
    yield text;
    for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) lines += 1;
  }
  const rest = decode();
  if (rest !== "") yield rest;
}

/** The whole text of a file. @throws DataError past the budget, at most 512 MiB. */
export async function readWholeText(file: string, budget: ReadBudget = {}): Promise<string> {
  const maxBytes = Math.min(budget.maxBytes ?? defaultMaxBytes, 512 * MiB - 64);
  let text = "";
  for await (const part of readText(file, { ...budget, maxBytes })) text += part;
  return text;
}
