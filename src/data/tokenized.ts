/** Rows that are ids already, with the names that transformers gives their columns. */
import { DataError } from "../errors.js";
import { describe } from "../hub/json.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { Example } from "./mask.js";

/** The label of a token that is not trained, as in torch. */
export const IGNORED = -100;

/** A row of ids. All three lists have the same length. */
export interface TokenizedRow {
  readonly input_ids: Iterable<number>;
  /** What is to be learnt at each id: mostly the id itself, or -100 for nothing. Without labels every id is trained. */
  readonly labels?: Iterable<number> | null;
  /** 0 for ids that only fill the row: they are taken out. */
  readonly attention_mask?: Iterable<number> | null;
}

/** Whether a row, or what a format gave, has ids. */
export function isTokenized(row: object): row is TokenizedRow {
  return Object.hasOwn(row, "input_ids");
}

/**
 * Checks a row of ids.
 * @throws DataError naming the row, the column and the place of what cannot be.
 */
export function tokenizedRow(row: TokenizedRow, index: number): TokenizedRow {
  const ids = numbers(row.input_ids, "input_ids", index, (id) => id >= 0, "an id from 0");
  if (ids.length === 0) throw new DataError(`Row ${index}: input_ids is an empty list.`);
  const same = (name: "labels" | "attention_mask", ok: (n: number) => boolean, expected: string): number[] | null => {
    if (row[name] === undefined || row[name] === null) return null;
    const list = numbers(row[name], name, index, ok, expected);
    if (list.length !== ids.length)
      throw new DataError(`Row ${index}: ${name} has ${list.length} numbers, input_ids has ${ids.length}.`);
    return list;
  };
  const labels = same("labels", (id) => id >= 0 || id === IGNORED, `an id from 0, or ${IGNORED}`);
  const mask = same("attention_mask", (n) => n === 0 || n === 1, "0 or 1");
  return { input_ids: ids, ...(labels && { labels }), ...(mask && { attention_mask: mask }) };
}

/** The example of a checked row. @throws DataError for an id that the tokenizer does not have. */
export function tokenizedExample(row: TokenizedRow, tokenizer: Tokenizer): Example {
  const [all, mask] = [[...row.input_ids], row.attention_mask && [...row.attention_mask]];
  const taught = row.labels ? [...row.labels] : all;
  const kept = all.map((_, i) => i).filter((i) => !mask || mask[i] === 1);
  const example = {
    ids: Int32Array.from(kept, (i) => all[i]!),
    labels: Int32Array.from(kept, (i) => taught[i]!),
  };
  const strange = [...example.ids, ...example.labels].find((id) => id >= tokenizer.vocabSize);
  if (strange !== undefined)
    throw new DataError(
      `A row has the id ${strange}, and the model's tokenizer has ${tokenizer.vocabSize} ids from 0. Tokenise the rows with model.tokenizer.`,
    );
  return example;
}

function numbers(value: unknown, name: string, index: number, ok: (n: number) => boolean, expected: string): number[] {
  if (typeof value !== "object" || value === null || !(Symbol.iterator in value))
    throw new DataError(`Row ${index}: ${name} should be a list of numbers, got ${describe(value)}.`);
  const list = [...(value as Iterable<unknown>)];
  const wrong = list.findIndex((n) => !Number.isInteger(n) || (n as number) >= 2 ** 31 || !ok(n as number));
  if (wrong >= 0)
    throw new DataError(`Row ${index}: ${name}[${wrong}] should be ${expected}, got ${describe(list[wrong])}.`);
  return list as number[];
}
