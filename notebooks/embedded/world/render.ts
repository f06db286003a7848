/**
 * A small template language, so that stories can be written as sentences: `[this|that]` is a choice (choices nest),
 * `{name}` a value, `{pia.he}` a field of a value, `{an tool}` a value with "a" or "an" before it.
 */
import type { Random } from "../../../src/data/random.js";
import { DataError } from "../../../src/errors.js";

/** What a template can name: text, numbers, or things whose fields are text or numbers. */
export type Value = string | number | { readonly [field: string]: unknown };
export type Context = Readonly<Record<string, Value>>;

/** One item at random. */
export function pick<T>(random: Random, items: readonly T[]): T {
  const item = items[random.nextInt(items.length)];
  if (item === undefined) throw new DataError("pick: expected a list with at least one item, got an empty one");
  return item;
}

/** `count` different items at random, in random order. */
export function sample<T>(random: Random, items: readonly T[], count: number): T[] {
  return random.shuffle([...items]).slice(0, count);
}

/** Whether something happens that happens in a share of all cases. */
export function chance(random: Random, share: number): boolean {
  return random.nextFloat() < share;
}

/** "a net", "an oar", "an hour". */
export function withArticle(noun: string): string {
  return `${/^([aeio]|u(?!ni|se)|hour|honest)/i.test(noun) ? "an" : "a"} ${noun}`;
}

/** "nets", "boxes", "knives". */
export function plural(noun: string): string {
  if (/(fe|f)$/.test(noun)) return noun.replace(/fe?$/, "ves");
  return /(s|x|ch|sh)$/.test(noun) ? `${noun}es` : `${noun}s`;
}

/** "a", "a and b", "a, b and c". */
export function list(items: readonly string[]): string {
  return items.length < 2 ? (items[0] ?? "") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;
}

/** A capital at the start of the text and after every sentence's end; after `!"` and `?"` the sentence may go on: "Stop!" he cried. */
export function capitalise(text: string): string {
  return text.replace(
    /(^|\n|[.!?] |\." )([a-z])/g,
    (_, before: string, letter: string) => before + letter.toUpperCase(),
  );
}

/** Fills a template in: choices from `random`, names from `context`. @throws DataError for a name that the context lacks. */
export function render(random: Random, template: string, context: Context = {}): string {
  return capitalise(fill(choose(random, template), context));
}

function choose(random: Random, template: string): string {
  // Innermost choices first: what has no bracket inside.
  let text = template;
  for (let before = ""; before !== text; ) {
    before = text;
    text = text.replace(/\[([^[\]]*)\]/g, (_, inside: string) => pick(random, inside.split("|")));
  }
  return text;
}

function fill(text: string, context: Context): string {
  return text.replace(/\{(an )?([a-zA-Z0-9]+)(?:\.([a-zA-Z]+))?\}/g, (_, article, name: string, field) => {
    const value = context[name];
    const found = field === undefined && typeof value === "object" ? value.name : value;
    const final = field !== undefined && typeof value === "object" ? value[field] : found;
    if (typeof final !== "string" && typeof final !== "number")
      throw new DataError(
        `render: the template names {${name}${field ? `.${field}` : ""}}, which is not given: ${text}`,
      );
    return article ? withArticle(String(final)) : String(final);
  });
}
