import { resolve } from "node:path";
import { defineDisplay, interruptSignal } from "./display/host.js";
import { CheckpointError, ConfigError } from "./errors.js";
import { type AdapterOptions, DelayedBar } from "./fetch.js";
import { ConfigFields, generationConfig } from "./hub/config.js";
import { hubModel, hubModelName } from "./hub/hub-model.js";
import { localModel, type ModelSource, openModel } from "./hub/model-source.js";
import type { Tokenizer } from "./hub/tokenizer.js";
import { hasFourBits } from "./hub/weight-source.js";
import type { LoraOptions } from "./lora/options.js";
import { loraSettings } from "./lora/options.js";
import { Model } from "./model.js";
import type { CausalLM } from "./models/causal.js";
import { checkedLabels, checkpointLabels, HEAD, SequenceClassifier } from "./models/classifier.js";
import { loadWeights, randomWeights } from "./models/load.js";
import { createModel } from "./models/registry.js";
import { respelled } from "./models/respell.js";
import { prepareSight } from "./models/sight.js";
import { setWeightDType } from "./nn/dtype.js";
import { type QuantizeOptions, quantizeModule, quantizeSettings } from "./quantization/nf4.js";
import { packModule } from "./quantization/packed.js";
import { prepareFourBit, refuseTwice } from "./quantization/prequantized.js";
import { type Device, type DeviceName, resolveDevice } from "./tensor/device.js";
import { type DTypeName, type FloatDType, floatDType } from "./tensor/dtype.js";
import { seed } from "./tensor/ops/random.js";

/** Options of `loadModel` (api.md). */
export interface LoadOptions {
  /** Where the model stands: "auto" (the default) is the GPU where one can be used, unless `setDefaultDevice` or TUNEBOOK_DEVICE say otherwise. */
  device?: DeviceName;
  /**
   * Dtype in which linear and embedding weights are kept; "auto" is the checkpoint's own (its config's `dtype` or `torch_dtype`), else float32.
   * bfloat16 weights are multiplied in bfloat16 with float32 sums; on the GPU activations have this dtype too. Weights of 16 bits stay frozen: train
   * adapters over them.
   * "packed": matrices stay in the blocks (Q8_0, Q4_0, Q4_1) of a GGUF file, frozen, with its memory; generation is fastest so. On the CPU only.
   */
  dtype?: "auto" | "packed" | DTypeName;
  /** Instead of the folder's weights: random ones of the config's shape, or none (names, counts and sizes only). */
  weights?: "random" | "none";
  /** Seed of random weights. */
  seed?: number;
  /**
   * "classification": a linear head over the last token's state chooses one of `labels`, in place of the output layer for tokens. A checkpoint that has
   * such a head (transformers' …ForSequenceClassification) is one anyway; of other checkpoints the head begins as random.
   */
  task?: "generation" | "classification";
  /** Names of the classes; by default those of the checkpoint. */
  labels?: readonly string[];
  signal?: AbortSignal;
  /** Which branch, tag or commit of a model on the hub; default "main". */
  revision?: string;
  /** For models on the hub that need one; default: HF_TOKEN, or what `hf auth login` saved. */
  token?: string;
  /** Where downloads are kept; default: Hugging Face's cache (HF_HOME). */
  cacheDir?: string;
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
  /** The init that is computed from dense weights: quantisation waits for it. */
  private computed: "pissa" | "loftq" | undefined;
  private started: Promise<Model> | undefined;

  constructor(source: string | Readonly<Record<string, unknown>>, options: LoadOptions) {
    this.source = source;
    this.options = options;
  }

  /** Quantises the linear layers while they load; the head and the embeddings stay as they are. */
  quantize(options: QuantizeOptions): this {
    this.open("quantize");
    quantizeSettings(options);
    if (this.adapters.length > 0)
      throw new ConfigError("quantize must come before addLora and loadAdapter: loadModel(…).quantize(…).addLora(…).");
    if (this.quantization) throw new ConfigError("quantize was called twice; once is enough.");
    this.quantization = options;
    return this;
  }

  /** Freezes the model and adds low-rank adapters. */
  addLora(options: LoraOptions): this {
    this.open("addLora");
    const { init } = loraSettings(options);
    const from = init === "pissa" || init === "loftq" ? init : undefined;
    if (from) {
      if (this.adapters.length > 0)
        throw new ConfigError(`addLora: init "${from}" changes the weights: it must come before other adapters.`);
      this.computed = from;
    }
    const loftq = from === "loftq" && this.quantization && !options.loftq?.quantize;
    const all = loftq ? { ...options, loftq: { ...options.loftq, quantize: this.quantization! } } : options;
    this.adapters.push(async (model) => {
      await model.adaptLora(all);
      // What the adapter began from had to be dense; the rest of it is quantised now.
      if (from && this.quantization)
        quantizeModule(
          model.module,
          quantizeSettings(this.quantization),
          [...model.module.denseParts(this.quantization), HEAD],
          true,
        );
    });
    return this;
  }

