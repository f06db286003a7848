// As much of the language Logo as the small functions of notebook 04 need: one procedure of one argument, operations written before what they are
// given. What a model writes is run by this and by nothing else.

/** A number, a word, or a list of these. */
export type Value = number | string | boolean | readonly Value[];

type Operation = readonly [arguments_: number, run: (a: Value, b: Value) => Value];

const number = (value: Value): number => {
  if (typeof value === "number") return value;
  throw new Error(`${JSON.stringify(value)} is no number`);
};
const items = (value: Value): readonly Value[] | string => {
  if (typeof value === "object" || typeof value === "string") return value;
  throw new Error(`${JSON.stringify(value)} has no parts`);
};
const joined = (value: Value): string => (typeof value === "object" ? value.map(String).join(" ") : String(value));
const part = (value: Value, begin: number, end?: number): Value => items(value).slice(begin, end);
const one = (value: Value, at: 0 | -1): Value => {
  const found = items(value).at(at);
  if (found === undefined) throw new Error("there is nothing in it");
  return found;
};

/** The operations by their names, with the number of what they are given. */
export const operations: Readonly<Record<string, Operation>> = {
  sum: [2, (a, b) => number(a) + number(b)],
  difference: [2, (a, b) => number(a) - number(b)],
  product: [2, (a, b) => number(a) * number(b)],
  quotient: [2, (a, b) => number(a) / number(b)],
  remainder: [2, (a, b) => number(a) % number(b)],
  greaterp: [2, (a, b) => number(a) > number(b)],
  lessp: [2, (a, b) => number(a) < number(b)],
  equalp: [2, (a, b) => a === b],
  sentence: [2, (a, b) => `${joined(a)} ${joined(b)}`],
  memberp: [2, (a, b) => (typeof b === "string" ? b.split(" ").includes(String(a)) : items(b).includes(a as never))],
  count: [1, (a) => items(a).length],
  first: [1, (a) => one(a, 0)],
  last: [1, (a) => one(a, -1)],
  butfirst: [1, (a) => part(a, 1)],
  butlast: [1, (a) => part(a, 0, -1)],
  uppercase: [1, (a) => joined(a).toUpperCase()],
};

/**
 * The function that a text defines: `to NAME :PARAMETER output EXPRESSION end`.
 * @throws Error for anything else
 */
export function define(source: string): { name: string; run: (given: Value) => Value } {
  const words = source.trim().split(/\s+/);
  const [to, name, parameter, output] = words;
  if (to !== "to" || name === undefined || !parameter?.startsWith(":") || output !== "output" || words.at(-1) !== "end")
    throw new Error("expected: to NAME :PARAMETER output … end");
  const body = words.slice(4, -1);
  const run = (given: Value): Value => {
    let at = 0;
    const next = (): Value => {
      const word = body[at++];
      if (word === undefined) throw new Error("something is missing at the end");
      if (word === parameter) return given;
      if (/^-?\d+$/.test(word)) return Number(word);
      if (word.startsWith('"')) return word.slice(1);
      const operation = Object.hasOwn(operations, word) ? operations[word] : undefined;
      if (operation === undefined) throw new Error(`there is no ${word}`);
      const [a, b] = [next(), operation[0] === 2 ? next() : ""];
      return operation[1](a, b);
    };
    const value = next();
    if (at < body.length) throw new Error(`${body[at]} is too much`);
    return value;
  };
  return { name, run };
}

/** Whether a text defines this function: under its name, with the result that each of the tests `[given, result]` (JSON) has. */
export function passes(source: string, name: string, tests: string): boolean {
  try {
    const made = define(source);
    const all = JSON.parse(tests) as [Value, Value][];
    return (
      made.name === name && all.every(([given, result]) => JSON.stringify(made.run(given)) === JSON.stringify(result))
    );
  } catch {
    return false;
  }
}
