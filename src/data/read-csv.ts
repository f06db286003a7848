/** Comma- and tab-separated files → records with types. */
import { Readable } from "node:stream";
import { type CsvError, type InfoRecord, type Options, parse } from "csv-parse";
import { parse as parseNow } from "csv-parse/sync";
import { DataError } from "../errors.js";
import type { Records } from "./read-json.js";
import { type ReadBudget, readText } from "./read-text.js";

const maxRecord = 64 * 1024 * 1024;

export interface CsvOptions extends ReadBudget {
  /** What stands between fields. */
  delimiter?: string;
  /** Names of the columns, for a file whose first line is data. */
  columns?: readonly string[];
  /** False where quotation marks are plain text. */
  quote?: false;
}

/**
 * Reads a file whose first line names the columns. A column becomes numbers or booleans where all of its values are;
 * an empty field is null, a quoted empty one an empty string; whole numbers with leading zeros or above 2^53 stay text.
 *
 * @throws DataError naming the line of a row with more or fewer fields, or of a quotation mark in the wrong place.
 */
export async function readCsv(file: string, options: CsvOptions = {}): Promise<Records> {
  const settings: Options = {
    delimiter: options.delimiter ?? ",",
    quote: options.quote === false ? null : '"',
    relax_column_count: true,
    skip_empty_lines: true,
    max_record_size: maxRecord,
  };
  const parser = parse({ ...settings, info: true, raw: true });
  const source = Readable.from(readText(file, options));
  source.on("error", (error) => parser.destroy(error));
  source.pipe(parser);

  let names: string[] | undefined = options.columns ? checkNames(file, options.columns) : undefined;
  const columns: (string | null)[][] = (names ?? []).map(() => []);
  const lines: number[] = [];
  let lastLine = 0;
  try {
    for await (const { record: fields, raw, info } of parser as AsyncIterable<Parsed>) {
      const record = fields.includes("") ? withNulls(fields, raw, settings) : fields;
      const line = lastLine + 1;
      lastLine = info.lines;
      if (!names) {
        names = checkNames(file, record);
        for (const _ of names) columns.push([]);
        continue;
      }
      if (record.length !== names.length) {
        throw new DataError(
          `${file}, line ${line}: expected ${names.length} fields (${names.join(", ").slice(0, 120)}), got ${record.length}; ` +
            "a field that holds the separator must be quoted",
        );
      }
      for (let i = 0; i < record.length; i++) columns[i]!.push(record[i]!);
      lines.push(line);
    }
  } catch (error) {
    throw explain(file, error);
  } finally {
    source.destroy();
    parser.destroy();
  }
  const typed = columns.map(typeColumn);
  const rows = lines.map((_, row) => {
    const entries: Record<string, unknown> = {};
    for (let i = 0; i < typed.length; i++) entries[names![i]!] = typed[i]![row];
    return entries;
  });
  return { rows, where: (row) => `${file}, line ${lines[row] ?? "?"}` };
}

interface Parsed {
  record: string[];
  raw: string;
  info: InfoRecord;
}

/**
 * Empty fields as null unless quoted. The parser tells which are quoted through a callback for every field, four times
 * slower: so only rows that hold `""` are parsed a second time with it.
 */
function withNulls(fields: string[], raw: string, settings: Options): (string | null)[] {
  if (!raw.includes('""')) return fields.map((field) => (field === "" ? null : field));
  const cast: NonNullable<Options["cast"]> = (value, context) => (value === "" && !context.quoting ? null : value);
  return (parseNow(raw, { ...settings, cast }) as unknown as (string | null)[][])[0] ?? fields;
}

function checkNames(file: string, fields: readonly (string | null)[]): string[] {
  const names = fields.map((name, index) => (name === null || name.trim() === "" ? `unnamed_${index}` : name.trim()));
  for (const [index, name] of names.entries()) {
    if (name === "__proto__") throw new DataError(`${file}: a column named "__proto__" is refused`);
    if (names.indexOf(name) !== index) throw new DataError(`${file}: two columns are named ${JSON.stringify(name)}`);
  }
  return names;
}

function explain(file: string, error: unknown): unknown {
  const { code, lines, raw } = error as CsvError;
  if (typeof code !== "string" || error instanceof DataError) return error;
  // `lines` is where the parser stopped; the row in question began as many lines earlier as its text has.
  const spanned = typeof raw === "string" ? raw.replace(/\n$/, "").split("\n").length - 1 : 0;
  const line = typeof lines === "number" ? lines - spanned : "?";
  if (code === "CSV_QUOTE_NOT_CLOSED" || code === "INVALID_OPENING_QUOTE" || code === "CSV_INVALID_CLOSING_QUOTE") {
    const what =
      code === "CSV_QUOTE_NOT_CLOSED" ? "a quotation mark is never closed" : "a quotation mark in a wrong place";
    return new DataError(
      `${file}, row from line ${line}: ${what}; double those inside quoted fields, or pass quote: false where they are plain text`,
      { cause: error },
    );
  }
  if (code === "CSV_MAX_RECORD_SIZE") {
    return new DataError(`${file}, row from line ${line}: longer than 64 MiB; is a quotation mark left open?`, {
      cause: error,
    });
  }
  return code.startsWith("CSV_")
    ? new DataError(`${file}, line ${line}: ${(error as Error).message}`, { cause: error })
    : error;
}

const integer = /^-?(0|[1-9]\d*)$/;
const decimal = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const boolean = /^(true|false)$/i;

function typeColumn(values: readonly (string | null)[]): unknown[] {
  const all = (test: (text: string) => boolean): boolean => values.every((value) => value === null || test(value));
  if (values.every((value) => value === null)) return values as unknown[];
  if (all((text) => boolean.test(text))) return values.map((value) => value && value.toLowerCase() === "true");
  // A code such as 007 or a long identifier is no number, and neither then is its column.
  if (all((text) => decimal.test(text) && isExact(text)))
    return values.map((value) => (value === null ? null : Number(value)));
  return values as unknown[];
}

function isExact(text: string): boolean {
  if (!/^[+-]?\d+$/.test(text)) return Number.isFinite(Number(text));
  return integer.test(text) && Number.isSafeInteger(Number(text));
}