  /** Loads an adapter in PEFT's layout, a folder or "organisation/name" on the hub, and makes it the active one. */
  loadAdapter(folderOrId: string, options: AdapterOptions = {}): this {
    this.open("loadAdapter");
    this.adapters.push((model) => model.loadAdapter(folderOrId, options));
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
    const device = wantedDevice(options);
    await using files = typeof source === "string" ? await findModel(source, options) : undefined;
    const fields = files?.config ?? new ConfigFields(source as object, "the given config");
    if (files === undefined && options.weights === undefined) {
      throw new ConfigError(
        'loadModel: a config alone has no weights; say { weights: "random" } or { weights: "none" }.',
      );
    }
    const decoder = createModel(fields);
    prepareSight(decoder, files?.preprocessor);
    const labels = wantedLabels(options, fields);
    setWeightDType(decoder, wantedDType(options.dtype, fields));
    if (this.quantization && !this.computed)
      quantizeModule(decoder, quantizeSettings(this.quantization), decoder.denseParts(this.quantization));
    if (files?.quantized) await this.takeQuantized(decoder, files);
    const network = labels ? new SequenceClassifier(decoder, labels) : decoder;
    network.to(device);
    if (options.dtype === "packed") await pack(network, files);
    let tokenizer: Tokenizer | Error | undefined;
    try {
      // Native threads read while the vocabulary is made into tables.
      [tokenizer] = await Promise.all([files?.tokenizer(), this.fill(network, files)]);
    } catch (error) {
      network.dispose(); // what came before the interrupt or the damaged tensor is of no use
      throw error;
    }
    const model = new Model({
      network,
      tokenizer,
      generation: files?.generation ?? generationConfig(fields),
      base: typeof source === "string" ? source : "",
      name: files?.name ?? fields.string("model_type", { default: "model" }),
    });
    for (const step of this.adapters) await step(model);
    return model;
  }

  /** A checkpoint in 4 bits keeps its bytes; without its weights the config alone says what is in 4 bits. */
  private async takeQuantized(network: CausalLM, { quantized, weights }: ModelSource): Promise<void> {
    if (this.quantization) refuseTwice(quantized!);
    const source = this.options.weights === undefined ? respelled(network, await weights()) : undefined;
    if (source && hasFourBits(source)) return prepareFourBit(network, source, quantized!);
    const { kind, nested, compute, skip } = quantized!;
    const settings = quantizeSettings({ type: kind, doubleQuant: nested, compute: compute as DTypeName });
    const named = skip.map((name) => network.ownName(`${name}.`).slice(0, -1)); // what else is dense
    quantizeModule(network, settings, [...network.denseParts({ vision: true }), ...named]);
  }

  private async fill(network: CausalLM, source: ModelSource | undefined): Promise<void> {
    const { weights, progress = true } = this.options;
    if (weights === "none") {
      for (const [, p] of network.namedParameters()) p.withoutValues();
      return;
    }
    if (weights === "random" || source === undefined) {
      seed(this.options.seed ?? 0);
      return randomWeights(network);
    }
    if (network.labels) seed(this.options.seed ?? 0); // for a head that the checkpoint lacks
    const signal = interruptSignal(this.options.signal);
    const bar = new DelayedBar(progress ? `Loading ${source.name}` : undefined);
    await loadWeights(
      network,
      respelled(network, await source.weights()),
      network instanceof SequenceClassifier ? network.replaced : network.config.tied ? ["lm_head.weight"] : [],
      (done, total) => bar.update(done, total),
      signal,
      [`${HEAD}.weight`],
    );
    bar.finish();
  }
}

// Without weights nothing is put anywhere: a model for a GPU can be described where there is none.
function wantedDevice({ device = "auto", dtype, weights }: LoadOptions): Device {
  if (dtype === "packed") {
    if (device === "auto" || device === "cpu") return "cpu";
    throw new ConfigError(
      `loadModel: dtype "packed" is computed on the CPU only, received device "${device}"; give device "cpu", or another dtype.`,
    );
  }
  if (weights !== "none") return resolveDevice(device, "loadModel");
  return device.startsWith("cuda") ? "cuda" : "cpu";
}

