/** From a row of a data set to what is trained on: a text, a prompt with its completion, the messages of a chat, or ids. */
import { DataError } from "../errors.js";
import type { Message } from "../hub/chat.js";
import { describe } from "../hub/json.js";
import { isTokenized, type TokenizedRow, tokenizedRow } from "./tokenized.js";

/** One row, as a data set gives it. */
export type Row = Readonly<Record<string, unknown>>;

/** Trained on the completion alone. */
export interface PromptCompletion {
  prompt: string;
  completion: string;
}

/** What a format gives: a text (trained on whole), a prompt with its completion, messages (trained on the assistant's turns), or ids with labels. */
export type Formatted = string | PromptCompletion | readonly Message[] | TokenizedRow;

/** Makes of a row what is trained on. */
export type Format = (row: Row, index: number) => Formatted | Promise<Formatted>;

/** How rows are read. */
export interface FormatOptions {
  /** Called for each row; without it the row's fields decide. */
  format?: Format;
  /** The field that holds the text. Without it: `input_ids` with `labels`, else `text`, else `messages`, else `prompt` and `completion`. */
  textField?: string;
}

/** The function that reads a row by these options. Its results are checked: @throws DataError naming the row, the field and what came. */
export function formatter(options: FormatOptions): (row: Row, index: number) => Promise<Formatted> | Formatted {
  const { format, textField } = options;
  if (format !== undefined) {
    return (row, index) => {
      const made = format(row, index);
      return made instanceof Promise ? made.then((value) => checkFormatted(value, index)) : checkFormatted(made, index);
    };
  }
  if (textField !== undefined) return (row, index) => textOf(row, textField, index);
  return byFields;
}

function byFields(row: Row, index: number): Formatted {
  if (isRow(row)) {
    if (isTokenized(row)) return tokenizedRow(row, index);
    if (Object.hasOwn(row, "text")) return textOf(row, "text", index);
    if (Object.hasOwn(row, "messages")) return messagesOf(row.messages, index, 'the field "messages"');
    if (Object.hasOwn(row, "prompt") && Object.hasOwn(row, "completion"))
      return { prompt: textOf(row, "prompt", index), completion: textOf(row, "completion", index) };
  }
  throw new DataError(
    `Row ${index} has none of the fields that are read without being named: "text", "messages", "prompt" with "completion", or "input_ids" with "labels". ${fieldsOf(row)} Give textField: "NAME", or format: (row) => ….`,
  );
}

function textOf(row: Row, field: string, index: number): string {
  if (!isRow(row) || !Object.hasOwn(row, field))
    throw new DataError(`Row ${index} has no field "${field}". ${fieldsOf(row)} Give textField or format.`);
  const value = row[field];
  if (typeof value !== "string")
    throw new DataError(
      `The field "${field}" of row ${index} should be a string, got ${describe(value)}. Give a format that makes a text of it, or filter such rows out.`,
    );
  return value;
}

function checkFormatted(value: unknown, index: number): Formatted {
  if (typeof value === "string") return value;
  if (isIterable(value)) return messagesOf(value, index, "what format gave");
  if (typeof value === "object" && value !== null) {
    if (isTokenized(value)) return tokenizedRow(value, index);
    const { prompt, completion } = value as Partial<PromptCompletion>;
    if (typeof prompt === "string" && typeof completion === "string") return { prompt, completion };
    if (prompt !== undefined || completion !== undefined)
      throw new DataError(
        `format gave for row ${index} a prompt that is ${describe(prompt)} and a completion that is ${describe(completion)}: expected two strings.`,
      );
  }
  throw new DataError(
    `format gave ${describe(value)} for row ${index}: expected a string, { prompt, completion }, a list of messages { role, content }, or { input_ids, labels }.`,
  );
}

function messagesOf(value: unknown, index: number, what: string): Message[] {
  if (!isIterable(value))
    throw new DataError(`Row ${index}: ${what} should be a list of messages, got ${describe(value)}.`);
  // Nested lists of Arrow are iterable, but no arrays.
  const messages = [...value] as Message[];
  if (messages.length === 0) throw new DataError(`Row ${index}: ${what} is a list without messages.`);
  messages.forEach((message, turn) => {
    if (typeof message !== "object" || message === null || typeof message.role !== "string")
      throw new DataError(
        `Row ${index}: message ${turn} of ${what} should be { role, content }, got ${describe(message)}.`,
      );
    if (message.content === undefined)
      throw new DataError(`Row ${index}: message ${turn} of ${what} has no content (role ${describe(message.role)}).`);
  });
  return messages;
}

function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.iterator in value;
}

function isRow(row: unknown): row is Row {
  return typeof row === "object" && row !== null;
}

function fieldsOf(row: unknown): string {
  if (!isRow(row)) return `It is ${describe(row)}.`;
  const names = Object.keys(row).map((name) => `"${name}"`);
  return names.length === 0
    ? "It has no fields."
    : `It has ${names.slice(0, 12).join(", ")}${names.length > 12 ? ", …" : ""}.`;
}
