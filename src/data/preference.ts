/** Pairs of answers, one of them preferred, as ids with labels: what orpo and dpo train on. */
import { DataError } from "../errors.js";
import type { Message } from "../hub/chat.js";
import { describe } from "../hub/json.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { FormatOptions, Row } from "./format.js";
import { refuseImages } from "./images.js";
import { type Example, exampleOf, exampleOfTurns, IGNORED, type MaskOptions, trainedTargets } from "./mask.js";
import { checkLength, paced, type Rows, type TokenizeOptions, type TokenizeReport, tooLong } from "./tokenize.js";

/** Two answers to one prompt, as texts or as messages. Without `prompt` it is the messages that both conversations begin with. */
export interface Preference {
  prompt?: string | readonly Message[];
  chosen: string | readonly Message[];
  rejected: string | readonly Message[];
}

/** A tokenised pair. Only the answers are labelled. */
export interface Pair {
  chosen: Example;
  rejected: Example;
}

/** How pairs are tokenised. */
export interface PairOptions extends Omit<TokenizeOptions, keyof FormatOptions>, MaskOptions {
  format?: ((row: Row, index: number) => unknown) | undefined;
  /** Longest prompt in tokens: of a longer one the end is kept, behind its BOS. Default no limit. */
  maxPromptLength?: number | undefined;
}

/**
 * Tokenises rows { prompt, chosen, rejected }. The prompt's ids are the same for both answers: those that it has alone, as at inference. Longer
 * pairs are cut as TRL cuts them: first the prompt on its left (maxPromptLength), then each answer on its right, so that prompt and answer
 * have maxLength tokens together; a pair whose prompt leaves no room for an answer is left out.
 *
 * @throws DataError for no rows, a row that cannot be read, an overlong one with `overlong: "error"`, or when no pair is left.
 */
export async function tokenizePairs(
  rows: Rows,
  tokenizer: Tokenizer,
  options: PairOptions = {},
): Promise<{ pairs: Pair[]; report: TokenizeReport }> {
  const { maxLength = Number.POSITIVE_INFINITY, overlong = "truncate", name = "the data set" } = options;
  const { maxPromptLength = Number.POSITIVE_INFINITY } = options;
  checkLength(maxLength, overlong);
  const pairs: Pair[] = [];
  const report = { rows: 0, kept: 0, truncated: 0, dropped: 0, untrained: 0, tokens: 0, trained: 0, longest: 0 };
  for await (const [row, index] of paced(rows, name, options)) {
    report.rows++;
    const whole = await readPair(row as Row, index, name, tokenizer, options);
    const length = Math.max(whole.chosen.ids.length, whole.rejected.ids.length);
    report.longest = Math.max(report.longest, length);
    const longPrompt = promptLength(whole.chosen) > maxPromptLength;
    const pair = longPrompt ? bothOf(whole, (e) => cutPrompt(e, maxPromptLength, tokenizer.bosId)) : whole;
    const left = Math.max(pair.chosen.ids.length, pair.rejected.ids.length);
    if (left > maxLength && overlong === "error") throw tooLong(index, name, left, maxLength);
    if (left > maxLength && overlong === "drop") {
      report.dropped++;
      continue;
    }
    const cut = left > maxLength ? bothOf(pair, (e) => cutEnd(e, maxLength)) : pair;
    const trained = [trainedTargets(cut.chosen), trainedTargets(cut.rejected)] as const;
    if (trained[0] === 0 || trained[1] === 0) {
      report.untrained++;
      continue;
    }
    pairs.push(cut);
    report.kept++;
    report.truncated += cut === whole ? 0 : 1;
    report.tokens += cut.chosen.ids.length + cut.rejected.ids.length;
    report.trained += trained[0] + trained[1];
  }
  if (pairs.length === 0) throw nothingLeft(name, report, maxLength);
  return { pairs, report };
}

/** Tokens before the first labelled one. */
export function promptLength({ labels }: Example): number {
  const first = labels.findIndex((label) => label !== IGNORED);
  return first < 0 ? labels.length : first;
}

function bothOf({ chosen, rejected }: Pair, change: (example: Example) => Example): Pair {
  return { chosen: change(chosen), rejected: change(rejected) };
}

function cutEnd({ ids, labels }: Example, length: number): Example {
  return { ids: ids.slice(0, length), labels: labels.slice(0, length) };
}