async function pack(network: CausalLM, files: ModelSource | undefined): Promise<void> {
  if (files === undefined)
    throw new ConfigError('loadModel: dtype "packed" is for .gguf files; a config has no blocks.');
  packModule(network, await files.weights());
}

// "auto" follows the checkpoint; what it names that is no float dtype of ours (float64, float8) is kept in float32.
function wantedDType(asked: LoadOptions["dtype"], fields: ConfigFields): FloatDType {
  if (asked === "packed") return "float32"; // what is not packed
  if (asked !== undefined && asked !== "auto") return floatDType(asked)!;
  return floatDType(fields.get("dtype")) ?? floatDType(fields.get("torch_dtype")) ?? "float32";
}

// The names of the classes, where the model has or gets a head for them.
function wantedLabels({ task, labels }: LoadOptions, fields: ConfigFields): readonly string[] | undefined {
  const own = checkpointLabels(fields);
  if (task !== undefined && task !== "generation" && task !== "classification")
    throw new ConfigError(
      `loadModel: task must be "generation" or "classification", received ${JSON.stringify(task)}.`,
    );
  if (task === "generation" && (labels || own))
    throw new ConfigError(
      labels
        ? 'loadModel: labels belong to task: "classification"; leave one of the two out.'
        : `loadModel: ${fields.where} describes a model with a head for the classes ${own!.join(", ")} and none for tokens; leave task out.`,
    );
  if (task === undefined && labels === undefined && own === undefined) return undefined;
  const wanted = checkedLabels(labels ?? own);
  if (own && wanted.length !== own.length)
    throw new ConfigError(
      `loadModel: ${fields.where} describes a head for ${own.length} classes (${own.join(", ")}), received ${wanted.length} labels.`,
    );
  return wanted;
}

const waiting = "A plan to load a model: nothing has happened yet. Await it: const model = await loadModel(…)…";
defineDisplay(
  LoadPlan,
  () => ({ "text/plain": waiting }),
  () => waiting,
);

function checkOptions(options: LoadOptions): void {
  const { dtype = "auto", weights } = options;
  if (dtype !== "auto" && dtype !== "packed" && floatDType(dtype) === undefined) {
    throw new ConfigError(
      `loadModel: dtype must be "auto", "float32", "bfloat16", "float16" or "packed", received ${JSON.stringify(dtype)}.`,
    );
  }
  if (weights !== undefined && weights !== "random" && weights !== "none") {
    throw new ConfigError(`loadModel: weights must be "random" or "none", received ${JSON.stringify(weights)}.`);
  }
}

/** Opens the folder or GGUF file of a model, fetched if need be. @throws ConfigError saying what was looked for, when there is none. */
async function findModel(idOrPath: string, options: LoadOptions): Promise<ModelSource> {
  const local = await localModel(idOrPath);
  if (local !== undefined) return openModel(local);
  const name = hubModelName(idOrPath);
  if (name === undefined)
    throw new ConfigError(
      `loadModel: "${idOrPath}" is no folder and no .gguf file (looked at ${resolve(idOrPath)}), and no name on the hub. Give a folder with config.json, safetensors and tokenizer.json, a .gguf file, or "organisation/name".`,
    );
  const { revision, token, cacheDir, progress = true } = options;
  const bar = new DelayedBar(progress ? `Downloading ${name.id}` : undefined);
  const path = await hubModel(
    name,
    {
      revision,
      token,
      cacheDir,
      signal: interruptSignal(options.signal),
      onProgress: (done, total) => bar.update(done, total),
    },
    options.weights === undefined,
  ).catch((error: unknown) => {
    bar.fail(error);
    // A path with a slip in it looks like a name.
    if (error instanceof CheckpointError)
      throw new CheckpointError(`${error.message} There is no folder ${resolve(idOrPath)} either.`, { cause: error });
    throw error;
  });
  bar.finish();
  // The cache's folder is named by its commit: the model keeps the name that it was asked for by.
  return openModel((await localModel(path)) ?? path, name.id.split("/")[1]);
}

/**
 * Plans a model: a name on the hub, a folder with config.json and safetensors, a .gguf file, or a config with `weights: "random" | "none"`. Nothing happens before `await`.
 * @example const model = await loadModel("models/small").quantize({ type: "nf4" }).addLora({ rank: 16 });
 */
export function loadModel(idOrPath: string | Readonly<Record<string, unknown>>, options: LoadOptions = {}): LoadPlan {
  return new LoadPlan(idOrPath, options);
}
