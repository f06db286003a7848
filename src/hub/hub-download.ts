/** One file from a hub into the cache: goes on where an earlier download ended, and is checked by its hash before it gets its name. */
import { createHash, type Hash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { CheckpointError } from "../errors.js";
import { type RepoCache, sizeOf } from "./hub-cache.js";
import { type HubClient, interrupted, type Repo, UnreachableError, unreachable } from "./hub-client.js";

/** A file of a commit as the hub lists it. */
export interface HubFile {
  path: string;
  size: number;
  /** Git's hash of the file, or of the pointer that stands for it. */
  oid: string;
  /** SHA-256 of a large file. */
  sha256: string | undefined;
}

const READ_BYTES = 4 * 1024 * 1024;

/** What a download needs to know. */
export interface DownloadContext {
  client: HubClient;
  repo: Repo;
  commit: string;
  cache: RepoCache;
  signal: AbortSignal | undefined;
  /** Waits between attempts, in milliseconds. */
  waits: readonly number[];
  /** Called with the number of bytes that came, or that were there already. */
  onBytes: (bytes: number) => void;
}

/**
 * Makes sure that a file is in the cache and linked under its name.
 *
 * @throws CheckpointError when what came is not what the hub lists, or the hub refuses it
 */
export async function downloadFile(file: HubFile, context: DownloadContext): Promise<void> {
  const { cache, commit, onBytes } = context;
  const hash = file.sha256 ?? file.oid;
  if ((await sizeOf(cache.pointer(commit, file.path))) === file.size) return onBytes(file.size);
  if ((await sizeOf(cache.blob(hash))) === file.size) onBytes(file.size);
  else await fetchBlob(file, hash, context).catch((error: unknown) => throwWriting(error, file));
  await cache.link(commit, file.path, hash).catch((error: unknown) => throwWriting(error, file));
}

// What the system says of the cache's folder (full, not writable, a link where a file should be).
function throwWriting(cause: unknown, file: HubFile): never {
  const { syscall, message } = cause as NodeJS.ErrnoException;
  if (syscall === undefined) throw cause;
  throw new CheckpointError(
    `${file.path} cannot be kept in the cache: ${message}. Make room there, or give another folder: set HF_HOME, or pass { cacheDir }.`,
    { cause },
  );
}

async function fetchBlob(file: HubFile, hash: string, context: DownloadContext): Promise<void> {
  const { path, file: part } = await context.cache.openPart(hash);
  let counted = 0;
  try {
    // Bytes count once: after a failure the bar waits until the download has caught up.
    const count = (done: number) => {
      if (done > counted) context.onBytes(done - counted);
      counted = Math.max(counted, done);
    };
    for (let attempt = 0; ; attempt++) {
      try {
        await fetchRest(part, file, context, count);
        break;
      } catch (error) {
        const wait = context.waits[attempt];
        if (!(error instanceof UnreachableError) || wait === undefined) throw error;
        await sleep(wait, undefined, context.signal ? { signal: context.signal } : {}).catch((cause: unknown) => {
          throw interrupted(context.repo, cause);
        });
      }
    }
    const found = await hashOf(part, file);
    if (found !== hash) {
      await rm(path, { force: true });
      throw new CheckpointError(
        `${file.path} of ${context.repo.id} came damaged: its ${file.sha256 ? "SHA-256" : "hash"} is ${found}, the hub lists ${hash}. It was thrown away: try again.`,
      );
    }
    await part.sync();
  } finally {
    await part.close();
  }
  await context.cache.keepPart(hash);
}

/** Appends what is missing of a part. @throws UnreachableError when the connection ends before */
async function fetchRest(
  part: FileHandle,
  file: HubFile,
  { client, repo, commit, signal }: DownloadContext,
  count: (done: number) => void,
): Promise<void> {
  let at = (await part.stat()).size;
  if (at > file.size) {
    await part.truncate(0);
    at = 0;
  }
  count(at);
  if (at === file.size) return;
  const headers: Record<string, string> = { "Accept-Encoding": "identity" };
  if (at > 0) headers.Range = `bytes=${at}-`;
  const response = await client.fetchFor(repo)(client.url(repo, { commit, path: file.path }), { headers });
  // A server that knows no ranges sends all of it again.
  if (at > 0 && (response.status !== 206 || !response.headers.get("Content-Range")?.startsWith(`bytes ${at}-`))) at = 0;
  if (response.body === null) throw new CheckpointError(`${response.url} sent nothing.`);
  try {
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      if (at + chunk.length > file.size)
        throw new CheckpointError(
          `${file.path} of ${repo.id} is longer than the ${file.size} bytes that the hub lists. Try again later.`,
        );
      for (let done = 0; done < chunk.length; )
        done += (await part.write(chunk, done, chunk.length - done, at + done)).bytesWritten;
      at += chunk.length;
      count(at);
    }
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause;
    if (signal?.aborted) throw interrupted(repo, cause);
    if ((cause as NodeJS.ErrnoException).syscall === "write") throw cause;
    throw unreachable(client.endpoint, repo, cause);
  }
  if (at < file.size) throw unreachable(client.endpoint, repo, new Error(`ended at byte ${at} of ${file.size}`));
}

/** The hash by which the hub lists a file, of the very descriptor that was written. */
async function hashOf(part: FileHandle, file: HubFile): Promise<string> {
  // Git puts "blob SIZE" before a file that it keeps itself.
  const hash: Hash = file.sha256 ? createHash("sha256") : createHash("sha1").update(`blob ${file.size}\0`);
  const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, file.size));
  for (let at = 0; at < file.size; ) {
    const { bytesRead } = await part.read(buffer, 0, Math.min(buffer.length, file.size - at), at);
    if (bytesRead === 0) break;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
  return hash.digest("hex");
}
