/**
 * The cache of downloads, in the layout that huggingface_hub shares: models--org--name/ with refs/ (revision → commit), blobs/ (files by
 * hash) and snapshots/COMMIT/ (links to blobs under the files' names).
 */
import { constants } from "node:fs";
import { copyFile, lstat, mkdir, open, readFile, rename, rm, stat, symlink } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { CheckpointError } from "../errors.js";
import { safeJoin, unsafeName } from "./path.js";

/** Kinds of repositories on a hub. */
export type RepoType = "model" | "dataset";

/** The environment's names that are honoured; tests give their own. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** The folder that holds all of Hugging Face's caches: HF_HOME, else beneath the user's cache folder. */
export function hubHome(env: Environment = process.env): string {
  return resolve(env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface"));
}

/** The folder of downloads. */
export function hubCacheFolder(cacheDir?: string, env: Environment = process.env): string {
  return resolve(cacheDir || env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(hubHome(env), "hub"));
}

const COMMIT = /^[0-9a-f]{40}$/;
const BLOB = /^[0-9a-f]{40}([0-9a-f]{24})?$/;

/** The part of a cache that belongs to one repository. */
export class RepoCache {
  /** The repository's folder. */
  readonly folder: string;
  readonly #root: string;

  constructor(root: string, type: RepoType, id: string) {
    this.#root = root;
    this.folder = safeJoin(root, `${type}s--${id.replaceAll("/", "--")}`, refused, { bare: true });
  }

  /** The folder of a commit's files. */
  snapshot(commit: string): string {
    if (!COMMIT.test(commit)) throw refused(`${JSON.stringify(commit)} is no commit: expected 40 hexadecimal digits`);
    return join(this.folder, "snapshots", commit);
  }

  /** Where a file of a commit is found. */
  pointer(commit: string, path: string): string {
    return safeJoin(this.snapshot(commit), path, refused);
  }

  /** Where the bytes of a hash are kept. */
  blob(hash: string): string {
    if (!BLOB.test(hash)) throw refused(`${JSON.stringify(hash)} is no hash of a file`);
    return join(this.folder, "blobs", hash);
  }

  /** The commit that a revision named when it was last asked for, or undefined. */
  async knownCommit(revision: string): Promise<string | undefined> {
    if (COMMIT.test(revision)) return revision;
    const path = safeJoin(join(this.folder, "refs"), revision, refused);
    const text = (await readFile(path, "utf8").catch(() => "")).trim();
    return COMMIT.test(text) ? text : undefined;
  }

  /** Notes which commit a revision names. */
  async remember(revision: string, commit: string): Promise<void> {
    if (COMMIT.test(revision)) return;
    const path = safeJoin(join(this.folder, "refs"), revision, refused);
    await this.#makeFolder(dirname(path));
    const fresh = `${path}.${process.pid}.tmp`;
    await rm(fresh, { force: true });
    await using file = await open(fresh, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    await file.writeFile(commit);
    await rename(fresh, path);
  }

  /**
   * Opens the file that a download is written to, going on with one that an earlier call left.
   *
   * @returns its path, and its descriptor for reading and writing
   */
  async openPart(hash: string): Promise<{ path: string; file: Awaited<ReturnType<typeof open>> }> {
    const path = `${this.blob(hash)}.part`;
    await this.#makeFolder(dirname(path));
    // Never through a link that somebody put there.
    const flags = constants.O_RDWR | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0);
    return { path, file: await open(path, flags, 0o600) };
  }

  /** Moves a whole and checked part to its blob. */
  async keepPart(hash: string): Promise<void> {
    const blob = this.blob(hash);
    await rename(`${blob}.part`, blob).catch(async (error: NodeJS.ErrnoException) => {
      // Another process fetched the same file and was done first.
      if (error.code !== "ENOENT" || (await sizeOf(blob)) === undefined) throw error;
    });
  }

  /** Puts a blob under its name in a commit's folder; systems without links get a copy. */
  async link(commit: string, path: string, hash: string): Promise<void> {
    const pointer = this.pointer(commit, path);
    const blob = this.blob(hash);
    await this.#makeFolder(dirname(pointer));
    await rm(pointer, { force: true });
    try {
      await symlink(relative(dirname(pointer), blob), pointer);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST") return;
      if (code !== "EPERM" && code !== "ENOSYS") throw error;
      await copyFile(blob, pointer);
    }
  }

  // Whoever owns a folder can exchange what lies in it: each one up to the cache's root must be the user's own or the system's.
  async #makeFolder(folder: string): Promise<void> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const uid = process.getuid?.();
    if (uid === undefined) return;
    for (let at = folder; ; at = dirname(at)) {
      const info = await lstat(at);
      if (info.uid !== uid && info.uid !== 0)
        throw new CheckpointError(
          `The cache folder ${at} belongs to another user (${info.uid}), who could exchange what is downloaded there. Give a folder of your own: set HF_HOME, or pass { cacheDir }.`,
        );
      if (at === this.#root || at === dirname(at)) return;
    }
  }
}

/** Bytes of a file behind a path, or undefined when there is none. */
export async function sizeOf(path: string): Promise<number | undefined> {
  const info = await stat(path).catch(() => undefined);
  return info?.isFile() ? info.size : undefined;
}

/** True for a name of a branch, tag or commit that can be asked for and cached. */
export function isRevision(revision: string): boolean {
  return /^[\w./-]+$/.test(revision) && unsafeName(revision) === undefined;
}

function refused(reason: string): CheckpointError {
  return new CheckpointError(`The hub sent a name that is refused: ${reason}.`);
}
