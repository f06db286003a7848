import type t from "typescript";
import { type Analysis, analyze } from "../compile/analyze.js";
import { ts } from "../compile/typescript.js";
import { type Known, mayBegin, preprocess } from "../magics/parse.js";

/** Code that is being typed, and the names in it. */
export interface Reading {
  code: string;
  /** Could the line of the cursor be a magic's: does it begin with a magic's sign, and end what stands above? */
  ends: boolean;
  names: Pick<Analysis, "mentioned" | "declared" | "exported">;
}

/**
 * Reads code that may be broken anywhere.
 *
 * @param known - is a name the notebook's?
 * @param at - the cursor: what is typed there may become a magic
 */
export function read(text: string, known: Known, at: number): Reading {
  const { code } = preprocess(text, known, at);
  const begin = text.lastIndexOf("\n", at - 1) + 1;
  const ends = /^[ \t]*(?:%|!)/.test(text.slice(begin)) && mayBegin(code.slice(0, begin));
  const file = ts.createSourceFile("cell.ts", code, ts.ScriptTarget.ES2023, false);
  const { declared, exported, mentioned } = analyze(file);
  // Every identifier counts: around the cursor the tree may not say what is a name.
  const all = new Set(mentioned);
  const gather = (node: t.Node): void => {
    if (ts.isIdentifier(node)) all.add(node.text);
    ts.forEachChild(node, gather);
  };
  gather(file);
  return { code, ends, names: { declared, exported, mentioned: all } };
}
