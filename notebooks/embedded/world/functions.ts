/**
 * Small functions in Logo, with what they are asked for in words and what they give. The embedded model knows the letters and no line of code; Logo
 * is written in words, where the brackets and signs of other languages would be tokens that it has never seen.
 */
import type { Random } from "../../../src/data/random.js";
import { define, type Value } from "../../04-logo.js";
import { pick, render } from "./render.js";

/** A row: what is asked for, the function and its name, and `[given, result]` several times, as JSON. */
export interface CodeRow {
  readonly prompt: string;
  readonly code: string;
  readonly name: string;
  readonly tests: string;
}

type Subject = "number" | "text" | "list";

/** What a function is of: its parameter, and values to try it with, one of which has what was asked for. */
const subjects: Readonly<Record<Subject, { parameter: string; tries: (k: number, w: string) => readonly Value[] }>> = {
  number: { parameter: "n", tries: (k) => [0, k - 1, k, k + 1, 24] },
  text: { parameter: "t", tries: (_, w) => ["sea", `a ${w} boat`] },
  list: { parameter: "l", tries: (k) => [[12, k, 15], [17], [2, 2, 5, 8]] },
};

/** Ways to ask for it (with {k} or {w}), and the expression that gives it. */
type Kind = readonly [subject: Subject, words: string, code: string];

const kinds: readonly Kind[] = [
  ["number", "[{k} more than n|n and {k} together|{k} added to n]", "sum :n {k}"],
  ["number", "[{k} less than n|n without {k}|{k} taken from n]", "difference :n {k}"],
  ["number", "[{k} times n|n as often as {k} says]", "product :n {k}"],
  ["number", "[n in {k} equal parts|n shared by {k}]", "quotient :n {k}"],
  ["number", "[what is left of n shared by {k}|the rest of n in {k} parts]", "remainder :n {k}"],
  ["number", "[whether n is more than {k}|is n more than {k}?]", "greaterp :n {k}"],
  ["number", "[whether n is less than {k}|is n less than {k}?]", "lessp :n {k}"],
  ["number", "[whether n is {k}|is n just {k}?]", "equalp :n {k}"],
  ["text", "[the word {w} before t|t behind the word {w}]", 'sentence "{w} :t'],
  ["text", "[the word {w} after t|t and then the word {w}]", 'sentence :t "{w}'],
  ["text", "[whether t has the word {w}|is the word {w} in t?]", 'memberp "{w} :t'],
  ["text", "[how long t is|the length of t]", "count :t"],
  ["text", "[t in large letters|t as on a sign]", "uppercase :t"],
  ["text", "[t without its first letter|t from the second letter on]", "butfirst :t"],
  ["list", "[the first of l|what stands first in l]", "first :l"],
  ["list", "[the last of l|what stands last in l]", "last :l"],
  ["list", "[l without its last|all of l but the last]", "butlast :l"],
  ["list", "[how many there are in l|the number of things in l]", "count :l"],
  ["list", "[whether {k} is in l|does l have {k}?]", "memberp {k} :l"],
  ["list", "[{k} more than the first of l|the first of l and {k} together]", "sum first :l {k}"],
];

const names: readonly string[] =
  "lamp|boat|gull|bell|rope|star|fish|wind|net|oar|drum|kite|well|moon|salt|bread|clock|tide|sail|stone".split("|");
const wordsOf: readonly string[] = "red|old|sea|fog|cold|two|blue|dark|warm|tall".split("|");

/** A function to write. */
export function codeRow(random: Random): CodeRow {
  const [subject, words, expression] = pick(random, kinds);
  const { parameter, tries } = subjects[subject];
  const name = pick(random, names);
  const context = { k: 2 + random.nextInt(8), w: pick(random, wordsOf) };
  const asked = render(random, words, context).replace(/^[A-Z]/, (letter) => letter.toLowerCase());
  const body = expression.replace("{k}", String(context.k)).replace("{w}", context.w);
  const code = `to ${name} :${parameter}\noutput ${body}\nend`;
  const { run } = define(code);
  const tests = JSON.stringify(tries(context.k, context.w).map((given) => [given, run(given)]));
  return { prompt: `Write ${name}: ${asked}`, code, name, tests };
}
