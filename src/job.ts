/** A training job that one JSON describes: `tunebook train CONFIG.json`, or `TrainJob` in a program. */
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { type Dataset, loadDataset } from "./data/dataset.js";
import type { LoadDatasetOptions } from "./data/dataset-load.js";
import { describeReport, tokenizeRows } from "./data/tokenize.js";
import { table } from "./display/table.js";
import { ConfigError } from "./errors.js";
import type { Metrics } from "./evaluation/metrics.js";
import { isObject, type JsonObject, parseStrict } from "./hub/json.js";
import { checkJob, type JobConfig, type JobData, withSettings } from "./job-config.js";
import { templateFormat } from "./job-format.js";
import type { Model } from "./model.js";
import { type LoadPlan, loadModel } from "./plan.js";
import { planRun } from "./training/loop.js";
import { ofPairs, type TrainOptions, trainSettings } from "./training/options.js";
import type { TrainResult, TrainRun } from "./training/run.js";

/** How a job is run. */
export interface JobOptions {
  /** Stops at once; what was trained so far is saved where that can be done. */
  signal?: AbortSignal;
  /** Called when training begins: `run.stop()` ends it after the step. */
  onRun?: (run: TrainRun) => void;
  /** Called with what there is to say, line by line. */
  say?: (text: string) => void;
}

/** What a job gives. */
export interface JobResult {
  training: TrainResult;
  before: Metrics | undefined;
  after: Metrics | undefined;
}

interface JobRows {
  train: Dataset;
  validation: Dataset | undefined;
  test: Dataset | undefined;
}

/** A checked job. Nothing is loaded before `run` or `plan`. */
export class TrainJob {
  readonly config: JobConfig;

  /** @throws ConfigError for what is unknown or cannot be, before anything is loaded. */
  constructor(config: unknown) {
    this.config = checkJob(config);
  }

  /**
   * Reads a job.
   * @param settings values put into it, as "train.lr=1e-4"; checkpoints go to `runs/NAME` unless `train.output` says otherwise.
   * @throws ConfigError naming the file.
   */
  static async fromFile(file: string, settings: readonly string[] = []): Promise<TrainJob> {
    let given: JsonObject;
    try {
      given = parseStrict(await readFile(file, "utf8")) as JsonObject;
    } catch (cause) {
      throw new ConfigError(`${file} cannot be read: ${(cause as Error).message}.`, { cause });
    }
    try {
      const config = withSettings(given, settings);
      const output = join("runs", basename(file).replace(/\.json$/i, ""));
      const train = config.train ?? {};
      return new TrainJob({ ...config, train: isObject(train) ? { output, ...train } : train });
    } catch (cause) {
      if (cause instanceof ConfigError) throw new ConfigError(`${file}: ${cause.message}`, { cause });
      throw cause;
    }
  }

  /** Loads, trains, measures and saves. A run that was stopped is neither measured nor exported: it goes on with `train.resume`. */
  async run(options: JobOptions = {}): Promise<JobResult> {
    const { signal, onRun, say = () => {} } = options;
    const { evaluate, save } = this.config;
    const rows = await this.rows();
    say(counted(rows));
    const stop = signal === undefined ? {} : { signal };
    using model = await this.adapted(this.load(stop));
    say(`${model.name} on ${model.device}: ${model.trainable()}`);
    const held = rows.test ?? rows.validation;
    const measure = async (): Promise<Metrics | undefined> =>
      evaluate && held ? await model.evaluate(held, { ...evaluate, ...this.format(), ...stop }) : undefined;
    // A run that goes on was measured when it began.
    const before = this.config.train?.resume ? undefined : await measure();
    const run = model.train(rows.train, { ...this.trainOptions(rows), ...stop });
    onRun?.(run);
    const training = await run;
    say(training.toTable().toText());
    if (training.ended === "stopped") return { training, before, after: undefined };
    const after = await measure();
    if (after) say(compared(before, after));
    if (save?.adapter !== undefined) {
      await model.saveTrained(save.adapter);
      say(`saved in ${save.adapter}`);
    }
    if (save?.export) {
      const { folder, ...how } = save.export;
      if (this.config.addLora || this.config.loadAdapter) await model.merge();
      await model.export(folder, how);
      say(`exported to ${folder}`);
    }
    return { training, before, after };
  }

