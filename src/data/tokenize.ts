/** A whole data set to examples: formatted, tokenised, masked, brought to length, and counted. */
import { setImmediate as turn } from "node:timers/promises";
import { ConfigError, DataError, InterruptedError } from "../errors.js";
import { describe } from "../hub/json.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { Sight } from "../images/patches.js";
import { type FormatOptions, formatter, type Row } from "./format.js";
import { beginningOf, exampleWithImages, showsImages } from "./images.js";
import { describeMask, type Example, exampleOf, type MaskOptions, trainedTargets } from "./mask.js";

/** Rows by number, as a data set or an array has them, or one after another. */
export type Rows = { readonly length: number; at(index: number): unknown } | Iterable<unknown> | AsyncIterable<unknown>;

/** How a data set is tokenised. */
export interface TokenizeOptions extends FormatOptions, MaskOptions {
  /** Longest example in tokens; default no limit. */
  maxLength?: number;
  /** What becomes of longer ones: cut at the end (default), left out, or an error. */
  overlong?: "truncate" | "drop" | "error";
  /** What the rows are called in messages, such as "train". */
  name?: string;
  /** How the model takes images that messages show; without it they are an error. */
  sight?: Sight | undefined;
  /** Stops between rows. */
  signal?: AbortSignal;
  /** Called now and then with the rows done, and all of them where that is known. */
  onProgress?: (done: number, total: number | undefined) => void;
}

/** What became of the rows. */
export interface TokenizeReport {
  /** Rows that came. */
  rows: number;
  /** Examples made. */
  kept: number;
  /** Of the kept, those that were cut to maxLength. */
  truncated: number;
  /** Left out because they were longer than maxLength. */
  dropped: number;
  /** Left out because no token of theirs is trained. */
  untrained: number;
  /** Tokens of the kept examples. */
  tokens: number;
  /** Targets of the kept examples. */
  trained: number;
  /** The longest row in tokens, before it was cut. */
  longest: number;
}

/**
 * Tokenises rows; `indices` are the numbers of the rows that the examples came from. Gives the event loop a turn every few hundredths of a second.
 *
 * @throws DataError for no rows, a row that cannot be read, a row over maxLength with `overlong: "error"`, or when no row has a trained token.
 * @throws InterruptedError when the signal is given.
 */
export async function tokenizeRows(
  rows: Rows,
  tokenizer: Tokenizer,
  options: TokenizeOptions = {},
): Promise<{ examples: Example[]; indices: number[]; report: TokenizeReport }> {
  const { maxLength = Number.POSITIVE_INFINITY, overlong = "truncate", name = "the data set" } = options;
  checkLength(maxLength, overlong);
  const read = formatter(options);
  const examples: Example[] = [];
  const indices: number[] = [];
  const report: TokenizeReport = {
    rows: 0,
    kept: 0,
    truncated: 0,
    dropped: 0,
    untrained: 0,
    tokens: 0,
    trained: 0,
    longest: 0,
  };
  let firstUntrained: Example | undefined;
  for await (const [row, index] of paced(rows, name, options)) {
    report.rows++;
    const given = read(row as Row, index);
    const formatted = given instanceof Promise ? await given : given;
    let example = showsImages(formatted)
      ? await exampleWithImages(formatted, row, options.sight, `Row ${index} of ${name}`, (text) =>
          exampleOf(text, tokenizer, options),
        )
      : exampleOf(formatted, tokenizer, options);
    report.longest = Math.max(report.longest, example.ids.length);
    const long = example.ids.length > maxLength;
    if (long && overlong === "error") throw tooLong(index, name, example.ids.length, maxLength);
    if (long && overlong === "drop") report.dropped++;
    else {
      if (long) example = beginningOf(example, maxLength, options.sight?.imageToken ?? -1, `Row ${index} of ${name}`);
      const trained = trainedTargets(example);
      if (trained === 0) {
        report.untrained++;
        firstUntrained ??= example;
      } else {
        examples.push(example);
        indices.push(index);
        report.kept++;
        report.truncated += long ? 1 : 0;
        report.tokens += example.ids.length;
        report.trained += trained;
      }
    }
  }
  if (examples.length === 0) throw nothingLeft(name, report, firstUntrained, tokenizer, maxLength);
  return { examples, indices, report };
}

