import { isAbsolute } from "node:path";
import { allWithImages, encodeConversation, encodeConversations, type Prompt, withImages } from "./data/images.js";
import { defineDisplay } from "./display/host.js";
import type { Table } from "./display/table.js";
import { ConfigError, StateError, TokenizerError } from "./errors.js";
import { type EstimateOptions, estimateMemory, type MemoryEstimate } from "./estimate.js";
import { type Comparison, compareAdapters } from "./evaluation/compare.js";
import { type EvaluateOptions, evaluate } from "./evaluation/evaluate.js";
import { joinText, type PromptsOptions, type SamplingOptions, samplingSettings } from "./evaluation/generate.js";
import { generateBatch } from "./evaluation/generate-batch.js";
import { type ClassifyOptions, type ClassPrediction, classifyTexts } from "./evaluation/head.js";
import type { Metrics } from "./evaluation/metrics.js";
import { stopsOf } from "./evaluation/stop-text.js";
import { type GeneratedRows, streamText } from "./evaluation/stream.js";
import { type AdapterOptions, adapterTokenizer, findAdapter } from "./fetch.js";
import type { Message } from "./hub/chat.js";
import type { Tokenizer } from "./hub/tokenizer.js";
import { type AdapterInfo, loadAdapterFiles, saveAdapter, savedConfig } from "./lora/adapter.js";
import { disposeBiases } from "./lora/biases.js";
import { initialise, requireImmediate } from "./lora/initialise.js";
import { mergeChecked } from "./lora/merge-checked.js";
import type { MergeReport } from "./lora/merge-report.js";
import { type LoraOptions, type LoraSettings, loraSettings } from "./lora/options.js";
import { listParameters, type ParameterInfo, requireTrainable } from "./lora/parameters.js";
import { type BatchOptions, batchSettings } from "./lora/row-adapters.js";
import { type AddTokensOptions, addTokens } from "./lora/tokens.js";
import { activate, adaptedLayers, removeLora, targetNames, withHead, wrapLora } from "./lora/wrap.js";
import type { ModelParts } from "./model-parts.js";
import type { CausalConfig, CausalLM } from "./models/causal.js";
import { exportFolder } from "./models/export.js";
import { exportGguf } from "./models/export-gguf.js";
import { checkExport, type ExportOptions } from "./models/export-options.js";
import { ownModules, refuseOwnModules, saveOwn } from "./models/own-modules.js";
import { labelledLoss, rowLogits } from "./models/rows.js";
import { weightDType } from "./nn/dtype.js";
import { type QuantizeOptions, quantizeModule, quantizeSettings } from "./quantization/nf4.js";
import { countTrainable, type MemoryParts, memoryParts, summaryTable, type TrainableCount } from "./report.js";
import type { Device } from "./tensor/device.js";
import type { FloatDType } from "./tensor/dtype.js";
import { setMemoryAdvice } from "./tensor/native.js";
import { seed } from "./tensor/ops/random.js";
import type { TrainOptions } from "./training/options.js";
import { TrainRun } from "./training/run.js";
import { Turns } from "./training/turns.js";

/** A language model: inspect it, adapt it, train it, measure it, talk to it. Made by `await loadModel(…)`. */
export class Model implements Disposable {
  readonly name: string;
  private readonly network: CausalLM;
  private readonly parts: ModelParts;
  private readonly adapters = new Map<string, AdapterInfo>();
  private active: string | undefined;
  /** Whether tokens were added: adapters save the tables then. */
  private resized = false;
  private readonly turns = new Turns<TrainRun>();
  private lastRun: { gradients: number; optimizer: number; peak: number } = { gradients: 0, optimizer: 0, peak: 0 };

  constructor(parts: ModelParts) {
    this.parts = parts;
    this.network = parts.network;
    this.name = parts.name;
  }

  /** The architecture's config; the file's own fields are in `config.raw`. */
  get config(): CausalConfig {
    return this.network.config;
  }

  /** Where its weights stand and its work runs. */
  get device(): Device {
    return this.network.device;
  }

  /** Dtype of its matrices. Adapters are float32; activations are float32 on the CPU, on the GPU they have this dtype (or quantize's `compute`). */
  get dtype(): FloatDType {
    return weightDType(this.network);
  }

