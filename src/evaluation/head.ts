/** Classification by a head: its output at the last token of each row. */
import { type ClassOptions, classifiedIds, tokenizeClasses } from "../data/classes.js";
import { collate } from "../data/collate.js";
import { isInterrupted, throwIfInterrupted } from "../display/host.js";
import { ConfigError } from "../errors.js";
import type { Message } from "../hub/chat.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { CausalLM } from "../models/causal.js";
import { requireClasses } from "../models/classifier.js";
import { embedding } from "../tensor/ops/loss.js";
import { noGrad } from "../tensor/record.js";
import { scope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import { classificationResult } from "./classification.js";
import type { Classified } from "./classify.js";
import type { EvaluateOptions } from "./evaluate.js";
import { rowsOf } from "./loss.js";
import { largest, shares } from "./score.js";

/** What a head makes of a text. */
export interface ClassPrediction {
  label: string;
  /** Of that label. */
  probability: number;
  /** Of each label; together 1. */
  probabilities: Record<string, number>;
  /** The head's output, in the order of the model's labels. */
  logits: number[];
}

/** Options of `model.classify`. */
export interface ClassifyOptions {
  /** Texts at a time, 8 by default. */
  batch?: number;
  /** Longer texts are cut at their end; what the model was made for by default. */
  maxLength?: number;
  signal?: AbortSignal;
}

/** The head's output for each row of ids. */
export async function headLogits(
  network: CausalLM,
  rows: readonly ArrayLike<number>[],
  options: { batch: number; signal?: AbortSignal | undefined; onDone?: ((done: number) => void) | undefined },
): Promise<number[][]> {
  const { batch, signal, onDone } = options;
  if (!Number.isInteger(batch) || batch < 1)
    throw new ConfigError(`classify: batch must be a whole number from 1, received ${String(batch)}.`);
  const found: number[][] = [];
  for (let at = 0; at < rows.length; at += batch) {
    if (isInterrupted(signal)) throwIfInterrupted("Classification", signal);
    const part = rows.slice(at, at + batch).map((ids) => Int32Array.from(ids));
    const b = collate(
      part.map((ids) => ({ ids, labels: ids })),
      { paddingSide: "none" },
    );
    const last = Int32Array.from(part, (ids, i) => b.sequences.begin[i]! + ids.length - 1);
    const y = scope(() =>
      noGrad(() => {
        const h = network.hidden(rowsOf(network, b)); // (tokens, hidden)
        return network.logits(embedding(h, tensor(last, { device: network.device }))); // (rows, classes)
      }),
    );
    const values = await y.data();
    y.dispose();
    const classes = values.length / part.length;
    part.forEach((_, i) => {
      found.push(Array.from(values.subarray(i * classes, (i + 1) * classes)));
    });
    onDone?.(found.length);
  }
  return found;
}

/** Classifies texts, or conversations. @throws StateError for a model without a head for classes. */
export async function classifyTexts(
  model: { readonly tokenizer: Tokenizer },
  network: CausalLM,
  texts: readonly (string | readonly Message[])[],
  options: ClassifyOptions,
): Promise<ClassPrediction[]> {
  const labels = requireClasses(network, "classify");
  const { batch = 8, signal } = options;
  const most = lengthLimit(network, options.maxLength);
  const rows = texts.map((text, i) => classifiedIds(text, `Text ${i} (from 0)`, model.tokenizer).slice(0, most));
  const all = await headLogits(network, rows, { batch, signal });
  return all.map((logits) => {
    const chances = shares(logits);
    const best = largest(logits);
    const probabilities = Object.fromEntries(labels.map((label, k) => [label, chances[k]!]));
    return { label: labels[best]!, probability: chances[best]!, probabilities, logits };
  });
}

/** The metric "classification" of a model with a head. @throws ConfigError for labels that are not the head's. */
export async function classifyByHead(
  model: { readonly tokenizer: Tokenizer },
  network: CausalLM,
  rows: readonly Record<string, unknown>[],
  options: EvaluateOptions,
  onDone: (done: number) => void,
): Promise<Classified> {
  const labels = requireClasses(network, "evaluate");
  const given = options.labels ?? labels;
  if (given.length !== labels.length || given.some((label) => !labels.includes(label)))
    throw new ConfigError(
      `evaluate: the model's head has the classes ${labels.join(", ")}, received labels ${given.join(", ")}; leave labels out.`,
    );
  if (options.by !== undefined)
    throw new ConfigError(`evaluate: a model with a classification head is not asked for texts; leave "by" out.`);
  const positive = options.positive === undefined ? labels.length - 1 : labels.indexOf(options.positive);
  if (positive < 0)
    throw new ConfigError(
      `evaluate: positive must be one of the labels ${labels.join(", ")}, received ${JSON.stringify(options.positive)}.`,
    );
  const { examples, classes } = await tokenizeClasses(rows, model.tokenizer, labels, classOptions(options, network));
  const { batch = 8, signal } = options;
  const logits = await headLogits(
    network,
    examples.map(({ ids }) => ids),
    { batch, signal, onDone },
  );
  const predicted = logits.map(largest);
  const { matrix, labels: names, ...rates } = classificationResult(labels, classes, predicted, positive);
  const columns = logits.map((own, i) => ({
    actual: labels[classes[i]!]!,
    predicted: labels[predicted[i]!]!,
    correct: predicted[i] === classes[i],
    confidence: shares(own)[predicted[i]!]!,
  }));
  return { values: { ...rates, confusion: { labels: names, matrix } }, columns };
}

/** How the rows of an evaluation are read for a head. */
export function classOptions(options: EvaluateOptions, network: CausalLM): ClassOptions {
  const { format, textField, maxLength } = options;
  return {
    maxLength: lengthLimit(network, maxLength),
    ...(textField === undefined ? {} : { textField }),
    ...(format === undefined ? {} : { format: format as (row: Record<string, unknown>) => unknown }),
  };
}

function lengthLimit(network: CausalLM, asked: number | undefined): number {
  const { maxPositions } = network.config;
  if (asked !== undefined && (!Number.isInteger(asked) || asked < 1))
    throw new ConfigError(`maxLength must be a whole number of tokens from 1, received ${String(asked)}.`);
  return Math.min(asked ?? maxPositions, maxPositions);
}
