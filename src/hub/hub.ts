/** Repositories of a hub as folders of this machine. */
import { stat } from "node:fs/promises";
import { CheckpointError, ConfigError } from "../errors.js";
import { type Environment, hubCacheFolder, isRevision, RepoCache, type RepoType } from "./hub-cache.js";
import { HubClient, type Repo, UnreachableError } from "./hub-client.js";
import { downloadFile, type HubFile } from "./hub-download.js";
import { unsafeName } from "./path.js";

/** Options of a download. */
export interface HubOptions {
  /** A branch, tag or commit; default "main". */
  revision?: string | undefined;
  /** Default: HF_TOKEN, or what `hf auth login` saved. */
  token?: string | undefined;
  /** Default: the cache that HF_HOME names. */
  cacheDir?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Called as bytes arrive; files that are in the cache count at once. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Default: the process's. */
  env?: Environment;
  /** Waits between attempts at a file, in milliseconds. */
  waits?: readonly number[];
}

/** Picks the files that are fetched. @throws when what is needed is not among them */
export type ChooseFiles = (paths: readonly string[]) => readonly string[];

// Loaded when something is fetched: it takes longer than the rest of the library.
const library = () => import("@huggingface/hub");

const WAITS = [500, 2000, 5000, 10_000];

/** True for what can be a repository's name: "org/name". */
export function isRepoId(text: string): boolean {
  const [org, name, more] = text.split("/");
  const part = /^[A-Za-z0-9][\w.-]{0,95}$/;
  return (
    more === undefined && part.test(org ?? "") && part.test(name ?? "") && !/--|\.\./.test(text) && !unsafeName(text)
  );
}

/**
 * Fetches the chosen files of a repository at one commit, those that the cache does not have yet.
 *
 * @returns the folder that holds them under their names
 * @throws ConfigError for a revision that cannot be one; CheckpointError saying what to do when the hub refuses or cannot be reached
 */
export async function hubSnapshot(
  type: RepoType,
  id: string,
  choose: ChooseFiles,
  options: HubOptions,
): Promise<string> {
  const { revision = "main", env = process.env, signal } = options;
  if (!isRevision(revision))
    throw new ConfigError(`revision is ${JSON.stringify(revision)}: expected a branch, a tag or a commit.`);
  const repo: Repo = { type, id };
  const cache = new RepoCache(hubCacheFolder(options.cacheDir, env), type, id);
  if (isOffline(env)) {
    const folder = await cachedSnapshot(cache, revision);
    if (folder !== undefined) return folder;
    throw new CheckpointError(
      `${id} (${revision}) is not in the cache (${cache.folder}), and HF_HUB_OFFLINE forbids fetching it. Unset HF_HUB_OFFLINE, or fetch it once while online.`,
    );
  }
  const client = await HubClient.create(options.token, signal, env);
  let commit: string;
  let files: HubFile[];
  try {
    commit = await commitOf(client, repo, revision);
    files = await filesOf(client, repo, commit);
  } catch (error) {
    // Without a network what was fetched before serves, as in transformers.
    const folder = error instanceof UnreachableError ? await cachedSnapshot(cache, revision) : undefined;
    if (folder !== undefined) return folder;
    throw error;
  }
  const chosen = new Set(choose(files.map((file) => file.path)));
  const wanted = files.filter((file) => chosen.has(file.path));
  const total = wanted.reduce((sum, file) => sum + file.size, 0);
  let done = 0;
  const onBytes = (bytes: number) => {
    done += bytes;
    options.onProgress?.(done, total);
  };
  const context = { client, repo, commit, cache, signal, waits: options.waits ?? WAITS, onBytes };
  // Small files first: a config that does not fit is known before gigabytes are fetched.
  for (const file of wanted.sort((a, b) => a.size - b.size)) await downloadFile(file, context);
  await cache.remember(revision, commit);
  return cache.snapshot(commit);
}

function isOffline(env: Environment): boolean {
  return /^(1|true|yes|on)$/i.test(env.HF_HUB_OFFLINE ?? "");
}

async function cachedSnapshot(cache: RepoCache, revision: string): Promise<string | undefined> {
  const commit = await cache.knownCommit(revision);
  if (commit === undefined) return undefined;
  const folder = cache.snapshot(commit);
  const info = await stat(folder).catch(() => undefined);
  return info?.isDirectory() ? folder : undefined;
}

async function commitOf(client: HubClient, repo: Repo, revision: string): Promise<string> {
  const request = {
    name: repo.id,
    revision,
    hubUrl: client.endpoint,
    fetch: client.fetchFor(repo),
    additionalFields: ["sha"] as ["sha"],
  };
  const { datasetInfo, modelInfo } = await library();
  const { sha } = repo.type === "dataset" ? await datasetInfo(request) : await modelInfo(request);
  if (typeof sha !== "string" || !/^[0-9a-f]{40}$/.test(sha))
    throw new CheckpointError(`${client.endpoint} names no commit for ${repo.id} (${revision}).`);
  return sha;
}

async function filesOf(client: HubClient, repo: Repo, commit: string): Promise<HubFile[]> {
  const { listFiles } = await library();
  const files: HubFile[] = [];
  const request = {
    repo: { type: repo.type, name: repo.id },
    recursive: true,
    revision: commit,
    hubUrl: client.endpoint,
    fetch: client.fetchFor(repo),
  };
  for await (const entry of listFiles(request)) {
    if (entry.type !== "file") continue;
    const { path, size, oid, lfs } = entry;
    // A name that could leave the cache's folder is not even offered.
    if (typeof path !== "string" || unsafeName(path) !== undefined) continue;
    if (!Number.isSafeInteger(size) || size < 0 || typeof oid !== "string")
      throw new CheckpointError(`${client.endpoint} lists ${JSON.stringify(path)} of ${repo.id} without size or hash.`);
    files.push({ path, size: lfs?.size ?? size, oid, sha256: lfs?.oid });
  }
  return files;
}