  /** @throws TokenizerError saying which files were looked for, when the model came without one. */
  get tokenizer(): Tokenizer {
    const tokenizer = this.adapters.get(this.active ?? "")?.tokenizer ?? this.parts.tokenizer;
    if (tokenizer === undefined)
      throw new TokenizerError(
        "This model was made from a config alone and has no tokenizer; load it from a folder that has tokenizer.json.",
      );
    if (tokenizer instanceof Error) throw tokenizer;
    return tokenizer;
  }

  /** The module tree, for walking and replacing parts. */
  get module(): CausalLM {
    return this.network;
  }

  /** Parameters grouped over the layers, with counts, memory and what is trained. */
  summary(): Table {
    return summaryTable(this.network, this.device);
  }

  parameters(): ParameterInfo[] {
    return listParameters(this.network);
  }

  trainable(): TrainableCount {
    return countTrainable(this.network);
  }

  /** Bytes by part; gradients, optimizer and activations are those of the last training step's peak. */
  memory(): MemoryParts {
    return memoryParts(this.network, this.lastRun);
  }

  /**
   * Predicts the memory of a training step with these options of `train`, by part, and what would fit. Nothing is computed; the model needs no
   * weights.
   */
  estimate<Row>(options: EstimateOptions<Row> = {}): MemoryEstimate {
    return estimateMemory(this.network, options as EstimateOptions);
  }

  /** Quantises the linear layers in place. @throws StateError after addLora: adapters belong to the quantised layers. */
  quantize(options: QuantizeOptions): this {
    this.turns.require("quantize");
    if (adaptedLayers(this.network).length > 0)
      throw new StateError("quantize must come before addLora and loadAdapter: loadModel(…).quantize(…).addLora(…).");
    quantizeModule(this.network, quantizeSettings(options), this.network.denseParts(options));
    return this;
  }

  /**
   * Freezes the model and adds a low-rank adapter, which becomes the active one.
   * @throws ConfigError for an init that is computed from the weights ("pissa", "loftq"): `adaptLora` does that.
   */
  addLora(options: LoraOptions): this {
    const settings = loraSettings(options);
    requireImmediate(settings);
    return this.wrap(settings);
  }

  /** `addLora` for every init: "pissa" and "loftq" are computed from the weights, which they change. */
  async adaptLora(options: LoraOptions): Promise<this> {
    const settings = loraSettings(options);
    const ending = this.turns.idle("addLora");
    if (ending) await ending;
    this.wrap(settings);
    try {
      await initialise(this.network, settings);
    } catch (error) {
      this.removeAdapter(settings.name);
      throw error;
    }
    return this;
  }

  private wrap(given: LoraSettings): this {
    const settings = withHead(this.network, given);
    this.turns.require("addLora");
    this.unused("addLora", settings.name);
    if (settings.seed !== undefined) seed(settings.seed);
    const targets = targetNames(settings, wrapLora(this.network, settings));
    this.adapters.set(settings.name, {
      settings,
      targets,
      base: this.parts.base,
      raw: undefined,
      resized: this.resized,
    });
    this.setAdapter(settings.name);
    return this;
  }

  /**
   * Adds tokens to the tokenizer and rows for them to the embedding and the output layer, which begin as the mean of the others. To train these, name
   * them in `modulesToSave` or `target` of `addLora`; adapters that are made from now on save the larger tables with them.
   * @returns the ids of the tokens, those included that there were already.
   */
  addTokens(tokens: readonly string[], options: AddTokensOptions = {}): number[] {
    this.turns.require("addTokens");
    const { tokenizer, resized } = addTokens(this.network, this.tokenizer, tokens, options);
    this.resized ||= resized;
    for (const info of this.adapters.values())
      Object.assign(info, { resized: info.resized || resized, tokenizer: undefined });
    this.parts.tokenizer = tokenizer;
    return tokens.map((token) => tokenizer.idOf(token)!);
  }

  /**
   * Loads an adapter in PEFT's layout, a folder or "organisation/name" on the hub, and makes it the active one. The tokenizer that was saved with it
   * is used while it is active, where it has other tokens or another chat template than the model's.
   */
  async loadAdapter(folderOrId: string, options: AdapterOptions = {}): Promise<this> {
    await this.turns.idle("loadAdapter");
    const name = options.name ?? "default";
    this.unused("loadAdapter", name);
    const folder = await findAdapter(folderOrId, options);
    const rows = this.config.vocabSize;
    const info = await loadAdapterFiles(this.network, folder, name);
    const own = await adapterTokenizer(folder, this.parts.tokenizer, this.config.vocabSize);
    if (this.config.vocabSize > rows) {
      this.resized = true;
      if (own) this.parts.tokenizer = own;
    }
    this.adapters.set(name, { ...info, base: info.base || this.parts.base, tokenizer: own });
    this.setAdapter(name);
    return this;
  }

