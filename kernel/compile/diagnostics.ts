import type { Fault } from "./analyze.js";
import { CELL_PREFIX } from "./project.js";
import type { Diagnostic } from "./types.js";

/** Offsets of a cell as lines and columns. */
export function describe(faults: readonly Fault[], code: string, severity: Diagnostic["severity"]): Diagnostic[] {
  const lines = code.split(/\r\n|[\n\r\u2028\u2029]/);
  const ends = /\r\n|[\n\r\u2028\u2029]/g;
  const starts = [0];
  while (ends.exec(code)) starts.push(ends.lastIndex);
  const seen = new Set<string>();
  const found: Diagnostic[] = [];
  for (const fault of [...faults].sort((a, b) => a.start - b.start)) {
    const start = Math.min(fault.start, code.length);
    let line = 0;
    while (line + 1 < starts.length && starts[line + 1]! <= start) line++;
    const source = lines[line] ?? "";
    const column = Math.min(start - starts[line]!, source.length);
    const key = `${start} ${fault.code} ${fault.message}`;
    if (seen.has(key)) continue;
    seen.add(key);
    // A finding of many lines is marked on its first.
    const length = Math.max(1, Math.min(fault.length, source.length - column));
    found.push({
      severity,
      message: clean(fault.message),
      code: fault.code,
      line: line + 1,
      column: column + 1,
      length,
      source,
    });
  }
  return found;
}

/** What to do about a module that is not found, where that is known. */
export function remedy(code: number, message: string, cell: string): string {
  const specifier = code === 2307 ? /^Cannot find module '([^']+)'/.exec(message)?.[1] : undefined;
  if (specifier === undefined || specifier.startsWith("node:")) return "";
  if (/^(?:\.{0,2}\/|[A-Za-z]:)/.test(specifier)) return " Local files are looked for from the notebook's folder.";
  const name = /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? specifier;
  if (/^[ \t]*%npm[ \t]+(?:i|install|add)\b/m.test(cell)) {
    return " A cell is checked before it runs: leave %npm install in a cell of its own, and import in the next.";
  }
  return ` Run %npm install ${name} in a cell of its own first.`;
}

const virtualImport = new RegExp(`(?:typeof )?import\\("[^"]*${CELL_PREFIX}[^"]*"\\)\\.`, "g");

/** Types of other cells by their plain names. */
export function clean(text: string): string {
  return text.replace(virtualImport, "");
}
