import { ConfigError, StateError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import type { KvCache, Rows } from "../nn/cache.js";
import { Linear, type LinearLike } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import type { FrozenWeight } from "../tensor/ops/frozen.js";
import type { Tensor } from "../tensor/tensor.js";
import { type CausalConfig, CausalLM, plainWeight } from "./causal.js";

/** Under this name transformers keeps the head of decoders, and PEFT saves it beside adapters. */
export const HEAD = "score";

/**
 * A decoder with a linear layer over its last hidden states that chooses one of several classes, as transformers' …ForSequenceClassification:
 * what counts is the output at a row's last token. It is a causal model whose "vocabulary" at the output are the classes; everything but
 * generation works on it as on others.
 */
export class SequenceClassifier extends CausalLM {
  declare score: LinearLike; // set last, so that it comes last
  readonly config: CausalConfig;
  readonly defaultTargets: readonly string[];
  override readonly labels: readonly string[];
  /** The output layer for tokens, which a decoder's checkpoint has and this model lacks. */
  readonly replaced: readonly string[];
  readonly #base: CausalLM;

  /** @param base A model without memory yet; its output layer for tokens is taken off. */
  constructor(base: CausalLM, labels: readonly string[]) {
    super();
    this.replaced = [`${base.headName || "lm_head"}.weight`];
    removeHead(base);
    this.config = { ...base.config, tied: false };
    this.defaultTargets = base.defaultTargets;
    this.labels = checkedLabels(labels);
    for (const [name, child] of Object.entries(base))
      if (child instanceof Module) (this as unknown as Record<string, Module>)[name] = child;
    const { initializer_range: std } = base.config.raw;
    this.score = new Linear(base.config.hiddenSize, labels.length, {
      bias: false,
      std: typeof std === "number" && std > 0 ? std : 0.02,
    });
    this.#base = base;
  }

  get headName(): string {
    return HEAD;
  }

  get tableName(): string {
    return this.#base.tableName;
  }

  override spellings(name: string): readonly string[] {
    return this.#base.spellings(name);
  }

  override ownName(spelling: string): string {
    return this.#base.ownName(spelling);
  }

  override denseParts(options?: { vision?: boolean }): string[] {
    return [HEAD, ...this.#base.denseParts(options)];
  }

  hidden(rows: Rows, cache?: KvCache): Tensor {
    return this.#base.hidden(rows, cache);
  }

  headWeight(): Tensor | FrozenWeight | undefined {
    return plainWeight(this.score);
  }

  // The head is nobody's table.
  separateHead(): void {}
  untied(): void {}
}

function removeHead(model: CausalLM): void {
  const path = model.headName.split(".");
  const name = path.pop();
  if (name === undefined || name === "") return; // tied: there is no layer of its own
  (model.module(path.join(".")) as unknown as Record<string, undefined>)[name] = undefined;
}

/** @throws ConfigError unless these are at least two different names. */
export function checkedLabels(labels: unknown): readonly string[] {
  const good =
    Array.isArray(labels) && labels.length > 1 && labels.every((label) => typeof label === "string" && label !== "");
  if (!good || new Set(labels).size < labels.length)
    throw new ConfigError(
      `loadModel: labels must name at least two different classes, received ${JSON.stringify(labels) ?? "none"}; give labels: ["…", "…"].`,
    );
  return labels;
}

/** Names of the classes that a checkpoint's own head chooses from; `undefined` where it has none. */
export function checkpointLabels(fields: ConfigFields): string[] | undefined {
  const architectures = fields.get("architectures");
  const names = Array.isArray(architectures) ? architectures : [];
  if (!names.some((name) => typeof name === "string" && /ForSequenceClassification$/.test(name))) return undefined;
  return labelNames(fields.get("id2label")) ?? numbered(fields.integer("num_labels", { default: 2, min: 1, max: 1e6 }));
}

/** The names of `id2label`, in order; `undefined` where it does not number names from 0. */
export function labelNames(id2label: unknown): string[] | undefined {
  if (typeof id2label !== "object" || id2label === null) return undefined;
  const names = Object.keys(id2label).map((_, i) => (id2label as Record<string, unknown>)[i]);
  return names.length > 0 && names.every((name) => typeof name === "string") ? (names as string[]) : undefined;
}

// As transformers calls classes that nobody named.
function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `LABEL_${i}`);
}

/** What config.json says of the head, in transformers' words. `pad_token_id` is needed there for more than one row at a time. */
export function headConfig(model: CausalLM, raw: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { labels } = model;
  if (!labels) return {};
  const given = Array.isArray(raw.architectures) ? String(raw.architectures[0]) : "LlamaForCausalLM";
  const end = [raw.eos_token_id].flat()[0];
  return {
    architectures: [given.replace(/For[A-Z]\w*$/, "") + "ForSequenceClassification"],
    id2label: Object.fromEntries(labels.entries()),
    label2id: Object.fromEntries(labels.map((label, i) => [label, i])),
    problem_type: "single_label_classification",
    pad_token_id: raw.pad_token_id ?? end ?? 0,
  };
}

/** @throws StateError for a model that gives classes where tokens are wanted. */
export function requireTokens(model: CausalLM, what: string): void {
  if (model.labels)
    throw new StateError(
      `${what}: this model has a head for the classes ${model.labels.join(", ")} and none for tokens. Use classify(…), or load it without task: "classification".`,
    );
}

/** The classes of a model. @throws StateError for a model that gives tokens where classes are wanted. */
export function requireClasses(model: CausalLM, what: string): readonly string[] {
  if (model.labels) return model.labels;
  throw new StateError(
    `${what}: this model has no head for classes. Load it with { task: "classification", labels: ["…", "…"] }.`,
  );
}
