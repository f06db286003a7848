import type t from "typescript";
import { syntaxFaults } from "../compile/emit.js";
import type { Completeness } from "../compile/types.js";
import { ts } from "../compile/typescript.js";
import { preprocess } from "../magics/parse.js";

/** Findings that more code can mend even when they lie before the end: an open comment, template, string of many lines. */
const unterminated = new Set([1010, 1160]);

/** Can the code run as it is, does it want more lines, or is it wrong whatever follows? */
export function isComplete(text: string): Completeness {
  const { code, magics, faults: misused } = preprocess(text);
  if (misused.length > 0) return { status: "invalid" };
  const last = magics.at(-1);
  // The text of a cell magic ends with a blank line, as far as a console can tell.
  if (last?.kind === "call" && last.body !== undefined) {
    return /\n[ \t]*\n?$/.test(text) ? { status: "complete" } : { status: "incomplete", indent: "" };
  }
  if (last?.kind === "call" && last.end >= text.trimEnd().length && /\\\s*$/.test(text))
    return { status: "incomplete", indent: "" };
  const file = ts.createSourceFile("cell.ts", code, ts.ScriptTarget.ES2023, true);
  const faults = syntaxFaults(file);
  if (faults.length === 0)
    return endsOpen(file, code) ? { status: "incomplete", indent: indentation(code) } : { status: "complete" };
  const end = code.trimEnd().length;
  const first = faults[0]!;
  // A string that its line does not close stays open for ever.
  if (first.code === 1002 && !code.endsWith("\\")) return { status: "invalid" };
  const open = unterminated.has(first.code) || first.start >= end;
  return open ? { status: "incomplete", indent: indentation(code) } : { status: "invalid" };
}

/** `if (x)` or `else` without a body parse as an empty statement's absence: an error at the end, found above. A trailing `.` too. */
function endsOpen(file: t.SourceFile, code: string): boolean {
  const last = file.statements.at(-1);
  return (
    last !== undefined &&
    ts.isExpressionStatement(last) &&
    /(?:=>|[+\-*/%&|^<>=?:,.])\s*$/.test(code) &&
    !/(?:\+\+|--)\s*$/.test(code) &&
    !/\/[a-z]*\s*$/.test(code)
  );
}

const step = "  ";

/** One step in for each bracket that the last line leaves open, from that line's own indentation. */
function indentation(code: string): string {
  const line = code.trimEnd().split("\n").at(-1) ?? "";
  const own = /^[ \t]*/.exec(line)![0];
  const bare = line.replace(/(["'`])(?:\\.|(?!\1).)*\1|\/\/.*$/g, "");
  let depth = 0;
  for (const letter of bare) {
    if ("([{".includes(letter)) depth++;
    else if (")]}".includes(letter) && depth > 0) depth--;
  }
  return depth > 0 || /(?:=>|=|\b(?:else|do))\s*$/.test(bare) ? own + step : own;
}
