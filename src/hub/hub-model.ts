/** Models of a hub: which files of a repository make one. */
import { join } from "node:path";
import { CheckpointError, ConfigError } from "../errors.js";
import { type HubOptions, hubSnapshot, isRepoId } from "./hub.js";

const DESCRIPTION =
  /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map)\.json$|^tokenizer\.model$|^chat_template\.jinja$/;
const WEIGHTS = /^model[\w.-]*\.safetensors$|^model\.safetensors\.index\.json$/;
const ADAPTER = ["adapter_config.json", "adapter_model.safetensors"];
const GGUF = /\.gguf$/i;

/** A model's place on a hub: "org/name", or "org/name/file.gguf" for one file of many. */
export interface HubModelName {
  id: string;
  file: string | undefined;
}

/** Takes a name apart, or gives undefined for what can only be a path. */
export function hubModelName(text: string): HubModelName | undefined {
  const parts = text.split("/");
  const id = parts.slice(0, 2).join("/");
  if (!isRepoId(id)) return undefined;
  if (parts.length === 2) return { id, file: undefined };
  const file = parts.slice(2).join("/");
  return GGUF.test(file) ? { id, file } : undefined;
}

/**
 * Fetches a model and gives the path that {@link openModel} opens: its folder, or its GGUF file.
 *
 * @param weights False leaves them out: the config and the tokenizer alone.
 * @throws CheckpointError when the repository holds no weights that are read
 */
export async function hubModel(name: HubModelName, options: HubOptions, weights = true): Promise<string> {
  const { id } = name;
  let gguf: string | undefined;
  const folder = await hubSnapshot(
    "model",
    id,
    (paths) => {
      gguf = ggufOf(name, paths);
      if (gguf !== undefined) return [gguf];
      const chosen = paths.filter((path) => DESCRIPTION.test(path) || (weights && WEIGHTS.test(path)));
      if (!weights || chosen.some((path) => WEIGHTS.test(path))) return chosen;
      throw new CheckpointError(
        `${id} has no weights that are read: expected model.safetensors or GGUF, found ${listed(paths)}.`,
      );
    },
    options,
  );
  // Without the hub the file is known only when its name was given; else the folder tells.
  const file = gguf ?? name.file;
  return file === undefined ? folder : join(folder, ...file.split("/"));
}

/**
 * Fetches an adapter in PEFT's layout and gives its folder.
 *
 * @throws CheckpointError when the repository holds none
 */
export function hubAdapter(id: string, options: HubOptions): Promise<string> {
  return hubSnapshot(
    "model",
    id,
    (paths) => {
      const missing = ADAPTER.filter((name) => !paths.includes(name));
      if (missing.length === 0) return ADAPTER;
      throw new CheckpointError(
        `${id} is no adapter that is read: ${missing.join(" and ")} is missing, found ${listed(paths)}.`,
      );
    },
    options,
  );
}

function ggufOf({ id, file }: HubModelName, paths: readonly string[]): string | undefined {
  const found = paths.filter((path) => GGUF.test(path));
  if (file !== undefined) {
    if (found.includes(file)) return file;
    throw new ConfigError(`${id} has no file ${file}: expected one of ${listed(found)}.`);
  }
  if (paths.includes("config.json") && (found.length === 0 || paths.some((path) => WEIGHTS.test(path))))
    return undefined;
  if (found.length > 1)
    throw new ConfigError(
      `${id} has ${found.length} GGUF files (${listed(found)}); name one, as in loadModel("${id}/${found[0]}").`,
    );
  return found[0];
}

function listed(paths: readonly string[]): string {
  if (paths.length === 0) return "nothing";
  return paths.slice(0, 6).join(", ") + (paths.length > 6 ? `, … ${paths.length - 6} more` : "");
}
