/** A notebook as it stands in the repository, with the outputs of its last run. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../notebooks/embedded/prepare.js";

type Text = string | readonly string[];

interface Output {
  readonly name?: string;
  readonly text?: Text;
  readonly data?: Readonly<Record<string, Text>>;
}

export interface Cell {
  readonly cell_type: string;
  readonly source: readonly string[];
  readonly metadata: { readonly tags?: readonly string[] };
  readonly outputs?: readonly Output[];
}

/** A notebook by its file's name: the file's text, and its cells. */
export function executed(name: string): { notebook: string; cells: Cell[] } {
  const notebook = readFileSync(join(root, "notebooks", name), "utf8");
  return { notebook, cells: (JSON.parse(notebook) as { cells: Cell[] }).cells };
}

/** A text that may be written as lines. */
export const plain = (text: Text | undefined): string => [text ?? ""].flat().join("");

/** What the cells show, without what they print. */
export const bundlesOf = (cells: readonly Cell[]): Readonly<Record<string, Text>>[] =>
  cells.flatMap((cell) => cell.outputs ?? []).map((output) => output.data ?? {});

/** What stands in one row of a table, behind its name. */
export function valuesOf(table: string, name: string): string[] {
  const line = table.split("\n").find((each) => each.startsWith(name));
  assert.ok(line, `${name} in ${table}`);
  return line
    .slice(name.length)
    .trim()
    .split(/\s{2,}/);
}

/** Those as numbers. */
export const numbersOf = (table: string, name: string): number[] =>
  valuesOf(table, name).map((part) => Number(part.replaceAll(",", "")));