  /** Makes one of the adapters the active one. */
  setAdapter(name: string): this {
    this.known(name);
    activate(this.network, name);
    this.active = name;
    return this;
  }

  /** Runs `fn` with every adapter switched off. */
  async withoutAdapter<T>(fn: () => T | Promise<T>): Promise<T> {
    const name = this.active;
    activate(this.network, undefined);
    try {
      return await fn();
    } finally {
      activate(this.network, name);
    }
  }

  /**
   * Logits of rows of token ids as one array of `shape` [rows, longest row, vocab], of a model with a head for classes [rows, longest row, classes]; what
   * stands behind a shorter row's end is 0.
   */
  async logits(ids: readonly (readonly number[])[]): Promise<Float32Array & { shape: [number, number, number] }> {
    const ending = this.turns.ready("logits");
    if (ending) await ending;
    return rowLogits(this.network, ids);
  }

  /** The classes of a model with a head for them (`loadModel(…, { task: "classification", labels })`). */
  get labels(): readonly string[] | undefined {
    return this.network.labels;
  }

  /** Which class a text belongs to, by the head; of several texts (or conversations) each one's. @throws StateError for a model without a head. */
  classify(text: string, options?: ClassifyOptions): Promise<ClassPrediction>;
  classify(texts: readonly (string | readonly Message[])[], options?: ClassifyOptions): Promise<ClassPrediction[]>;
  async classify(
    texts: string | readonly (string | readonly Message[])[],
    options: ClassifyOptions = {},
  ): Promise<ClassPrediction | ClassPrediction[]> {
    const ending = this.turns.ready("classify");
    if (ending) await ending;
    if (typeof texts !== "string") return classifyTexts(this, this.network, texts, options);
    return (await classifyTexts(this, this.network, [texts], options))[0]!;
  }

  /** Mean cross entropy in nats a token: labels[i] is the target at ids[i] itself (shifted by one inside, as in transformers), -100 is left out. */
  async loss(ids: readonly (readonly number[])[], labels: readonly (readonly number[])[]): Promise<number> {
    const ending = this.turns.ready("loss");
    if (ending) await ending;
    return labelledLoss(this.network, ids, labels);
  }

  /** The text that follows a prompt; of several prompts (their lengths may differ) all texts, in batches whose rows may have adapters of their own. */
  generate(prompt: string, options?: SamplingOptions): Promise<string>;
  generate(prompts: readonly string[], options?: PromptsOptions & BatchOptions): Promise<string[]>;
  async generate(
    prompt: string | readonly string[],
    options: (SamplingOptions | PromptsOptions) & BatchOptions = {},
  ): Promise<string | string[]> {
    if (typeof prompt === "string") return joinText(this.stream(prompt, options as SamplingOptions));
    const { images, ...others } = options as PromptsOptions & BatchOptions;
    const ids = prompt.map((text) => this.tokenizer.encode(text, { addSpecialTokens: "before" }));
    return this.continueAll(await allWithImages(ids, images, this.network.sight), others);
  }

  private continueAll(prompts: readonly Prompt[], options: SamplingOptions & BatchOptions): Promise<string[]> {
    const pictures = prompts.map((prompt) => prompt.pictures);
    return this.generateIds(prompts.map(({ ids }) => ids), { ...options, pictures }); // biome-ignore format: one line
  }

  /** The texts that follow several prompts given as ids; see `generate`. `onDone` is called as each prompt is done. */
  async generateIds(
    prompts: readonly (readonly number[])[],
    options: SamplingOptions & BatchOptions & GeneratedRows = {},
  ): Promise<string[]> {
    const ending = this.turns.ready("generate");
    if (ending) await ending;
    for (const name of options.adapters ?? []) if (name !== null) this.known(name);
    const settings = samplingSettings(options);
    const stops = stopsOf(options.stop, this.stopIds());
    const checked = batchSettings(this.network, options, prompts.length, this.active);
    return generateBatch(this.network, this.tokenizer, prompts, settings, { ...checked, stops });
  }

