import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { CheckpointError, ConfigError, DataError } from "../errors.js";

/** The package's own folder: the nearest one above this file that holds package.json. */
function packageFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json")) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

/** Where the models that come with the package stand, below notebooks/embedded. */
const EMBEDDED = { text: "model", vision: "vision/model", chatglm: "chatglm/model" } as const;

/** Folder of a small model that comes with the package, for `loadModel`: a Llama that knows texts ("text"), a Qwen2-VL that sees ("vision"), or a ChatGLM that is to be tuned ("chatglm"). */
export function embeddedModel(kind: keyof typeof EMBEDDED = "text"): string {
  if (!Object.hasOwn(EMBEDDED, kind))
    throw new ConfigError(
      `embeddedModel: expected ${Object.keys(EMBEDDED).join(" or ")}, got ${JSON.stringify(kind) ?? String(kind)}.`,
    );
  const folder = join(packageFolder(), "notebooks", "embedded", EMBEDDED[kind]);
  if (!existsSync(folder))
    throw new CheckpointError(`The embedded model is missing: expected ${folder}. Install the package again.`);
  return folder;
}

/** Path of a small data set that comes with the package, for `loadDataset`: a file name such as "radio-train.jsonl". */
export function bundledData(name: string): string {
  const file = join(packageFolder(), "notebooks", "data", name);
  if (!/^[\w.-]+$/.test(name) || !existsSync(file))
    throw new DataError(
      `There is no bundled data set ${JSON.stringify(name)}: expected a file name of ${dirname(file)}.`,
    );
  return file;
}
