/** Adapters by path or by name on the hub, and the bar that shows what takes long. */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { formatBytes } from "./display/format.js";
import { interruptSignal } from "./display/host.js";
import { ProgressBar } from "./display/progress.js";
import { CheckpointError, ConfigError } from "./errors.js";
import { isRepoId } from "./hub/hub.js";
import { hubAdapter } from "./hub/hub-model.js";
import { Tokenizer } from "./hub/tokenizer.js";

/** Options of `loadAdapter`; those after `name` concern adapters on the hub. */
export interface AdapterOptions {
  /** What the adapter is called in this model; default "default". */
  name?: string;
  /** Branch, tag or commit; default "main". */
  revision?: string;
  /** Default: HF_TOKEN, or what `hf auth login` saved. */
  token?: string;
  /** Default: Hugging Face's cache (HF_HOME). */
  cacheDir?: string;
  signal?: AbortSignal;
  /** Shows a progress bar for downloads that take a while; true by default. */
  progress?: boolean;
}

/** The folder of an adapter, fetched if need be: one that exists goes before a name on the hub. @throws ConfigError saying what was looked for */
export async function findAdapter(folderOrId: string, options: AdapterOptions): Promise<string> {
  const local = await stat(folderOrId).catch(() => undefined);
  if (local?.isDirectory()) return folderOrId;
  if (!isRepoId(folderOrId))
    throw new ConfigError(
      `loadAdapter: "${folderOrId}" is no folder (looked at ${resolve(folderOrId)}) and no name on the hub. Give a folder with adapter_config.json and adapter_model.safetensors, or "organisation/name".`,
    );
  const { progress = true, signal, revision, token, cacheDir } = options;
  const bar = new DelayedBar(progress ? `Downloading ${folderOrId}` : undefined);
  try {
    const folder = await hubAdapter(folderOrId, {
      revision,
      token,
      cacheDir,
      signal: interruptSignal(signal),
      onProgress: (done, total) => bar.update(done, total),
    });
    bar.finish();
    return folder;
  } catch (error) {
    bar.fail(error);
    // A path with a slip in it looks like a name.
    if (error instanceof CheckpointError)
      throw new CheckpointError(`${error.message} There is no folder ${resolve(folderOrId)} either.`, { cause: error });
    throw error;
  }
}

/**
 * The tokenizer that was saved with an adapter, where it has more tokens than the model's, as many as its tables have rows, or another chat template:
 * what an adapter was trained with is what it is used with.
 */
export async function adapterTokenizer(
  folder: string,
  base: Tokenizer | Error | undefined,
  rows: number,
): Promise<Tokenizer | undefined> {
  const own = await Tokenizer.fromFolder(folder).catch(() => undefined);
  if (!own || own.vocabSize > rows) return undefined; // nothing stands behind its further ids
  if (!(base instanceof Tokenizer)) return own;
  const template = own.chatTemplate !== undefined && own.chatTemplate !== base.chatTemplate;
  return template || own.vocabSize > base.vocabSize ? own : undefined;
}

/** A bar of bytes that appears only when the work takes a while. */
export class DelayedBar {
  private bar: ProgressBar | undefined;
  private readonly label: string | undefined;
  private readonly started = performance.now();

  /** Without a label nothing is shown. */
  constructor(label: string | undefined) {
    this.label = label;
  }

  update(done: number, total: number): void {
    if (this.label !== undefined && !this.bar && performance.now() - this.started > 500)
      this.bar = new ProgressBar({ label: this.label, total, unit: "", format: formatBytes });
    this.bar?.update(done);
  }

  finish(): void {
    this.bar?.finish();
  }

  fail(error: unknown): void {
    this.bar?.fail((error as Error).name);
  }
}
