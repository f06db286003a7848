import type { Typecheck } from "./types.js";

/** A cell without its magics. */
export interface Preprocessed {
  /** TypeScript, with every line where it was. */
  code: string;
  typecheck?: Typecheck;
}

const directive = /^[ \t]*%typecheck[ \t]+(error|warn|off)[ \t]*(?=\r?\n|$)/;

/** Takes the lines out of a cell that are no TypeScript. They become blank, so that positions stay. */
export function preprocess(cell: string): Preprocessed {
  const found = directive.exec(cell);
  if (!found) return { code: cell };
  return { code: " ".repeat(found[0].length) + cell.slice(found[0].length), typecheck: found[1] as Typecheck };
}
