import { type Format, type Formatted, formatter } from "../data/format.js";
import { refuseImages } from "../data/images.js";
import { exampleOf } from "../data/mask.js";
import { ConfigError, DataError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import { classificationResult } from "./classification.js";
import type { Evaluated, EvaluateOptions } from "./evaluate.js";
import type { Metrics } from "./metrics.js";
import { checkNormalize, comparable, keepEnd, largest, scoreExamples, shares } from "./score.js";

/** A row whose answer is one of the labels. */
interface Question {
  /** The row with another answer in the place of its own. */
  answered: (label: string) => Formatted;
  /** Ids to generate from. */
  ids: () => number[];
  answer: string;
}

/** What classification gives: values for the metrics, and columns for their rows. */
export interface Classified {
  values: Partial<Metrics>;
  columns: Record<string, unknown>[];
}

/** The name of answers that are none of the labels, in the matrix. */
const OTHER = "(other)";

/**
 * Chooses a label for each row: the likeliest one (by the log-probability of its tokens and of the end of text after it), or the one that a
 * generated answer names first.
 *
 * @throws DataError for a row without an answer, or with one that is no label. @throws ConfigError for labels that cannot be.
 */
export async function classify(
  model: Evaluated,
  network: CausalLM,
  rows: readonly Record<string, unknown>[],
  options: EvaluateOptions,
  padId: number,
  onDone: (done: number) => void,
): Promise<Classified> {
  const { by = "likelihood", normalize = "none" } = options;
  checkNormalize(normalize);
  if (by !== "likelihood" && by !== "generation")
    throw new ConfigError(`evaluate: by must be "likelihood" or "generation", received ${JSON.stringify(by)}.`);
  const questions: Question[] = [];
  for (const [i, row] of rows.entries()) questions.push(await questionOf(row, i, model, options));
  const labels = options.labels ?? [...new Set(questions.map((q) => q.answer))].sort();
  if (labels.length < 2 || new Set(labels.map((l) => l.trim())).size < labels.length)
    throw new ConfigError(
      `evaluate: classification needs at least two different labels, received ${labels.join(", ") || "none"}; give labels: ["…", "…"].`,
    );
  const truth = questions.map(({ answer }, i) => {
    const k = labels.findIndex((l) => l.trim() === answer);
    if (k < 0)
      throw new DataError(
        `evaluate: row ${i} has the completion ${JSON.stringify(answer)}, which is none of the labels ${labels.join(", ")}.`,
      );
    return k;
  });
  const positive = options.positive === undefined ? labels.length - 1 : labels.indexOf(options.positive);
  if (positive < 0)
    throw new ConfigError(
      `evaluate: positive must be one of the labels ${labels.join(", ")}, received ${JSON.stringify(options.positive)}.`,
    );
  const found =
    by === "likelihood"
      ? await byLikelihood(model, network, questions, labels, options, padId, onDone)
      : await byGeneration(model, questions, labels, options, onDone);
  const { matrix, labels: names, ...rates } = classificationResult(labels, truth, found.predicted, positive, OTHER);
  const columns = found.columns.map((column, i) => {
    const k = found.predicted[i]!;
    return { actual: labels[truth[i]!]!, predicted: labels[k] ?? OTHER, correct: k === truth[i], ...column };
  });
  return { values: { ...rates, confusion: { labels: names, matrix } }, columns };
}

interface Found {
  /** Numbers of labels, -1 for none. */
  predicted: number[];
  columns: Record<string, unknown>[];
}

async function byLikelihood(
  model: Evaluated,
  network: CausalLM,
  questions: readonly Question[],
  labels: readonly string[],
  options: EvaluateOptions,
  padId: number,
  onDone: (done: number) => void,
): Promise<Found> {
  const { batch = 8, normalize = "none", signal } = options;
  const { tokenizer } = model;
  const maxLength = Math.min(options.maxLength ?? network.config.maxPositions, network.config.maxPositions);
  const found: Found = { predicted: [], columns: [] };
  for (let at = 0; at < questions.length; at += batch) {
    const part = questions.slice(at, at + batch);
    const examples = part.flatMap(({ answered }) =>
      labels.map((l) => keepEnd(exampleOf(answered(l.trim()), tokenizer), maxLength, tokenizer.prefixIds.length)),
    );
    const scores = await scoreExamples(network, examples, { batch, padId, signal });
    part.forEach((_, i) => {
      const own = labels.map((l, k) => comparable(scores[i * labels.length + k]!, l.trim(), normalize));
      const best = largest(own);
      found.predicted.push(best);
      found.columns.push({ confidence: shares(own)[best]! });
    });
    onDone(Math.min(questions.length, at + batch));
  }
  return found;
}

async function byGeneration(
  model: Evaluated,
  questions: readonly Question[],
  labels: readonly string[],
  options: EvaluateOptions,
  onDone: (done: number) => void,
): Promise<Found> {
  const prompts = questions.map((q) => q.ids());
  // Enough for every label, and for a word or two before it.
  const longest = labels.reduce((n, l) => Math.max(n, model.tokenizer.encode(l).length), 1);
  const texts = await model.generateIds(prompts, { maxNewTokens: longest + 8, ...options, onDone });
  return {
    predicted: texts.map((text) => labelIn(text, labels)),
    columns: texts.map((text) => ({ generated: text.trim() })),
  };
}

/** Number of the label that a text names first, the longest of those that begin at one place; -1 for none. Case does not count. */
export function labelIn(text: string, labels: readonly string[]): number {
  const lower = text.toLowerCase();
  let best = -1;
  let place = Number.POSITIVE_INFINITY;
  labels.forEach((label, k) => {
    const wanted = label.trim().toLowerCase();
    const at = wordIn(lower, wanted);
    const longer = best >= 0 && wanted.length > labels[best]!.trim().length;
    if (at >= 0 && (at < place || (at === place && longer))) [best, place] = [k, at];
  });
  return best;
}

// "ham" is not in "shame"; scripts without spaces between words have no such edges.
function wordIn(text: string, word: string): number {
  const letter = /[\p{Script=Latin}\p{Script=Cyrillic}\p{Script=Greek}\p{N}_]/u;
  const joined = (a: string | undefined, b: string | undefined): boolean =>
    a !== undefined && b !== undefined && letter.test(a) && letter.test(b);
  for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
    const end = at + word.length;
    if (!joined(text[at - 1], text[at]) && !joined(text[end - 1], text[end])) return at;
  }
  return -1;
}

