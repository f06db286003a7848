import type { Diagnostic } from "../compile/types.js";
import type { ErrorReport } from "./channel.js";

const MAX_SHOWN = 10;
const MAX_LINE = 200;

/** The error of a cell that was not compiled: every finding with its line, a caret and the compiler's number. */
export function compileFailure(thrown: unknown): ErrorReport {
  const error = thrown as Error & { diagnostics?: readonly Diagnostic[] };
  const diagnostics = (error.diagnostics ?? []).filter(({ severity }) => severity === "error");
  const first = diagnostics[0];
  if (first === undefined) {
    const ename = error.name || "CompileError";
    return { ename, evalue: error.message, traceback: [`${ename}: ${error.message}`] };
  }
  // TypeScript's numbers from 1000 to 1999 are about syntax.
  const ename =
    first.code === -1 ? "UsageError" : first.code >= 1_000 && first.code < 2_000 ? "SyntaxError" : "TypeCheckError";
  const traceback = diagnostics.slice(0, MAX_SHOWN).map((one, i) => (i === 0 ? `${ename}: ` : "") + excerpt(one));
  if (diagnostics.length > MAX_SHOWN) traceback.push(`… and ${diagnostics.length - MAX_SHOWN} more errors`);
  return { ename, evalue: first.message, traceback };
}

/** The warnings among a cell's diagnostics, as text for stderr. */
export function warnings(diagnostics: readonly Diagnostic[]): string {
  return diagnostics.map((one) => `${one.severity}: ${excerpt(one)}\n`).join("");
}

function excerpt({ message, code, line, column, length, source }: Diagnostic): string {
  const number = code > 0 ? ` (TS${code})` : "";
  // Of a very long line: the part around the place.
  const from = Math.max(0, column - MAX_LINE / 2);
  const shown = source.slice(from, from + MAX_LINE);
  const indent = " ".repeat(column - 1 - from);
  const carets = "^".repeat(Math.max(1, Math.min(length, shown.length - indent.length)));
  return [`${message}${number}`, `${String(line).padStart(4)} | ${shown}`, `     | ${indent}${carets}`].join("\n");
}