  /** The text that follows a prompt, or the assistant's answer to a conversation (see `chat`), piece by piece, in whole characters. */
  async *stream(prompt: string | readonly Message[], options: SamplingOptions = {}): AsyncGenerator<string, void> {
    const { sight } = this.network;
    const encoded: Prompt =
      typeof prompt === "string"
        ? await withImages(this.tokenizer.encode(prompt, { addSpecialTokens: "before" }), options.images, sight)
        : await encodeConversation(this.tokenizer, prompt, sight);
    await this.turns.ready("stream");
    yield* streamText(this.network, this.tokenizer, encoded, options, this.stopIds());
  }

  /** The assistant's answer to a conversation, through the chat template, with its images if the model sees; of several all answers, in batches. */
  chat(messages: readonly Message[], options?: SamplingOptions): Promise<string>;
  chat(conversations: readonly (readonly Message[])[], options?: SamplingOptions & BatchOptions): Promise<string[]>;
  async chat(
    given: readonly Message[] | readonly (readonly Message[])[],
    options: SamplingOptions & BatchOptions = {},
  ): Promise<string | string[]> {
    if (!Array.isArray(given[0])) return (await joinText(this.stream(given as readonly Message[], options))).trim();
    const conversations = given as readonly (readonly Message[])[];
    const all = await encodeConversations(this.tokenizer, conversations, this.network.sight);
    return (await this.continueAll(all, options)).map((answer) => answer.trim());
  }

  /** Switches dropout off, as PyTorch's `eval` does. Nothing needs it: only `train` switches it on, and off again at its end. */
  eval(): this {
    this.network.train(false);
    return this;
  }

  /** Ids at which generation ends: the generation config's and the tokenizer's end of sequence. */
  stopIds(): number[] {
    const { tokenizer, generation } = this.parts;
    const own = tokenizer && !(tokenizer instanceof Error) ? tokenizer.stopIds : [];
    return [...new Set([...(generation?.eosIds ?? []), ...own])];
  }

  /** Starts training on rows (a Dataset, or anything iterable). Await it for the summary, or iterate over its steps. */
  train<Row>(data: Iterable<Row>, options: TrainOptions<Row> = {}): TrainRun {
    const rows = data as Iterable<Record<string, unknown>>;
    const run = this.turns.begin((ready, over) => {
      requireTrainable(this.network);
      return new TrainRun(this, this.network, rows, options as TrainOptions, ready, (end) => {
        this.lastRun = end;
        if (over()) setMemoryAdvice(undefined);
      });
    });
    setMemoryAdvice((device) => {
      const step = device === this.device ? run.plannedStep : undefined;
      if (!step) return undefined;
      const estimate = estimateMemory(this.network, step);
      return `${estimate.toTable().toText()}\n${estimate.advice()}`;
    });
    return run;
  }

  /** Measures the model on rows; with `adapters`, with each of them one after another. */
  evaluate<Row>(
    data: Iterable<Row>,
    options: EvaluateOptions<Row> & { adapters: readonly string[] },
  ): Promise<Comparison>;
  evaluate<Row>(data: Iterable<Row>, options: EvaluateOptions<Row>): Promise<Metrics>;
  async evaluate<Row>(data: Iterable<Row>, options: EvaluateOptions<Row>): Promise<Metrics | Comparison> {
    const { adapters, ...each } = options as EvaluateOptions;
    if (adapters !== undefined) await this.turns.idle("evaluate");
    const ending = this.turns.ready("evaluate");
    if (ending) await ending;
    if (adapters === undefined) return evaluate(this, this.network, data as Iterable<Record<string, unknown>>, each);
    const rows = [...data] as Record<string, unknown>[]; // each adapter reads them anew
    for (const name of adapters) if (name !== "base") this.known(name);
    const use = (name: string | undefined): void => activate(this.network, name);
    try {
      return await compareAdapters(adapters, this.adapters, use, () => evaluate(this, this.network, rows, each));
    } finally {
      use(this.active);
    }
  }

  /** Takes an adapter out and frees it; without any left, the model is what it was before. */
  removeAdapter(name: string): this {
    this.turns.require("removeAdapter");
    this.known(name);
    removeLora(this.network, name);
    this.adapters.delete(name);
    if (this.active === name) this.active = undefined;
    return this;
  }

