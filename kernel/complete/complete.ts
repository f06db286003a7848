import type t from "typescript";
import type { Compiler } from "../compile/compiler.js";
import type { Completion } from "../compile/types.js";
import { ts } from "../compile/typescript.js";
import { completeMagic } from "./magics.js";
import { read } from "./read.js";

const identifier = /[\p{ID_Start}$_#@][\p{ID_Continue}$\u200c\u200d]*$|[\p{ID_Continue}$\u200c\u200d]*$/u;

/** What could stand at the cursor, by the types of this cell and those before it. */
export function complete(compiler: Compiler, text: string, cursor: number): Completion {
  const at = Math.max(0, Math.min(cursor, text.length));
  const { code, names, ends } = read(text, (name) => compiler.history.has(name), at);
  const magic = ends
    ? completeMagic(text, at, () => [...compiler.history.startingWith("")].map(([name]) => name), compiler.folder)
    : undefined;
  if (magic) return magic;
  const offset = compiler.show(code, names);
  const found = compiler.project.service.getCompletionsAtPosition(compiler.project.current, offset + at, {
    includeCompletionsForModuleExports: false,
    includeCompletionsWithInsertText: false,
    includeCompletionsForImportStatements: false,
    excludeLibrarySymbolsInNavTo: true,
  });
  const span = found?.optionalReplacementSpan;
  let start = at - identifier.exec(code.slice(0, at))![0].length;
  const inString = found?.entries[0]?.replacementSpan ?? (span && inQuotes(code, at) ? span : undefined);
  if (inString && inString.start - offset <= at) start = inString.start - offset;
  const prefix = code.slice(start, at);
  const kinds = new Map<string, string>();
  for (const entry of found?.entries ?? []) {
    if (!entry.name.startsWith(prefix) || entry.name.startsWith("__tunebook__")) continue;
    if (entry.kind === ts.ScriptElementKind.warning) continue;
    if (!kinds.has(entry.name)) kinds.set(entry.name, kindOf(entry));
  }
  // Names of earlier cells that this one does not mention yet.
  if (found && !found.isMemberCompletion && !inString) {
    for (const [name, { kind }] of compiler.history.startingWith(prefix)) kinds.set(name, kind);
  }
  const matches = [...kinds.keys()].sort(byName);
  return {
    matches,
    start,
    end: at,
    metadata: {
      _jupyter_types_experimental: matches.map((match) => ({ text: match, type: kinds.get(match)!, start, end: at })),
    },
  };
}

function inQuotes(code: string, at: number): boolean {
  const line = code.slice(code.lastIndexOf("\n", at - 1) + 1, at);
  return (line.match(/["'`]/g)?.length ?? 0) % 2 === 1;
}

/** Own names before those that start with an underscore, each in alphabetical order. */
function byName(a: string, b: string): number {
  const hidden = Number(a.startsWith("_")) - Number(b.startsWith("_"));
  return hidden || (a < b ? -1 : a > b ? 1 : 0);
}

/** TypeScript's kind in the words of front ends' icons. */
function kindOf({ kind }: t.CompletionEntry): string {
  switch (kind) {
    case ts.ScriptElementKind.memberFunctionElement:
      return "method";
    case ts.ScriptElementKind.memberVariableElement:
    case ts.ScriptElementKind.memberGetAccessorElement:
    case ts.ScriptElementKind.memberSetAccessorElement:
      return "property";
    case ts.ScriptElementKind.functionElement:
    case ts.ScriptElementKind.localFunctionElement:
      return "function";
    case ts.ScriptElementKind.externalModuleName:
      return "module";
    default:
      return kind;
  }
}
