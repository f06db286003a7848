/** Which files of a folder, or of a repository, make a data set. */
import { basename } from "node:path";
import { DataError } from "../errors.js";

export type DatasetFormat = "jsonl" | "json" | "csv" | "tsv" | "arrow" | "parquet";

const endings: Readonly<Record<string, DatasetFormat>> = {
  jsonl: "jsonl",
  ndjson: "jsonl",
  json: "json",
  csv: "csv",
  tsv: "tsv",
  arrow: "arrow",
  feather: "arrow",
  ipc: "arrow",
  parquet: "parquet",
};
const known = ".jsonl, .json, .csv, .tsv (these also with .gz), .arrow and .parquet";

/** Names that stand for one split. */
const splitNames: Readonly<Record<string, readonly string[]>> = {
  train: ["train", "training"],
  validation: ["validation", "valid", "val", "dev"],
  test: ["test", "testing", "eval"],
};

/** How files are chosen. */
export interface ChooseOptions {
  split?: string | undefined;
  format?: DatasetFormat | undefined;
}

/** The last part of a name, without `.gz`: "jsonl", or "" where there is none. */
export function endingOf(file: string): string {
  return /\.([^.]+)$/.exec(basename(file).toLowerCase().replace(/\.gz$/, ""))?.[1] ?? "";
}

/** The format that a name tells, or undefined. */
export function knownFormat(file: string): DatasetFormat | undefined {
  const ending = endingOf(file);
  return Object.hasOwn(endings, ending) ? endings[ending] : undefined;
}

/** The format that a name tells. @throws DataError where it tells none */
export function formatOf(file: string): DatasetFormat {
  const format = knownFormat(file);
  if (format === undefined) throw new DataError(`${file}: ${unknownFormat(endingOf(file))}`);
  return format;
}

/** What is wrong with an ending or a format, in words. */
export function unknownFormat(ending: string): string {
  return `expected ${known}, got ${ending === "" ? "no ending" : `.${ending}`}; pass format where the name does not tell`;
}

const wordsOf = (file: string): string[] =>
  basename(file)
    .toLowerCase()
    .split(/[^a-z0-9]+/);

/** The split that a file's name tells, or undefined. */
function splitOf(file: string): string | undefined {
  const words = wordsOf(file);
  return Object.keys(splitNames).find((split) => splitNames[split]!.some((name) => words.includes(name)));
}

/** Whether a file's name tells that it belongs to a split. */
export function hasSplit(file: string, split: string): boolean {
  const words = wordsOf(file);
  const name = split.toLowerCase();
  const aliases = Object.values(splitNames).find((names) => names.includes(name)) ?? [name];
  return aliases.some((alias) => words.includes(alias));
}

/**
 * The files of one split and one format, in the order of their names.
 *
 * @param where The folder or repository, for messages.
 * @throws DataError where there are none, or more than one choice
 */
export function chooseFiles(where: string, names: readonly string[], options: ChooseOptions): string[] {
  let files = names.filter((name) => knownFormat(name) !== undefined).sort();
  if (options.format) files = files.filter((name) => knownFormat(name) === options.format);
  if (files.length === 0) {
    throw new DataError(
      `${where}: expected files of data (${known}), found ${names.slice(0, 5).join(", ") || "nothing"}`,
    );
  }
  if (options.split !== undefined) {
    const split = options.split;
    const chosen = files.filter((name) => hasSplit(name, split));
    if (chosen.length === 0)
      throw new DataError(`${where}: no file of the split ${JSON.stringify(split)} among ${files.join(", ")}`);
    files = chosen;
  }
  const splits = new Set(files.map((name) => splitOf(name) ?? ""));
  if (options.split === undefined && splits.size > 1) {
    throw new DataError(
      `${where}: holds the splits ${[...splits].map((name) => name || "(no name)").join(", ")}; pass split, or the path of one file`,
    );
  }
  const formats = new Set(files.map((name) => knownFormat(name)));
  if (formats.size > 1) throw new DataError(`${where}: holds files of ${[...formats].join(" and ")}; pass format`);
  return files;
}
