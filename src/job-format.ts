/** What a job makes of a row: texts with {column} in them, since JSON has no functions. */
import type { Row } from "./data/format.js";
import { ConfigError } from "./errors.js";
import { describe } from "./hub/json.js";

/**
 * The function of a template: a text, or any object or list of such ({ prompt, completion }, messages …). `{name}` is the row's value of that column,
 * "" where it is null; contents of messages are trimmed. A label that is nothing but `{name}` stays the number it may be.
 * @throws ConfigError at a row that lacks the column.
 */
export function templateFormat(template: unknown): (row: Row) => unknown {
  return (row) => filled(template, row, "");
}

function filled(part: unknown, row: Row, key: string): unknown {
  if (typeof part === "string") {
    const whole = key === "label" ? /^\{([\w-]+)\}$/.exec(part)?.[1] : undefined;
    if (whole !== undefined) return cellOf(whole, row);
    const text = part.replace(/\{([\w-]+)\}/g, (_, name: string) => String(cellOf(name, row)));
    return key === "content" ? text.trim() : text;
  }
  if (Array.isArray(part)) return part.map((each) => filled(each, row, ""));
  if (typeof part !== "object" || part === null)
    throw new ConfigError(`data.format must be made of texts, received ${describe(part)}.`);
  return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, filled(value, row, name)]));
}

function cellOf(name: string, row: Row): string | number | boolean {
  if (!Object.hasOwn(row, name))
    throw new ConfigError(`data.format names the column {${name}}; the rows have ${Object.keys(row).join(", ")}.`);
  const value = row[name] ?? "";
  return typeof value === "number" || typeof value === "boolean" ? value : String(value);
}
