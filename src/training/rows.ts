import { type ClassRows, requireClassesApart, tokenizeClasses } from "../data/classes.js";
import type { Format } from "../data/format.js";
import type { Example } from "../data/mask.js";
import { type Pair, tokenizePairs } from "../data/preference.js";
import { type TokenizeOptions, type TokenizeReport, tokenizeRows } from "../data/tokenize.js";
import { ConfigError } from "../errors.js";
import { pairExamples } from "../evaluation/preference.js";
import type { CausalLM } from "../models/causal.js";
import { requireClasses, requireTokens } from "../models/classifier.js";
import type { Objective } from "./objective.js";
import type { TrainSettings } from "./options.js";
import { PreferenceObjective } from "./preference.js";
import type { Trained } from "./run.js";

/** What the loop gets of a data set. */
export interface TrainingRows {
  train: Example[];
  /** Numbers of the examples that make a row (pairs); each makes its own by default. */
  groups?: Int32Array[];
  validation: Example[] | undefined;
  report: TokenizeReport;
  /** The method's loss, where it is not that of the trained tokens. */
  objective?: Objective;
}

/** Tokenises the rows of a run as its method reads them. */
export async function trainingRows(
  model: Pick<Trained, "tokenizer" | "withoutAdapter" | "adapterSettings">,
  network: CausalLM,
  data: Iterable<Record<string, unknown>>,
  s: TrainSettings,
  prepare: TokenizeOptions,
): Promise<TrainingRows> {
  const names = { train: "the training rows", validation: "the validation rows" };
  if (s.method === "classification") {
    const labels = requireClasses(network, 'train with method "classification"');
    const read = (rows: Iterable<Record<string, unknown>>, name: string): Promise<ClassRows> =>
      tokenizeClasses(rows, model.tokenizer, labels, { ...prepare, format: s.format, name });
    const { examples, classes, report } = await read(data, names.train);
    requireClassesApart(classes, labels, names.train);
    const held = s.validation && (await read(s.validation, names.validation)).examples;
    return { train: examples, validation: held, report };
  }
  requireTokens(network, `train with method "${s.method}" (method "classification" trains the head)`);
  if (s.method === "sft") {
    const { examples, report } = await tokenizeRows(data, model.tokenizer, { ...prepare, name: names.train });
    const held = s.validation
      ? await tokenizeRows(s.validation, model.tokenizer, { ...prepare, name: names.validation })
      : undefined;
    return { train: examples, validation: held?.examples, report };
  }
  const pairsOf = (rows: Iterable<Record<string, unknown>>, name: string): ReturnType<typeof tokenizePairs> =>
    tokenizePairs(rows, model.tokenizer, {
      ...prepare,
      format: s.format as Format | undefined,
      maxPromptLength: s.maxPromptLength,
      name,
    });
  if (s.method === "dpo" && (model.adapterSettings() as { init?: string } | undefined)?.init === "pissa")
    throw new ConfigError(
      'train: dpo compares with the model without its adapter, and init "pissa" has moved a part of the weights into the adapter. Use another init, or method "orpo".',
    );
  const train = await pairsOf(data, names.train);
  const held: Pair[] | undefined = s.validation && (await pairsOf(s.validation, names.validation)).pairs;
  const without = model.withoutAdapter.bind(model);
  const objective = new PreferenceObjective(network, s, train.pairs, held ?? [], without);
  await objective.prepare(without);
  return {
    train: pairExamples(train.pairs),
    groups: train.pairs.map((_, i) => Int32Array.of(2 * i, 2 * i + 1)),
    validation: held && pairExamples(held),
    report: train.report,
    objective,
  };
}