/** A row that is longer than it may be, where that is an error. */
export function tooLong(index: number, name: string, length: number, maxLength: number): DataError {
  return new DataError(
    `Row ${index} of ${name} has ${length} tokens, maxLength is ${maxLength}. Raise maxLength, or give overlong: "truncate" or "drop".`,
  );
}

/**
 * Rows with their numbers, with a turn for the event loop every few hundredths of a second.
 *
 * @throws InterruptedError when the signal is given.
 */
export async function* paced(
  rows: Rows,
  name: string,
  { signal, onProgress }: Pick<TokenizeOptions, "signal" | "onProgress">,
): AsyncGenerator<[unknown, number], void> {
  const total = "length" in rows && typeof rows.length === "number" ? rows.length : undefined;
  let rested = performance.now();
  let done = 0;
  for await (const row of each(rows)) {
    yield [row, done++];
    if (performance.now() - rested > 30) {
      onProgress?.(done, total);
      // A plain timer would be taken away by a kernel's interrupt, and the run would neither go on nor end.
      await turn(undefined, signal ? { signal } : {}).catch(() => {});
      if (signal?.aborted) throw new InterruptedError(`Interrupted while ${name} was tokenised, after ${done} rows.`);
      rested = performance.now();
    }
  }
  onProgress?.(done, total);
}

/** What became of the rows, in words; "" when all were kept as they were. */
export function describeReport(report: TokenizeReport, maxLength?: number): string {
  const limit = maxLength === undefined ? "maxLength" : `maxLength ${maxLength}`;
  const parts: string[] = [];
  if (report.truncated > 0)
    parts.push(`${report.truncated} cut to ${limit} (the longest has ${report.longest} tokens)`);
  if (report.dropped > 0) parts.push(`${report.dropped} left out as longer than ${limit}`);
  if (report.untrained > 0) parts.push(`${report.untrained} left out as no token of theirs is trained`);
  return parts.length === 0 ? "" : `Of ${report.rows} rows ${parts.join(", ")}.`;
}

async function* each(rows: Rows): AsyncGenerator<unknown> {
  if ("at" in rows && typeof rows.at === "function" && "length" in rows) {
    for (let i = 0; i < rows.length; i++) yield rows.at(i);
  } else yield* rows as Iterable<unknown> | AsyncIterable<unknown>;
}

/** @throws ConfigError for a length or a treatment of longer rows that cannot be. */
export function checkLength(maxLength: number, overlong: string): void {
  if (!(maxLength >= 2) || (Number.isFinite(maxLength) && !Number.isInteger(maxLength)))
    throw new ConfigError(`maxLength should be a whole number of at least 2 tokens, got ${describe(maxLength)}.`);
  if (!["truncate", "drop", "error"].includes(overlong))
    throw new ConfigError(`overlong should be "truncate", "drop" or "error", got ${describe(overlong)}.`);
}

function nothingLeft(
  name: string,
  report: TokenizeReport,
  untrained: Example | undefined,
  tokenizer: Tokenizer,
  maxLength: number,
): DataError {
  if (report.rows === 0)
    return new DataError(`There is nothing to train on: ${name} has no rows. Check its path, split or filter.`);
  if (untrained === undefined)
    return new DataError(
      `There is nothing to train on: all ${report.rows} rows of ${name} are longer than maxLength ${maxLength} (the longest has ${report.longest} tokens). Raise maxLength, or give overlong: "truncate".`,
    );
  const cut =
    report.longest > maxLength
      ? ` Rows of up to ${report.longest} tokens were cut to maxLength ${maxLength}: raise it.`
      : "";
  return new DataError(
    `There is nothing to train on: no token of ${name} is trained (${report.untrained} of ${report.rows} rows are masked whole).${cut} ` +
      `Trained are completions, and the turns of the role "assistant". The first such row, with the trained part in ⟦ ⟧: ${describeMask(untrained, tokenizer)}`,
  );
}
