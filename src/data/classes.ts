/** Texts with the class that each belongs to, as ids with labels: what a classification head trains on. */
import { DataError } from "../errors.js";
import type { Message } from "../hub/chat.js";
import { describe } from "../hub/json.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { Row } from "./format.js";
import { type Example, IGNORED } from "./mask.js";
import { checkLength, paced, type Rows, type TokenizeOptions, type TokenizeReport, tooLong } from "./tokenize.js";

/** A text or a conversation, and its class: its name, or its number. */
export type Labelled = ({ text: string } | { messages: readonly Message[] }) & { label: string | number };

/** How such rows are read. */
export interface ClassOptions extends Omit<TokenizeOptions, "format" | "appendEos"> {
  /** Makes of a row { text, label } or { messages, label }; without it the row's own fields are read. */
  format?: ((row: Row, index: number) => unknown) | undefined;
}

/** What became of the rows: examples, the number of each one's class and of its row. */
export interface ClassRows {
  examples: Example[];
  classes: number[];
  indices: number[];
  report: TokenizeReport;
}

/**
 * Tokenises rows { text, label } or { messages, label }. The class is the label of what follows the last token: an example has one label more than
 * ids. A longer text is cut at its end.
 *
 * @throws DataError for no rows, a row that cannot be read, a label that is none of the classes, or an overlong row with `overlong: "error"`.
 */
export async function tokenizeClasses(
  rows: Rows,
  tokenizer: Tokenizer,
  labels: readonly string[],
  options: ClassOptions = {},
): Promise<ClassRows> {
  const { maxLength = Number.POSITIVE_INFINITY, overlong = "truncate", name = "the data set", textField } = options;
  checkLength(maxLength, overlong);
  const found: ClassRows = {
    examples: [],
    classes: [],
    indices: [],
    report: { rows: 0, kept: 0, truncated: 0, dropped: 0, untrained: 0, tokens: 0, trained: 0, longest: 0 },
  };
  const { report } = found;
  for await (const [row, index] of paced(rows, name, options)) {
    report.rows++;
    const given = options.format ? await options.format(row as Row, index) : row;
    const where = `Row ${index} of ${name}`;
    const { ids, k } = classExample(given, tokenizer, labels, textField, where);
    report.longest = Math.max(report.longest, ids.length);
    const long = ids.length > maxLength;
    if (long && overlong === "error") throw tooLong(index, name, ids.length, maxLength);
    if (long && overlong === "drop") {
      report.dropped++;
      continue;
    }
    const kept = ids.slice(0, maxLength);
    found.examples.push(labelled(kept, k));
    found.classes.push(k);
    found.indices.push(index);
    report.kept++;
    report.truncated += long ? 1 : 0;
    report.tokens += kept.length;
    report.trained++;
  }
  if (report.kept > 0) return found;
  if (report.rows === 0) throw new DataError(`${name} has no rows. Check its path, split or filter.`);
  throw new DataError(
    `All ${report.rows} rows of ${name} are longer than maxLength ${maxLength} (the longest has ${report.longest} tokens). Raise maxLength, or give overlong: "truncate".`,
  );
}

/** Ids of a row's text, and the number of its class. @throws DataError for a row that cannot be read, or with another label. */
export function classExample(
  given: unknown,
  tokenizer: Tokenizer,
  labels: readonly string[],
  textField: string | undefined,
  where: string,
): { ids: number[]; k: number } {
  return { ids: idsOf(given, textField, where, tokenizer), k: classOf(given, labels, where) };
}

/** Ids of a text or a conversation that is to be classified, as transformers' tokenizers give them. @throws DataError for one without tokens. */
export function classifiedIds(given: string | readonly Message[], where: string, tokenizer: Tokenizer): number[] {
  const ids = typeof given === "string" ? tokenizer.encode(given) : tokenizer.encodeChat([...given]);
  if (ids.length === 0) throw new DataError(`${where} has no token: a text to classify must not be empty.`);
  return ids;
}

/** @throws DataError when all rows have one class: a head learns nothing from them but to say it always. */
export function requireClassesApart(classes: readonly number[], labels: readonly string[], name: string): void {
  if (new Set(classes).size < 2)
    throw new DataError(
      `All ${classes.length} rows of ${name} have the label ${JSON.stringify(labels[classes[0]!])}: to learn what tells the classes apart, at least two of ${labels.join(", ")} are needed.`,
    );
}

function labelled(ids: readonly number[], k: number): Example {
  const labels = new Int32Array(ids.length + 1).fill(IGNORED);
  labels[ids.length] = k;
  return { ids: Int32Array.from(ids), labels };
}

function idsOf(given: unknown, textField: string | undefined, where: string, tokenizer: Tokenizer): number[] {
  const row = (typeof given === "object" && given !== null ? given : {}) as Record<string, unknown>;
  const value = textField === undefined ? (row.text ?? row.messages) : row[textField];
  if (typeof value === "string") return classifiedIds(value, where, tokenizer);
  // Nested lists of Arrow are iterable, but no arrays.
  if (typeof value === "object" && value !== null && Symbol.iterator in value)
    return classifiedIds([...(value as Iterable<Message>)], where, tokenizer);
  throw new DataError(
    `${where} should be { text, label } or { messages, label }, its text is ${describe(value)}. Give format: (row) => ({ text: …, label: … }).`,
  );
}

function classOf(given: unknown, labels: readonly string[], where: string): number {
  const label = (given as Partial<Labelled> | null)?.label;
  const named = typeof label === "string" || typeof label === "number" ? labels.indexOf(String(label)) : -1;
  if (named >= 0) return named;
  if (typeof label === "number" && Number.isInteger(label) && label >= 0 && label < labels.length) return label;
  throw new DataError(
    `${where} has the label ${describe(label)}, which is none of the model's classes: ${labels.join(", ")} (or their numbers, 0 to ${labels.length - 1}). Mend it by format: (row) => ({ text: …, label: … }), or load the model with other labels.`,
  );
}
