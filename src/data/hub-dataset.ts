/** Data sets of a hub: the files of one split, fetched into the shared cache. */
import { readdir } from "node:fs/promises";
import { dirname, join, posix, relative, sep } from "node:path";
import { interruptSignal } from "../display/host.js";
import { CheckpointError, DataError } from "../errors.js";
import { hubSnapshot } from "../hub/hub.js";
import { type ChooseOptions, chooseFiles, knownFormat } from "./dataset-files.js";

/** Options of a data set on a hub. */
export interface HubDatasetOptions extends ChooseOptions {
  /** A branch, tag or commit; default "main". */
  revision?: string | undefined;
  /** Default: HF_TOKEN, or what `hf auth login` saved. */
  token?: string | undefined;
  /** Default: the cache that HF_HOME names. */
  cacheDir?: string | undefined;
  /** Which of a repository's configurations: the folder that its files lie in, "data" of "org/name/data/train.parquet". */
  name?: string | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Fetches the files of one split and gives their paths.
 *
 * @throws DataError when the repository has no such files, or cannot be read
 */
export async function hubDataset(id: string, options: HubDatasetOptions): Promise<string[]> {
  const choose = (paths: readonly string[]) => filesOf(id, paths, options);
  try {
    const signal = interruptSignal(options.signal);
    const folder = await hubSnapshot("dataset", id, choose, { ...options, signal });
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    const names = entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join(posix.sep));
    return choose(names).map((name) => join(folder, ...name.split("/")));
  } catch (error) {
    if (error instanceof CheckpointError) throw new DataError(error.message, { cause: error });
    throw error;
  }
}

// Files that describe a repository instead of holding its rows.
const DESCRIPTION = /(^|\/)(\.|dataset_infos?\.json$|config\.json$)/;

function filesOf(id: string, paths: readonly string[], options: HubDatasetOptions): string[] {
  let data = paths.filter((path) => knownFormat(path) !== undefined && !DESCRIPTION.test(path));
  if (options.name !== undefined) {
    const { name } = options;
    const named = data.filter((path) => dirname(path).split("/").includes(name));
    if (named.length === 0)
      throw new DataError(`${id}: no folder ${JSON.stringify(name)} with files of data among ${folders(data)}`);
    data = named;
  }
  const found = new Set(data.map((path) => dirname(path)));
  if (options.name === undefined && found.size > 1 && !found.has(".") && !found.has("data"))
    throw new DataError(`${id}: holds several data sets (${folders(data)}); pass name to choose one`);
  // Where the usual folder has files, those elsewhere are something else.
  if (options.name === undefined && found.size > 1)
    data = data.filter((path) => dirname(path) === (found.has("data") ? "data" : "."));
  return chooseFiles(id, data, options);
}

const folders = (paths: readonly string[]): string =>
  [...new Set(paths.map((path) => dirname(path)))].slice(0, 8).join(", ") || "nothing";
