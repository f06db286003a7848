/** `loadDataset`: files and folders → data sets. */
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { DataError } from "../errors.js";
import { type AnyRow, Dataset } from "./dataset.js";
import { tableFromRecords } from "./dataset-build.js";
import { readArrow } from "./read-arrow.js";
import { type CsvOptions, readCsv } from "./read-csv.js";
import { readJson, readJsonLines } from "./read-json.js";
import { isPacked } from "./read-text.js";

export type DatasetFormat = "jsonl" | "json" | "csv" | "tsv" | "arrow";

export interface LoadDatasetOptions extends CsvOptions {
  /** Which part of a folder: the files named so, as `train` for `train.jsonl` or `data.train-00000.csv`. */
  split?: string;
  /** Where the name's ending does not tell. */
  format?: DatasetFormat;
}

const endings: Readonly<Record<string, DatasetFormat>> = {
  jsonl: "jsonl",
  ndjson: "jsonl",
  json: "json",
  csv: "csv",
  tsv: "tsv",
  arrow: "arrow",
  feather: "arrow",
  ipc: "arrow",
};
const known = ".jsonl, .json, .csv, .tsv (these also with .gz) and .arrow";

/** Names that stand for one split. */
const splitNames: Readonly<Record<string, readonly string[]>> = {
  train: ["train", "training"],
  validation: ["validation", "valid", "val", "dev"],
  test: ["test", "testing", "eval"],
};

/**
 * Loads a data set: a file of JSON Lines, JSON, CSV, TSV (each also packed with gzip) or Arrow, or a folder of such files.
 *
 * @throws DataError naming the file and line of what cannot be read.
 * @example const data = await loadDataset("reviews.jsonl");
 */
export async function loadDataset<Row extends object = AnyRow>(
  path: string,
  options: LoadDatasetOptions = {},
): Promise<Dataset<Row>> {
  if (typeof path !== "string" || path === "" || path.includes("\0")) {
    throw new DataError("loadDataset: expected the path of a file or folder");
  }
  const info = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT" && error.code !== "ENOTDIR") throw error;
    return undefined;
  });
  if (!info) throw missing(path);
  const files = info.isDirectory() ? await filesOf(path, options) : [path];
  if (!info.isDirectory()) checkSplit(path, options.split);
  const parts: Dataset<Row>[] = [];
  for (const file of files) parts.push((await loadFile(file, options)) as Dataset<Row>);
  const data = parts.length === 1 ? parts[0]! : parts[0]!.concat(...parts.slice(1));
  if (data.length === 0) throw new DataError(`${path}: no rows; expected at least one`);
  return data;
}

async function loadFile(file: string, options: LoadDatasetOptions): Promise<Dataset> {
  const format = options.format ?? formatOf(file);
  switch (format) {
    case "arrow":
      if (isPacked(file)) throw new DataError(`${file}: packed Arrow files are not read; unpack it first`);
      return Dataset.from(await readArrow(file, options));
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

function endingOf(file: string): string {
  return /\.([^.]+)$/.exec(basename(file).toLowerCase().replace(/\.gz$/, ""))?.[1] ?? "";
}

function formatOf(file: string): DatasetFormat {
  const ending = endingOf(file);
  if (Object.hasOwn(endings, ending)) return endings[ending]!;
  throw new DataError(`${file}: ${unknownFormat(ending)}`);
}

function unknownFormat(ending: string): string {
  if (ending === "parquet") return "Parquet files are not read yet; convert it to .jsonl or .arrow first";
  return `expected ${known}, got ${ending === "" ? "no ending" : `.${ending}`}; pass format where the name does not tell`;
}

function missing(path: string): DataError {
  if (/^[\w-][\w.-]*\/[\w.-]+$/.test(path) && endingOf(path) === "") {
    return new DataError(
      `${path}: no such file or folder, and data sets of the hub are not fetched yet; download its files and give their path`,
    );
  }
  return new DataError(`${path}: no such file or folder (looked in ${process.cwd()})`);
}

function aliases(split: string): readonly string[] {
  return Object.values(splitNames).find((names) => names.includes(split)) ?? [split];
}

/** The split that a file's name tells, or undefined. */
function splitOf(file: string): string | undefined {
  const words = basename(file)
    .toLowerCase()
    .split(/[^a-z0-9]+/);
  return Object.keys(splitNames).find((split) => splitNames[split]!.some((name) => words.includes(name)));
}

function hasSplit(file: string, split: string): boolean {
  const words = basename(file)
    .toLowerCase()
    .split(/[^a-z0-9]+/);
  return aliases(split.toLowerCase()).some((name) => words.includes(name));
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
    .map((entry) => entry.name)
    .sort();
  let files = names.filter((name) => Object.hasOwn(endings, endingOf(name)));
  if (options.format) files = files.filter((name) => endings[endingOf(name)] === options.format);
  if (files.length === 0) {
    const parquet = names.some((name) => endingOf(name) === "parquet");
    const got = parquet ? "Parquet files, which are not read yet" : names.slice(0, 5).join(", ") || "nothing";
    throw new DataError(`${folder}: expected files of data (${known}), found ${got}`);
  }
  if (options.split !== undefined) {
    const split = options.split;
    const chosen = files.filter((name) => hasSplit(name, split));
    if (chosen.length === 0)
      throw new DataError(`${folder}: no file of the split ${JSON.stringify(split)} among ${files.join(", ")}`);
    files = chosen;
  }
  const splits = new Set(files.map((name) => splitOf(name) ?? ""));
  if (options.split === undefined && splits.size > 1) {
    throw new DataError(
      `${folder}: holds the splits ${[...splits].map((name) => name || "(no name)").join(", ")}; pass split, or the path of one file`,
    );
  }
  const formats = new Set(files.map((name) => endings[endingOf(name)]!));
  if (formats.size > 1) throw new DataError(`${folder}: holds files of ${[...formats].join(" and ")}; pass format`);
  return files.map((name) => join(folder, name));
}