  /**
   * Merges the active adapter into the weights and takes it out: sums are made in float32 and rounded once where weights have 16 bits; quantised
   * layers that it adapts become dense. The logits of a probe before and after are compared.
   * @throws StateError without an active adapter, with other adapters beside it, or when the logits changed by more than rounding.
   */
  async merge(): Promise<MergeReport> {
    await this.turns.idle("merge");
    await this.turns.ready("merge");
    const adapter = this.active;
    if (adapter === undefined) throw new StateError("merge: the model has no active adapter; call addLora first.");
    const others = [...this.adapters.keys()].filter((name) => name !== adapter);
    if (others.length > 0)
      throw new StateError(
        `merge: the model has other adapters (${others.join(", ")}), which were made for the weights as they are; save them, then removeAdapter them.`,
      );
    // A folder's place on this machine says nothing elsewhere.
    const name = this.parts.base === "" || isAbsolute(this.parts.base) ? this.name : this.parts.base;
    const logits = (rows: number[][]): Promise<Float32Array> => this.logits(rows);
    return mergeChecked(this.network, adapter, name, logits, () => {
      this.parts.tokenizer = this.adapters.get(adapter)?.tokenizer ?? this.parts.tokenizer;
      this.adapters.clear();
      this.active = undefined;
      this.parts.base = ""; // an adapter made from now on belongs to these weights, which have no name yet
    });
  }

  /**
   * Writes the whole model to a folder that `loadModel` and transformers read: config, weights (float32 unless `dtype` says otherwise; quantised
   * ones restored), tokenizer. With `format: "gguf"` it is one file for llama.cpp, `<name>-<dtype>.gguf` (F16 unless `dtype` says otherwise), with tokenizer and template.
   * @throws StateError while there are adapters: merge them, or save them by themselves.
   */
  async export(folder: string, options: ExportOptions = {}): Promise<void> {
    await this.turns.idle("export");
    await this.turns.ready("export");
    checkExport(options);
    if (this.adapters.size > 0)
      throw new StateError("export: the model has adapters; call merge() first, or save() the adapter alone.");
    refuseOwnModules(this.network, "export");
    const { parts } = this;
    const base =
      options.format === "gguf"
        ? await exportGguf(this.network, folder, options.dtype ?? "F16", { ...parts, eosIds: this.stopIds() })
        : await exportFolder(this.network, folder, { ...parts, eosIds: this.stopIds() }, options);
    if (parts.base === "") parts.base = base;
  }

  /** Saves the active adapter in PEFT's layout, with the tokenizer's files beside it. */
  async save(folder: string): Promise<void> {
    const info = this.active === undefined ? undefined : this.adapters.get(this.active);
    if (!info)
      throw new StateError(
        "save: the model has no adapter to save; call addLora first. (Modules of your own: saveParameters(model.module, file).)",
      );
    await saveAdapter(this.network, info, folder);
    const tokenizer = info.tokenizer ?? this.parts.tokenizer;
    if (tokenizer && !(tokenizer instanceof Error)) await tokenizer.save(folder);
  }

  /** Saves what `train` trains: the active adapter; the parameters of modules of one's own; else the whole model in float32. @internal */
  async saveTrained(folder: string): Promise<void> {
    if (this.active !== undefined || this.adapters.size > 0) await this.save(folder);
    else if (ownModules(this.network).length > 0) await saveOwn(this.network, folder);
    else await exportFolder(this.network, folder, { ...this.parts, eosIds: this.stopIds() });
  }

  /** adapter_config.json of the active adapter as `save` writes it: PEFT's LoraConfig by its names. @throws StateError without one. */
  adapterConfig(): Record<string, unknown> {
    const info = this.adapters.get(this.active ?? "");
    if (!info) throw new StateError("adapterConfig: the model has no active adapter; call addLora first.");
    return savedConfig(this.network, info);
  }

  /** How the active adapter was made. @internal */
  adapterSettings(): object | undefined {
    return this.active === undefined ? undefined : this.adapters.get(this.active)?.settings;
  }

  /** Frees all memory of the model. */
  dispose(): void {
    disposeBiases(this.network);
    this.network.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  private known(name: string): void {
    const names = [...this.adapters.keys()].join(", ") || "none";
    if (!this.adapters.has(name)) throw new ConfigError(`There is no adapter "${name}"; there are ${names}.`);
  }

  private unused(what: string, name: string): void {
    if (this.adapters.has(name))
      throw new ConfigError(`${what}: there is an adapter named "${name}" already; give another name.`);
  }
}

defineDisplay(
  Model,
  (model) => {
    const shown = model.summary();
    return { "text/html": shown.toHtml().toString(), "text/plain": shown.toText() };
  },
  (model) => model.summary().toText(),
);
