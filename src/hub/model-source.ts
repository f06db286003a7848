/** What a path of the user's holds of a model: config, weights, tokenizer, whichever format they come in. */
import { readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { CheckpointError, ConfigError } from "../errors.js";
import { type BnbConfig, BnbWeights, bnbConfig } from "./bnb-weights.js";
import {
  type ConfigFields,
  type GenerationConfig,
  generationConfig,
  readConfig,
  readFields,
  readGenerationConfig,
} from "./config.js";
import { GgufFile } from "./gguf.js";
import { ggufConfig } from "./gguf-config.js";
import { ggufTokenizer } from "./gguf-tokenizer.js";
import { GgufWeights } from "./gguf-weights.js";
import { convertPickle, PICKLE_REASON, PICKLED } from "./safetensors.js";
import { SafetensorsFolder } from "./safetensors-folder.js";
import { Tokenizer } from "./tokenizer.js";
import type { WeightSource } from "./weight-source.js";

/** A model on disk, its config read. Dispose of it when the weights are loaded. */
export interface ModelSource extends AsyncDisposable {
  /** A short name. */
  readonly name: string;
  readonly config: ConfigFields;
  readonly generation: GenerationConfig;
  /** Makes the tokenizer; the error when there is none: thrown where one is needed. Loads that have been asked for go on meanwhile. */
  tokenizer(): Promise<Tokenizer | Error>;
  /** How images are prepared (preprocessor_config.json), where the model has such a file. */
  readonly preprocessor?: ConfigFields | undefined;
  /** How the weights are quantised, where bitsandbytes did so; they are a `BnbWeights` then. */
  readonly quantized?: BnbConfig;
  /** Opens the weights, which the source closes. */
  weights(): Promise<WeightSource>;
}

/** Which file or folder of this machine a path names, or undefined. A folder that holds one GGUF file and no safetensors stands for that file. */
export async function localModel(path: string): Promise<string | undefined> {
  const found = resolve(path);
  const info = await stat(found).catch(() => undefined);
  if (info === undefined) return undefined;
  if (!info.isDirectory()) {
    if (/\.gguf$/i.test(found)) return found;
    if (PICKLED.test(found))
      throw new CheckpointError(`${found} is not loaded: ${PICKLE_REASON}. ${convertPickle(basename(found))}`);
    throw new ConfigError(
      `loadModel: ${found} is a file: expected a .gguf file, or a folder with config.json and safetensors.`,
    );
  }
  const names = await readdir(found);
  const files = names.filter((name) => /\.gguf$/i.test(name));
  if (files.length === 0 || names.some((name) => name.includes(".safetensors"))) return found;
  if (files.length > 1)
    throw new ConfigError(
      `loadModel: ${found} holds ${files.length} GGUF files (${files.slice(0, 4).join(", ")}${files.length > 4 ? ", …" : ""}); give the path of one.`,
    );
  return join(found, files[0]!);
}

/**
 * Opens a model folder or a GGUF file.
 *
 * @throws ConfigError, CheckpointError when its config or header cannot be used; a tokenizer that cannot be used is kept as an error.
 * @param name Default: the folder's or file's.
 */
export async function openModel(path: string, name?: string): Promise<ModelSource> {
  const source = await (/\.gguf$/i.test(path) ? openGguf(path) : openFolder(path));
  return name === undefined ? source : { ...source, name };
}

async function openFolder(folder: string): Promise<ModelSource> {
  const config = await readConfig(folder);
  const quantized = bnbConfig(config);
  let weights: SafetensorsFolder | BnbWeights | undefined;
  return {
    name: basename(folder),
    config,
    ...(quantized && { quantized }),
    generation: (await readGenerationConfig(folder)) ?? generationConfig(config),
    tokenizer: () => Tokenizer.fromFolder(folder).catch((error: unknown) => error as Error),
    preprocessor: await readPreprocessor(folder),
    weights: async () => {
      if (weights === undefined) {
        const files = await SafetensorsFolder.open(folder);
        weights = files; // closed with the source, whatever its names are
        if (quantized) weights = new BnbWeights(files);
      }
      return weights;
    },
    [Symbol.asyncDispose]: async () => {
      await weights?.close();
    },
  };
}

async function readPreprocessor(folder: string): Promise<ConfigFields | undefined> {
  const names = await readdir(folder);
  if (names.includes("preprocessor_config.json")) return readFields(join(folder, "preprocessor_config.json"));
  // transformers 5 writes one file for all kinds of input.
  if (!names.includes("processor_config.json")) return undefined;
  return (await readFields(join(folder, "processor_config.json"))).object("image_processor");
}

async function openGguf(path: string): Promise<ModelSource> {
  const file = await GgufFile.open(path);
  try {
    const config = await ggufConfig(file);
    const weights = new GgufWeights(file, config);
    return {
      name: basename(path).replace(/\.gguf$/i, ""),
      config,
      generation: generationConfig(config),
      tokenizer: () => tokenizerOf(file),
      weights: async () => weights,
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function tokenizerOf(file: GgufFile): Promise<Tokenizer | Error> {
  await turn(); // a vocabulary takes a tenth of a second without a pause
  try {
    return ggufTokenizer(file);
  } catch (error) {
    return error as Error;
  }
}
