import { stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { defineDisplay, interruptSignal } from "./display/host.js";
import { ProgressBar } from "./display/progress.js";
import { ConfigError, DeviceError } from "./errors.js";
import {
  ConfigFields,
  type GenerationConfig,
  generationConfig,
  readConfig,
  readGenerationConfig,
} from "./hub/config.js";
import { SafetensorsFolder } from "./hub/safetensors-folder.js";
import { Tokenizer } from "./hub/tokenizer.js";
import type { LoraOptions } from "./lora/options.js";
import { loraSettings } from "./lora/options.js";
import { Model } from "./model.js";
import type { CausalLM } from "./models/causal.js";
import { loadWeights, randomWeights } from "./models/load.js";
import { createModel } from "./models/registry.js";
import { nf4Options, type QuantizeOptions, quantizeModule } from "./quantization/nf4.js";
import { seed } from "./tensor/ops/random.js";

/** Options of `loadModel` (api.md). */
export interface LoadOptions {
  device?: "auto" | "cpu" | "cuda" | `cuda:${number}`;
  dtype?: "auto" | "float32" | "fp32" | "bfloat16" | "bf16" | "float16" | "fp16";
  /** Instead of the folder's weights: random ones of the config's shape, or none (names, counts and sizes only). */
  weights?: "random" | "none";
  /** Seed of random weights. */
  seed?: number;
  signal?: AbortSignal;
  /** Shows a progress bar for loads that take a while; true by default. */
  progress?: boolean;
}

/**
 * What `loadModel` returns: the steps in the order they were written, run when the plan is awaited. Weights are quantised while they stream
 * in, so the model never exists whole in its own precision.
 */
export class LoadPlan implements PromiseLike<Model> {
  private readonly source: string | Readonly<Record<string, unknown>>;
  private readonly options: LoadOptions;
  private quantization: QuantizeOptions | undefined;
  private readonly adapters: ((model: Model) => unknown)[] = [];
  private started: Promise<Model> | undefined;

  constructor(source: string | Readonly<Record<string, unknown>>, options: LoadOptions) {
    this.source = source;
    this.options = options;
  }

  /** Quantises the linear layers while they load; the head and the embeddings stay as they are. */
  quantize(options: QuantizeOptions): this {
    this.open("quantize");
    nf4Options(options);
    if (this.adapters.length > 0)
      throw new ConfigError("quantize must come before addLora and loadAdapter: loadModel(…).quantize(…).addLora(…).");
    if (this.quantization) throw new ConfigError("quantize was called twice; once is enough.");
    this.quantization = options;
    return this;
  }

  /** Freezes the model and adds low-rank adapters. */
  addLora(options: LoraOptions): this {
    this.open("addLora");
    loraSettings(options);
    this.adapters.push((model) => model.addLora(options));
    return this;
  }

  /** Loads an adapter in PEFT's layout and makes it the active one. */
  loadAdapter(folder: string, options: { name?: string } = {}): this {
    this.open("loadAdapter");
    this.adapters.push((model) => model.loadAdapter(folder, options));
    return this;
  }

  private open(step: string): void {
    if (this.started)
      throw new ConfigError(`${step}: this plan has run already; call it on the model that came out of it.`);
  }

  then<A = Model, B = never>(
    onfulfilled?: ((model: Model) => A | PromiseLike<A>) | null,
    onrejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.started ??= this.run();
    return this.started.then(onfulfilled, onrejected);
  }

  private async run(): Promise<Model> {
    const { source, options } = this;
    checkOptions(options);
    const folder = typeof source === "string" ? await modelFolder(source) : undefined;
    const fields =
      folder === undefined ? new ConfigFields(source as object, "the given config") : await readConfig(folder);
    if (folder === undefined && options.weights === undefined) {
      throw new ConfigError(
        'loadModel: a config alone has no weights; say { weights: "random" } or { weights: "none" }.',
      );
    }
    const network = createModel(fields);
    if (this.quantization) quantizeModule(network, nf4Options(this.quantization), ["lm_head"]);
    await this.fill(network, folder);
    const tokenizer =
      folder === undefined ? undefined : await Tokenizer.fromFolder(folder).catch((error: unknown) => error as Error);
    const generation: GenerationConfig | undefined =
      (folder === undefined ? undefined : await readGenerationConfig(folder)) ?? generationConfig(fields);
    const model = new Model({
      network,
      tokenizer,
      generation,
      base: typeof source === "string" ? source : "",
      name: folder ? basename(folder) : fields.string("model_type", { default: "model" }),
    });
    for (const step of this.adapters) await step(model);
    return model;
  }

  private async fill(network: CausalLM, folder: string | undefined): Promise<void> {
    const { weights, progress = true } = this.options;
    if (weights === "none") {
      for (const [, p] of network.namedParameters()) p.withoutValues();
      return;
    }
    if (weights === "random" || folder === undefined) {
      seed(this.options.seed ?? 0);
      return randomWeights(network);
    }
    await using files = await SafetensorsFolder.open(folder);
    const signal = interruptSignal(this.options.signal);
    let bar: ProgressBar | undefined;
    const started = performance.now();
    await loadWeights(
      network,
      files,
      network.config.tied ? ["lm_head.weight"] : [],
      (done, total) => {
        // A bar only for what takes a while.
        if (progress && !bar && performance.now() - started > 500)
          bar = new ProgressBar({ label: `Loading ${basename(folder)}`, total, unit: "bytes" });
        bar?.update(done);
      },
      signal,
    );
    bar?.finish();
  }
}

const waiting = "A plan to load a model: nothing has happened yet. Await it: const model = await loadModel(…)…";
defineDisplay(
  LoadPlan,
  () => ({ "text/plain": waiting }),
  () => waiting,
);

function checkOptions(options: LoadOptions): void {
  const { device = "auto", dtype = "auto", weights } = options;
  if (device !== "auto" && device !== "cpu") {
    throw new DeviceError(
      `loadModel: device "${device}" is not available in this version; use device: "cpu" or "auto".`,
    );
  }
  if (!["auto", "float32", "fp32"].includes(dtype)) {
    throw new ConfigError(`loadModel: dtype "${dtype}" is not available yet; use dtype: "float32" or "auto".`);
  }
  if (weights !== undefined && weights !== "random" && weights !== "none") {
    throw new ConfigError(`loadModel: weights must be "random" or "none", received ${JSON.stringify(weights)}.`);
  }
}

/** The folder of a model. @throws ConfigError saying what was looked for, when there is none. */
async function modelFolder(idOrPath: string): Promise<string> {
  const folder = resolve(idOrPath);
  const info = await stat(folder).catch(() => undefined);
  if (info?.isDirectory()) return folder;
  if (idOrPath.endsWith(".gguf"))
    throw new ConfigError(
      "loadModel: GGUF files cannot be loaded yet; give a folder with config.json and safetensors.",
    );
  throw new ConfigError(
    `loadModel: "${idOrPath}" is no folder (looked at ${folder}); downloading from a hub is not available yet. Give a folder with config.json, safetensors and tokenizer.json.`,
  );
}

/**
 * Plans a model: a folder with config.json and safetensors, or a config with `weights: "random" | "none"`. Nothing happens before `await`.
 * @example const model = await loadModel("models/small").quantize({ type: "nf4" }).addLora({ rank: 16 });
 */
export function loadModel(idOrPath: string | Readonly<Record<string, unknown>>, options: LoadOptions = {}): LoadPlan {
  return new LoadPlan(idOrPath, options);
}
