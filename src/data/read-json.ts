/** JSON Lines and JSON files → records. */
import { DataError } from "../errors.js";
import { describe, isRecord, type Where } from "./dataset-types.js";
import { type ReadBudget, readText, readWholeText } from "./read-text.js";

const maxLineLength = 64 * 1024 * 1024;

/** Records of a file and where each came from. */
export interface Records {
  rows: unknown[];
  where: Where;
}

/** One JSON value a line; blank lines are passed over. @throws DataError naming the line. */
export async function readJsonLines(file: string, budget: ReadBudget = {}): Promise<Records> {
  const rows: unknown[] = [];
  const lines: number[] = [];
  for await (const { row, line } of jsonLines(file, budget)) {
    rows.push(row);
    lines.push(line);
  }
  return { rows, where: (row) => `${file}, line ${lines[row] ?? "?"}` };
}

/** The values of a file of JSON Lines, each with the number of its line. @throws DataError naming the line. */
export async function* jsonLines(
  file: string,
  budget: ReadBudget = {},
): AsyncGenerator<{ row: unknown; line: number }, void, undefined> {
  let line = 0;
  const parse = (text: string): { row: unknown; line: number } | undefined => {
    line += 1;
    if (text.length > maxLineLength) throw tooLong(file, line);
    return text.trim() === "" ? undefined : { row: parseJson(text, `${file}, line ${line}`), line };
  };
  let rest = "";
  for await (const text of readText(file, budget)) {
    let start = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", start)) {
      const found = parse(rest + text.slice(start, end));
      if (found) yield found;
      rest = "";
      start = end + 1;
    }
    rest += text.slice(start);
    if (rest.length > maxLineLength) throw tooLong(file, line + 1);
  }
  const last = rest === "" ? undefined : parse(rest);
  if (last) yield last;
}

const tooLong = (file: string, line: number): DataError => new DataError(`${file}, line ${line}: longer than 64 MiB`);

/**
 * A JSON file: an array of records; an object with one such array, as `{"data": […]}`; or an object of columns, as
 * `{"text": […], "label": […]}`. A file that holds one record a line is read as JSON Lines.
 */
export async function readJson(file: string, budget: ReadBudget = {}): Promise<Records> {
  const text = await readWholeText(file, budget);
  const firstLine = text.trimStart().split("\n", 1)[0] ?? "";
  if (firstLine.startsWith("{") && isWholeRecord(firstLine) && text.trim() !== firstLine.trim()) {
    return readJsonLines(file, budget);
  }
  if (text.trim() === "") return { rows: [], where: () => file };
  const value = parseJson(text, file);
  const where: Where = (row) => `${file}, record ${row}`;
  if (Array.isArray(value)) return { rows: value, where };
  if (isRecord(value)) {
    const parts = Object.entries(value);
    const [only] = parts;
    if (parts.length === 1 && Array.isArray(only![1]) && only![1].every(isRecord)) return { rows: only![1], where };
    if (parts.length > 0 && parts.every(([, column]) => Array.isArray(column))) {
      return { rows: fromColumns(file, parts as [string, unknown[]][]), where };
    }
    return { rows: [value], where };
  }
  throw new DataError(`${file}: expected an array of records, got ${describe(value)}`);
}

function isWholeRecord(text: string): boolean {
  try {
    return isRecord(JSON.parse(text));
  } catch {
    return false;
  }
}

function fromColumns(file: string, columns: readonly [string, unknown[]][]): unknown[] {
  const length = columns[0]![1].length;
  for (const [name, values] of columns) {
    if (name === "__proto__") throw new DataError(`${file}: a column named "__proto__" is refused`);
    if (values.length !== length) {
      throw new DataError(
        `${file}: column ${name} has ${values.length} values, column ${columns[0]![0]} has ${length}`,
      );
    }
  }
  return Array.from({ length }, (_, row) => Object.fromEntries(columns.map(([name, values]) => [name, values[row]])));
}

/**
 * Parses JSON from outside. NaN and Infinity, which are not JSON, and whole numbers above 2^53, which would change
 * silently, are refused.
 */
export function parseJson(text: string, where: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const word = /(?<=[[,:\s])-?(NaN|Infinity)\b/.exec(text.replace(/"(?:[^"\\]|\\.)*"/g, '""'))?.[0];
    const why = word ? `${word} is not JSON; write null` : `not JSON: ${(error as Error).message}`;
    throw new DataError(`${where}: ${why}`, { cause: error });
  }
  // Only numbers this long can be too large.
  if (/\d{16}|\d[eE]\+?\d{3}/.test(text)) refuseLargeNumbers(text, where);
  return value;
}

function refuseLargeNumbers(text: string, where: string): void {
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g)) {
    if (token.startsWith('"')) continue;
    const number = Number(token);
    if (!Number.isFinite(number)) throw new DataError(`${where}: the number ${token.slice(0, 40)} is out of range`);
    if (/^-?\d+$/.test(token) && !Number.isSafeInteger(number)) {
      throw new DataError(
        `${where}: the whole number ${token.slice(0, 40)} is above 2^53 and would change; write it as a string`,
      );
    }
  }
}
