/** Folders that Python's `datasets` wrote with `save_to_disk`: Arrow files beside state.json, or a folder for each split beside dataset_dict.json. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { DataError } from "../errors.js";
import { describe, isObject, type JsonObject, own, parseStrict } from "../hub/json.js";
import { unsafeName } from "../hub/path.js";

const MAX_BYTES = 1024 * 1024;

/**
 * The Arrow files of such a folder, in their order; undefined where it is none.
 *
 * @throws DataError for a split that has to be named or is not there, and for files that state.json does not describe.
 */
export async function savedToDisk(
  folder: string,
  names: readonly string[],
  split: string | undefined,
): Promise<string[] | undefined> {
  if (names.includes("dataset_dict.json")) {
    const file = join(folder, "dataset_dict.json");
    const splits = texts(own(await readObject(file), "splits"), file, "splits");
    if (split === undefined || !splits.includes(split))
      throw new DataError(
        `${folder}: holds the splits ${splits.join(", ")}; pass split, such as { split: "${splits[0]}" }`,
      );
    return arrowFiles(join(folder, split));
  }
  if (!names.includes("state.json") || !names.some((name) => name.endsWith(".arrow"))) return undefined;
  return arrowFiles(folder);
}

async function arrowFiles(folder: string): Promise<string[]> {
  const file = join(folder, "state.json");
  const state = await readObject(file);
  if (own(state, "_indices_data_files"))
    throw new DataError(
      `${file}: the rows are chosen by a file of numbers, which is not read; in Python call flatten_indices() before save_to_disk`,
    );
  const listed = own(state, "_data_files");
  const data = (Array.isArray(listed) ? listed : []).map((each) => (isObject(each) ? own(each, "filename") : each));
  return texts(data, file, "_data_files").map((name) => join(folder, name));
}

async function readObject(file: string): Promise<JsonObject> {
  try {
    if ((await stat(file)).size > MAX_BYTES)
      throw new DataError(`${file}: more than ${MAX_BYTES} bytes, which it cannot need`);
    const value = parseStrict(await readFile(file, "utf8"));
    if (isObject(value)) return value;
    throw new DataError(`${file}: expected an object, got ${describe(value)}`);
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(`${file}: cannot be read: ${(cause as Error).message}`, { cause });
  }
}

function texts(value: unknown, file: string, field: string): string[] {
  const list = Array.isArray(value) ? value : [];
  const wrong = list.find((name) => typeof name !== "string" || unsafeName(name, true) !== undefined);
  if (list.length === 0 || wrong !== undefined)
    throw new DataError(`${file}: "${field}" should list names in its folder, got ${describe(wrong ?? value)}`);
  return list as string[];
}