function cutPrompt(example: Example, most: number, bos: number | undefined): Example {
  const { from, to } = promptCut(example, most, bos);
  const without = (ids: Int32Array): Int32Array => Int32Array.of(...ids.subarray(0, from), ...ids.subarray(to));
  return { ids: without(example.ids), labels: without(example.labels) };
}

/** The tokens that a prompt loses where it may have `most`: those from `from` up to `to`, both 0 for none. */
export function promptCut(example: Example, most: number, bos: number | undefined): { from: number; to: number } {
  const prompt = promptLength(example);
  if (prompt <= most) return { from: 0, to: 0 };
  const from = bos !== undefined && example.ids[0] === bos ? 1 : 0; // a model has seen no text without it
  return { from, to: prompt - (most - from) };
}

/** A row as a pair of examples, before anything is cut. @throws DataError for one that cannot be read. */
export async function readPair(
  row: Row,
  index: number,
  name: string,
  tokenizer: Tokenizer,
  options: Pick<PairOptions, "format"> & MaskOptions,
): Promise<Pair> {
  const given = options.format ? await options.format(row, index) : row;
  const { prompt, chosen, rejected } = checked(given, index, name);
  const one = (answer: string | readonly Message[]): Example => {
    if (typeof prompt === "string") return exampleOf({ prompt, completion: answer as string }, tokenizer, options);
    for (const turns of [prompt, answer as readonly Message[]])
      refuseImages(turns, `Row ${index} of ${name}: training on pairs`);
    return exampleOfTurns(prompt, answer as readonly Message[], tokenizer);
  };
  const pair = { chosen: one(chosen), rejected: one(rejected) };
  const length = promptLength(pair.chosen);
  const same = length === promptLength(pair.rejected);
  if (!same || pair.chosen.ids.subarray(0, length).some((id, i) => id !== pair.rejected.ids[i]))
    throw new DataError(
      `Row ${index} of ${name}: the chat template writes the prompt differently before the two answers. Give a format that returns { prompt, chosen, rejected } as texts.`,
    );
  return pair;
}

/** The three parts: all texts, or all lists of messages. */
function checked(given: unknown, index: number, name: string): Required<Preference> {
  const fail = (what: string): DataError =>
    new DataError(
      `Row ${index} of ${name} should be { prompt, chosen, rejected }, all texts or all lists of messages: ${what}. Give format: (row) => ({ prompt: …, chosen: …, rejected: … }).`,
    );
  if (typeof given !== "object" || given === null) throw fail(`it is ${describe(given)}`);
  const { prompt, chosen, rejected } = given as Partial<Preference>;
  for (const [field, value] of Object.entries({ chosen, rejected }))
    if (typeof value !== "string" && !isList(value)) throw fail(`"${field}" is ${describe(value)}`);
  if (typeof prompt === "string" && typeof chosen === "string" && typeof rejected === "string")
    return { prompt, chosen, rejected };
  if (!isList(chosen) || !isList(rejected) || (prompt !== undefined && prompt !== null && !isList(prompt)))
    throw fail(`"prompt" is ${describe(prompt)}, "chosen" ${describe(chosen)}, "rejected" ${describe(rejected)}`);
  // Nested lists of Arrow are iterable, but no arrays.
  const [better, worse] = [[...chosen], [...rejected]];
  if (prompt) return { prompt: [...prompt], chosen: better, rejected: worse };
  let common = 0;
  while (common < Math.min(better.length, worse.length) - 1 && sameMessage(better[common]!, worse[common]!)) common++;
  return { prompt: better.slice(0, common), chosen: better.slice(common), rejected: worse.slice(common) };
}

function isList(value: unknown): value is readonly Message[] {
  return typeof value === "object" && value !== null && Symbol.iterator in value;
}

function sameMessage(a: Message, b: Message): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function nothingLeft(name: string, report: TokenizeReport, maxLength: number): DataError {
  if (report.rows === 0)
    return new DataError(`There is nothing to train on: ${name} has no rows. Check its path, split or filter.`);
  return new DataError(
    `There is nothing to train on: of ${report.rows} pairs of ${name} ${report.dropped} are longer than maxLength ${maxLength}, and ${report.untrained} have an answer without a token left (the longest row has ${report.longest} tokens). Raise maxLength, give maxPromptLength, or check that the answers are not empty.`,
  );
}
