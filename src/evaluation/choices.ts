import { exampleOf } from "../data/mask.js";
import { DataError } from "../errors.js";
import type { CausalLM } from "../models/causal.js";
import type { Classified } from "./classify.js";
import type { Evaluated, EvaluateOptions } from "./evaluate.js";
import { checkNormalize, comparable, keepEnd, largest, scoreExamples, shares } from "./score.js";

/** A question with the answers to choose from; each follows the prompt as it stands, so most begin with a space. */
export interface MultipleChoice {
  prompt: string;
  choices: readonly string[];
  /** Number of the right one, from 0, or its text. */
  answer: number | string;
}

/**
 * Multiple choice by likelihood: for each row the choice whose tokens are the likeliest continuation of the prompt, with `normalize` by length.
 * Nothing is generated, and no end of text is scored.
 *
 * @throws DataError for a row that is no such question.
 */
export async function multipleChoice(
  model: Evaluated,
  network: CausalLM,
  rows: readonly Record<string, unknown>[],
  options: EvaluateOptions,
  padId: number,
  onDone: (done: number) => void,
): Promise<Classified> {
  const { batch = 8, normalize = "none", signal } = options;
  checkNormalize(normalize);
  const { tokenizer } = model;
  const maxLength = Math.min(options.maxLength ?? network.config.maxPositions, network.config.maxPositions);
  const questions = rows.map((row, i) => questionOf(options.format ? options.format(row) : row, i));
  const columns: Record<string, unknown>[] = [];
  let right = 0;
  for (const [i, { prompt, choices, answer }] of questions.entries()) {
    const examples = choices.map((completion) =>
      keepEnd(
        exampleOf({ prompt, completion }, tokenizer, { appendEos: false }),
        maxLength,
        tokenizer.prefixIds.length,
      ),
    );
    const scores = await scoreExamples(network, examples, { batch, padId, signal });
    const own = scores.map((score, k) => comparable(score, choices[k]!, normalize));
    const best = largest(own);
    if (best === answer) right++;
    columns.push({
      actual: choices[answer]!.trim(),
      predicted: choices[best]!.trim(),
      correct: best === answer,
      confidence: shares(own)[best]!,
      scores: own,
    });
    onDone(i + 1);
  }
  return { values: { accuracy: right / rows.length }, columns };
}

function questionOf(row: unknown, index: number): { prompt: string; choices: string[]; answer: number } {
  const { prompt, choices, answer } = (row ?? {}) as Partial<Record<keyof MultipleChoice, unknown>>;
  // Lists of a data set are iterable, but no arrays.
  const list =
    typeof choices === "object" && choices !== null && Symbol.iterator in choices
      ? [...(choices as Iterable<unknown>)]
      : [];
  const fits = typeof prompt === "string" && list.length >= 2 && list.every((c) => typeof c === "string" && c !== "");
  const texts = list as string[];
  const at = typeof answer === "string" ? texts.findIndex((c) => c.trim() === answer.trim()) : Number(answer ?? -1);
  if (!fits || !Number.isInteger(at) || at < 0 || at >= texts.length)
    throw new DataError(
      `evaluate: row ${index} must give { prompt, choices, answer } for multiple choice: a text, two or more texts, and the right one's number from 0 or its text; use format: (row) => ({ … }).`,
    );
  return { prompt: prompt as string, choices: texts, answer: at };
}
