import type { Scope } from "../../../compile/scope.js";
import { findMagic, usage } from "../../../magics/table.js";
import type { Cell } from "../cell.js";

/** What magics need of the executor. */
export interface MagicHost {
  readonly cell: Cell;
  /** The notebook's folder. */
  readonly folder: string;
  readonly scope: Scope;
  /** Compiles and runs code as a cell of the notebook. */
  runCode(code: string, file: string, folder: string): Promise<unknown>;
  /** Packages may have been added or replaced. */
  packagesChanged(): void;
}

/** One magic that is being done. */
export interface MagicCall {
  name: string;
  /** The text around the interpolated values. */
  texts: readonly string[];
  values: readonly unknown[];
  /** The rest of the cell. */
  body: string;
}

export type Implementation = (host: MagicHost, call: MagicCall) => void | Promise<void>;

/** A magic that was given what it does not take. */
export class UsageError extends Error {
  override readonly name = "UsageError";

  /** @param problem - what came, and what was expected; how the magic is written is added */
  constructor(magic: string, problem: string) {
    const known = findMagic(magic);
    super(`${problem}${known ? ` Usage: ${usage(known)}` : ""}`);
  }
}

/** The arguments of a magic: words, or parts in quotes. An interpolated value is (a part of) one word, an array several. */
export function argumentsOf({ name, texts, values }: MagicCall): string[] {
  const found: string[] = [];
  let word: string | undefined;
  let quote = "";
  const end = (): void => {
    if (word !== undefined) found.push(word);
    word = undefined;
  };
  texts.forEach((text, index) => {
    for (const letter of text) {
      if (quote === "" && /\s/.test(letter)) end();
      else if (quote === "" && (letter === "'" || letter === '"')) {
        quote = letter;
        word ??= "";
      } else if (letter === quote) quote = "";
      else word = (word ?? "") + letter;
    }
    if (index >= values.length) return;
    const value = values[index];
    if (Array.isArray(value)) {
      for (const one of value) {
        word = (word ?? "") + String(one);
        end();
      }
    } else word = (word ?? "") + String(value);
  });
  if (quote !== "") throw new UsageError(name, `The quote ${quote} is not closed.`);
  end();
  return found;
}

/** The one argument of a magic, or none. */
export function oneArgument(call: MagicCall): string | undefined {
  const [first, second] = argumentsOf(call);
  if (second !== undefined) {
    throw new UsageError(
      call.name,
      `Expected one argument, got also ${JSON.stringify(second)}; a name with blanks stands in quotes.`,
    );
  }
  return first;
}
