import type t from "typescript";
import { type Analysis, analyze } from "../compile/analyze.js";
import { ts } from "../compile/typescript.js";
import { preprocess } from "../magics/parse.js";

/** Code that is being typed, and the names in it. */
export interface Reading {
  code: string;
  names: Pick<Analysis, "mentioned" | "declared" | "exported">;
}

/** Reads code that may be broken anywhere. */
export function read(text: string): Reading {
  const { code } = preprocess(text);
  const file = ts.createSourceFile("cell.ts", code, ts.ScriptTarget.ES2023, false);
  const { declared, exported, mentioned } = analyze(file);
  // Every identifier counts: around the cursor the tree may not say what is a name.
  const all = new Set(mentioned);
  const gather = (node: t.Node): void => {
    if (ts.isIdentifier(node)) all.add(node.text);
    ts.forEachChild(node, gather);
  };
  gather(file);
  return { code, names: { declared, exported, mentioned: all } };
}