  /** What the job would do, and the memory that a step would take, in words; the model is loaded without its weights. */
  async plan(): Promise<string> {
    const rows = await this.rows();
    const { addLora, loadAdapter, train = {} } = this.config;
    let plan = this.load({ weights: "none" });
    // What an adapter begins with does not change its size.
    const { init: _, loftq: __, ...lora } = addLora ?? { rank: 0 };
    if (addLora) plan = plan.addLora(lora);
    using model = await plan;
    const settings = trainSettings(this.trainOptions(rows));
    const { steps, stepsPerEpoch, warmup } = planRun(rows.train.length, settings);
    const about = settings.packing ? "at most " : "";
    const lines = [
      counted(rows),
      `${model.name}: ${model.trainable()}`,
      ...(loadAdapter === undefined ? [] : ["(the adapter that is loaded is not counted)"]),
      `${about}${steps} steps of ${settings.batch * settings.accumulate} rows, ${stepsPerEpoch} an epoch, ${warmup} of warmup; checkpoints in ${train.output ?? "no folder"}`,
    ];
    if (settings.method === "sft") lines.push(await this.tokens(rows.train, model, settings.maxLength));
    const estimate = model.estimate(this.trainOptions(rows));
    return [...lines, "", estimate.toTable().toText(), ...(ofPairs(settings.method) ? [] : [estimate.advice()])].join(
      "\n",
    );
  }

  private async tokens(rows: Dataset, model: Model, maxLength = model.config.maxPositions): Promise<string> {
    const some = rows.head(200);
    const { textField } = this.config.train ?? {};
    const { report } = await tokenizeRows(some, model.tokenizer, {
      maxLength: Math.min(maxLength, model.config.maxPositions),
      sight: model.module.sight,
      name: "data.train",
      ...(textField === undefined ? {} : { textField }),
      ...(this.format() as { format?: never }),
    });
    const mean = Math.round(report.tokens / report.kept);
    return `the first ${some.length} rows: ${mean} tokens on average, ${report.longest} in the longest, ${Math.round(report.trained / report.kept)} of them trained. ${describeReport(report, maxLength)}`.trim();
  }

  private load(more: { signal?: AbortSignal; weights?: "none" }): LoadPlan {
    const { model, quantize } = this.config;
    const { id, ...options } = typeof model === "string" ? { id: model } : model;
    const plan = loadModel(id, { ...options, ...more });
    return quantize ? plan.quantize(quantize) : plan;
  }

  private adapted(plan: LoadPlan): LoadPlan {
    const { addLora, loadAdapter } = this.config;
    if (loadAdapter !== undefined) {
      const { id, ...options } = typeof loadAdapter === "string" ? { id: loadAdapter } : loadAdapter;
      plan.loadAdapter(id, options);
    }
    return addLora ? plan.addLora(addLora) : plan;
  }

  private async rows(): Promise<JobRows> {
    const { train, validation, test, split, rows } = this.config.data;
    const load = (data: JobData | undefined): Promise<Dataset> | undefined => {
      if (data === undefined) return undefined;
      if (typeof data === "string") return loadDataset(data);
      const { path, ...options } = data;
      return loadDataset(path, options as LoadDatasetOptions);
    };
    const whole = (await load(train))!;
    const parts = split ? whole.split(split) : { train: whole, validation: undefined, test: undefined };
    const some = (part: Dataset | undefined): Dataset | undefined => (part && part.length > 0 ? part : undefined);
    return {
      train: rows === undefined ? parts.train : parts.train.head(rows),
      validation: (await load(validation)) ?? some(parts.validation),
      test: (await load(test)) ?? some(parts.test),
    };
  }

  private trainOptions(rows: JobRows): TrainOptions {
    const validation = rows.validation as Iterable<Record<string, unknown>> | undefined;
    return { ...this.config.train, ...this.format(), ...(validation ? { validation } : {}) };
  }

  private format(): { format?: (row: Record<string, unknown>) => unknown } {
    const { format } = this.config.data;
    return format === undefined ? {} : { format: templateFormat(format) };
  }
}

function counted({ train, validation, test }: JobRows): string {
  const parts = [`${train.length} rows to train on`];
  if (validation) parts.push(`${validation.length} to watch`);
  if (test) parts.push(`${test.length} to measure on`);
  return parts.join(", ");
}

function compared(before: Metrics | undefined, after: Metrics): string {
  const numbers = after.numbers();
  if (before === undefined) return table(["metric", "value"], numbers, { title: "Evaluation" }).toText();
  const first = new Map(before.numbers());
  return table(
    ["metric", "before", "after"],
    numbers.map(([name, value]) => [name, first.get(name) ?? null, value]),
    { title: "Evaluation" },
  ).toText();
}
