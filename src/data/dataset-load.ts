/** `loadDataset`: files and folders → data sets. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { formatBytes } from "../display/format.js";
import { ProgressBar } from "../display/progress.js";
import { DataError } from "../errors.js";
import { isRepoId } from "../hub/hub.js";
import { type AnyRow, Dataset } from "./dataset.js";
import { tableFromRecords } from "./dataset-build.js";
import { chooseFiles, type DatasetFormat, formatOf, hasSplit, knownFormat, unknownFormat } from "./dataset-files.js";
import { hubDataset } from "./hub-dataset.js";
import { readArrow } from "./read-arrow.js";
import { type CsvOptions, readCsv } from "./read-csv.js";
import { readJson, readJsonLines } from "./read-json.js";
import { readParquet } from "./read-parquet.js";
import { isPacked } from "./read-text.js";
import { savedToDisk } from "./saved-folder.js";

export type { DatasetFormat } from "./dataset-files.js";

export interface LoadDatasetOptions extends CsvOptions {
  /** Which part of a folder or repository: the files named so, as `train` for `train.jsonl` or `data.train-00000.csv`. */
  split?: string;
  /** Where the name's ending does not tell. */
  format?: DatasetFormat;
  /** For data sets on the hub: a branch, tag or commit; default "main". */
  revision?: string;
  /** For data sets on the hub that need one; default: HF_TOKEN, or what `hf auth login` saved. */
  token?: string;
  /** Where downloads are kept; default: Hugging Face's cache (HF_HOME). */
  cacheDir?: string;
  /** For data sets on the hub that hold several: the folder of one. */
  name?: string;
}

/**
 * Loads a data set: a file of JSON Lines, JSON, CSV, TSV (each also packed with gzip), Arrow or Parquet, a folder of such files, one that Python's
 * `save_to_disk` wrote, or a data set's name on the hub.
 *
 * @throws DataError naming the file and line of what cannot be read.
 * @example const data = await loadDataset("reviews.jsonl");
 */
export async function loadDataset<Row extends object = AnyRow>(
  path: string,
  options: LoadDatasetOptions = {},
): Promise<Dataset<Row>> {
  const files = await dataFiles(path, options);
  const parts: Dataset<Row>[] = [];
  for (const file of files) parts.push((await loadFile(file, options)) as Dataset<Row>);
  const data = parts.length === 1 ? parts[0]! : parts[0]!.concat(...parts.slice(1));
  if (data.length === 0) throw new DataError(`${path}: no rows; expected at least one`);
  return data;
}

/** The files that a path or a name on the hub stands for. @throws DataError where there are none */
export async function dataFiles(path: string, options: LoadDatasetOptions): Promise<string[]> {
  if (typeof path !== "string" || path === "" || path.includes("\0")) {
    throw new DataError("loadDataset: expected the path of a file or folder");
  }
  const info = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT" && error.code !== "ENOTDIR") throw error;
    return undefined;
  });
  if (info && !info.isDirectory()) checkSplit(path, options.split);
  return !info ? await fetched(path, options) : info.isDirectory() ? await filesOf(path, options) : [path];
}

async function loadFile(file: string, options: LoadDatasetOptions): Promise<Dataset> {
  const format = options.format ?? formatOf(file);
  switch (format) {
    case "arrow":
      if (isPacked(file)) throw new DataError(`${file}: packed Arrow files are not read; unpack it first`);
      return Dataset.from(await readArrow(file, options));
    case "parquet":
      return fromRecords(await readParquet(file, options));
    case "jsonl":
      return fromRecords(await readJsonLines(file, options));
    case "json":
      return fromRecords(await readJson(file, options));
    case "csv":
      return fromRecords(await readCsv(file, options));
    case "tsv":
      return fromRecords(await readCsv(file, { delimiter: "\t", ...options }));
    default:
      throw new DataError(`${file}: ${unknownFormat(String(format))}`);
  }
}

function fromRecords({ rows, where }: Awaited<ReturnType<typeof readJson>>): Dataset {
  return Dataset.from(tableFromRecords(rows, where));
}

async function fetched(path: string, options: LoadDatasetOptions): Promise<string[]> {
  if (!isRepoId(path) || knownFormat(path) !== undefined)
    throw new DataError(`${path}: no such file or folder (looked in ${process.cwd()})`);
  let bar: ProgressBar | undefined;
  const started = performance.now();
  const onProgress = (done: number, total: number): void => {
    // A bar only for what takes a while.
    if (!bar && performance.now() - started > 500)
      bar = new ProgressBar({ label: `Downloading ${path}`, total, unit: "", format: formatBytes });
    bar?.update(done);
  };
  try {
    const files = await hubDataset(path, { ...options, onProgress });
    bar?.finish();
    return files;
  } catch (error) {
    bar?.fail((error as Error).name);
    if (!(error instanceof DataError)) throw error;
    throw new DataError(`${error.message} (There is no such file or folder in ${process.cwd()} either.)`, {
      cause: error,
    });
  }
}

function checkSplit(file: string, split: string | undefined): void {
  if (split === undefined || split === "train" || hasSplit(file, split)) return;
  throw new DataError(
    `${file}: one file has no split ${JSON.stringify(split)}; use .split({ ${split}: 0.1 }) on the data set`,
  );
}

async function filesOf(folder: string, options: LoadDatasetOptions): Promise<string[]> {
  const names = (await readdir(folder, { withFileTypes: true }))
    .filter((entry) => !entry.isDirectory() && !entry.name.startsWith("."))
    .map((entry) => entry.name);
  const saved = options.format === undefined ? await savedToDisk(folder, names, options.split) : undefined;
  if (saved) return saved;
  return chooseFiles(folder, names, options).map((name) => join(folder, name));
}