async function questionOf(
  row: Record<string, unknown>,
  index: number,
  { tokenizer }: Evaluated,
  options: EvaluateOptions,
): Promise<Question> {
  const own = typeof row?.prompt === "string" && typeof row?.completion === "string";
  const read = options.format ? formatter({ format: options.format as Format }) : own ? undefined : formatter({});
  const formatted = read ? await read(row, index) : (row as unknown as Formatted);
  if (typeof formatted === "object" && "prompt" in formatted) {
    const { prompt, completion } = formatted;
    const answer = completion.trim();
    return {
      // The row's own spacing around the completion is kept for every label.
      answered: (label) => ({ prompt, completion: completion.replace(answer, () => label) }),
      ids: () => tokenizer.encode(prompt, { addSpecialTokens: "before" }),
      answer,
    };
  }
  const messages = typeof formatted === "object" && "at" in formatted ? formatted : [];
  const last = messages.at(-1);
  if (last?.role === "assistant" && messages.length > 1) {
    const before = messages.slice(0, -1);
    refuseImages(before, `evaluate: row ${index}: classification`);
    return {
      answered: (label) => [...before, { ...last, content: label }],
      ids: () => tokenizer.encodeChat(before, { addGenerationPrompt: true }),
      answer: String(last.content).trim(),
    };
  }
  throw new DataError(
    `evaluate: row ${index} must give { prompt, completion } as text, or messages that end with the assistant's, for this metric; use format: (row) => ({ prompt: …, completion: … }).`,
  );
}
