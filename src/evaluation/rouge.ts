/** ROUGE (Lin 2004) as Google's rouge_score computes it, with which papers on summaries report. */
import { porterStem } from "./porter.js";

/** One kind of overlap; all from 0 to 1. */
export interface RougeScore {
  /** Share of the prediction that the reference has. */
  precision: number;
  /** Share of the reference that the prediction has. */
  recall: number;
  /** Harmonic mean of both. */
  f1: number;
}

/** Overlap of single words, of pairs, of the longest common subsequence, and of those of all lines of a text with several. */
export type RougeName = "rouge1" | "rouge2" | "rougeL" | "rougeLsum";

/** How words are compared. */
export interface RougeOptions {
  /** Compare stems instead of words (rouge_score's `use_stemmer`); default false. */
  stemmer?: boolean;
}

/** The words of a text: lower case, runs of a–z and 0–9; with a stemmer, words of more than three letters are reduced to their stem. */
export function rougeTokens(text: string, options: RougeOptions = {}): string[] {
  const words = text.toLowerCase().match(/[a-z0-9]+/g) ?? [];
  return options.stemmer ? words.map((word) => (word.length > 3 ? porterStem(word) : word)) : words;
}

/**
 * Scores of a prediction against one reference, or several: then each score is that of the reference with the highest F1, as in
 * rouge_score's `score_multi`. For rougeLsum, lines are sentences.
 */
export function rouge(
  prediction: string,
  references: string | readonly string[],
  options: RougeOptions = {},
): Record<RougeName, RougeScore> {
  const list = typeof references === "string" ? [references] : references;
  const [first, ...others] = list.map((reference) => against(prediction, reference, options));
  if (first === undefined) throw new RangeError("rouge: expected at least one reference.");
  for (const other of others) {
    for (const name of Object.keys(first) as RougeName[])
      if (other[name].f1 > first[name].f1) first[name] = other[name];
  }
  return first;
}

function against(prediction: string, reference: string, options: RougeOptions): Record<RougeName, RougeScore> {
  const predicted = rougeTokens(prediction, options);
  const expected = rougeTokens(reference, options);
  const lines = (text: string): string[][] =>
    text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => rougeTokens(line, options));
  const common = table(expected, predicted).at(-1)!;
  return {
    rouge1: ngrams(expected, predicted, 1),
    rouge2: ngrams(expected, predicted, 2),
    rougeL: score(common, expected.length, predicted.length),
    rougeLsum: summary(lines(reference), lines(prediction)),
  };
}

function score(hits: number, expected: number, predicted: number): RougeScore {
  const precision = hits / Math.max(predicted, 1);
  const recall = hits / Math.max(expected, 1);
  return { precision, recall, f1: precision + recall > 0 ? (2 * precision * recall) / (precision + recall) : 0 };
}

function ngrams(expected: readonly string[], predicted: readonly string[], n: number): RougeScore {
  const grams = (words: readonly string[]): string[] =>
    Array.from({ length: Math.max(0, words.length - n + 1) }, (_, i) => words.slice(i, i + n).join(" "));
  const wanted = grams(expected);
  const given = grams(predicted);
  const left = counts(given);
  let hits = 0;
  for (const gram of wanted) if (take(left, gram)) hits++;
  return score(hits, wanted.length, given.length);
}

/** Lengths of the longest common subsequences of all beginnings: (expected + 1) · (predicted + 1), row-major. */
function table(expected: readonly string[], predicted: readonly string[]): Int32Array {
  const width = predicted.length + 1;
  const lengths = new Int32Array((expected.length + 1) * width);
  for (let i = 1; i <= expected.length; i++) {
    for (let j = 1; j < width; j++) {
      const at = i * width + j;
      lengths[at] =
        expected[i - 1] === predicted[j - 1]
          ? lengths[at - width - 1]! + 1
          : Math.max(lengths[at - width]!, lengths[at - 1]!);
    }
  }
  return lengths;
}

/** Which words of `expected` are in one of the longest common subsequences: the one that rouge_score's backtracking finds. */
function markCommon(expected: readonly string[], predicted: readonly string[], marks: boolean[]): void {
  const width = predicted.length + 1;
  const lengths = table(expected, predicted);
  for (let i = expected.length, j = predicted.length; i > 0 && j > 0; ) {
    if (expected[i - 1] === predicted[j - 1]) {
      marks[--i] = true;
      j--;
    } else if (lengths[i * width + j - 1]! > lengths[(i - 1) * width + j]!) j--;
    else i--;
  }
}

/** Section 3.2 of the paper: each line of the reference with the union over the prediction's lines; no word counts twice. */
function summary(expected: readonly string[][], predicted: readonly string[][]): RougeScore {
  const leftExpected = counts(expected.flat());
  const leftPredicted = counts(predicted.flat());
  let hits = 0;
  for (const line of expected) {
    const marks = line.map(() => false);
    for (const other of predicted) markCommon(line, other, marks);
    for (const [i, word] of line.entries()) {
      if (!marks[i] || !leftExpected.get(word) || !take(leftPredicted, word)) continue;
      take(leftExpected, word);
      hits++;
    }
  }
  const size = (lines: readonly string[][]): number => lines.reduce((n, line) => n + line.length, 0);
  return score(hits, size(expected), size(predicted));
}

function counts(words: readonly string[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const word of words) found.set(word, (found.get(word) ?? 0) + 1);
  return found;
}

/** Takes one away; false when there is none left. */
function take(left: Map<string, number>, word: string): boolean {
  const n = left.get(word) ?? 0;
  if (n > 0) left.set(word, n - 1);
  return n > 0;
}
