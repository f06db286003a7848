import type t from "typescript";
import type { Directive } from "../magics/directives.js";
import { type Analysis, analyze, type Fault } from "./analyze.js";
import { contexts, HERE } from "./contexts.js";
import { type Printed, printAlone } from "./print.js";
import { boxName, type Prologue, rewriter, type Surroundings } from "./rewrite.js";
import { ts } from "./typescript.js";

export interface Emitted {
  js: string;
  map: string;
  analysis: Analysis;
  /** Syntax errors and what the analysis objects to; with any, `js` must not run. */
  faults: Fault[];
  /** Was it printed without a program of its own? */
  alone: boolean;
}

/** How cells are printed. */
export const emitOptions: t.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleDetection: ts.ModuleDetectionKind.Force,
  isolatedModules: true,
  sourceMap: true,
  removeComments: true,
};

/**
 * Turns a cell into the body of an async function, without looking at types.
 * @param code - the cell, magics already gone
 * @param cell - its name, the source's name in the map
 * @param magics - what they have left behind in the code, in order
 * @param alone - may it be printed without a program of its own, where that is possible?
 */
export function emitCell(
  code: string,
  cell: string,
  around: Surroundings,
  magics: readonly Directive[] = [],
  alone = true,
): Emitted {
  return (alone && emit(code, cell, around, magics, true)) || emit(code, cell, around, magics, false)!;
}

/** @returns undefined for code that cannot be printed alone, if it is to be */
function emit(
  code: string,
  cell: string,
  around: Surroundings,
  magics: readonly Directive[],
  alone: boolean,
): Emitted | undefined {
  let analysis: Analysis | undefined;
  const prologue: Prologue = { boxes: new Set(), functions: [], awaits: false };
  const faults: Fault[] = [];
  const transform: t.TransformerFactory<t.SourceFile> = (context) => (file) => {
    faults.push(...syntaxFaults(file));
    analysis = analyze(file);
    if (faults.length > 0) return file;
    faults.push(...analysis.faults, ...constantFaults(file, analysis, around), ...joinedFaults(file, magics));
    return rewriter(analysis, around, prologue, magics)(context)(file);
  };
  const before = [transform, contexts(prologue)];
  const printed = alone ? printAlone(code, `${cell}.ts`, emitOptions, before) : print(code, `${cell}.ts`, before);
  if (printed === undefined) return undefined;
  const body = printed.js.replace(/\n?\/\/# sourceMappingURL=.*\s*$/, "").replace(/(^|\n)export \{\};\s*$/, "");
  return { js: `${setUp(prologue)}\n${body}`, map: shiftMap(printed.map, cell), analysis: analysis!, faults, alone };
}

function print(code: string, fileName: string, before: t.TransformerFactory<t.SourceFile>[]): Printed {
  const made = ts.transpileModule(code, { compilerOptions: emitOptions, fileName, transformers: { before } });
  return { js: made.outputText, map: made.sourceMapText ?? "" };
}

/** Assignments to constants: boxes would let them pass. */
function constantFaults(file: t.SourceFile, { declared, references }: Analysis, around: Surroundings): Fault[] {
  const faults: Fault[] = [];
  for (const [node, { name, write }] of references) {
    if (!write) continue;
    const kind = declared.get(name)?.kind;
    if (kind === undefined ? !around.constant(name) : kind !== "const" && kind !== "import") continue;
    const start = node.getStart(file);
    faults.push({
      start,
      length: node.end - start,
      code: 2588,
      message: `Cannot assign to '${name}' because it is a constant.`,
    });
  }
  return faults;
}

/** Statements that a line with a magic has run into: `!cat {file}` before a line that begins with a bracket. */
function joinedFaults(file: t.SourceFile, magics: readonly Directive[]): Fault[] {
  const faults: Fault[] = [];
  for (const { kind, start, end } of magics) {
    if (kind !== "call") continue;
    for (const statement of file.statements) {
      const last = ts.isExpressionStatement(statement) ? statement.expression.end : statement.end;
      if (statement.getStart(file) < start || statement.getStart(file) >= end || last <= end) continue;
      const message =
        "The line before this one is a magic's; this line seems to go on with it. Begin it with a semicolon.";
      faults.push({ start: end, length: 1, code: 0, message });
    }
  }
  return faults;
}

/** The first line: strict mode, the boxes, hoisted functions, the cell's own thread of output. */
export function setUp({ boxes, functions, awaits }: Prologue): string {
  const names = [...boxes].map((name) => `${boxName(name)} = $scope["ref()"](${JSON.stringify(name)})`);
  const declaration = names.length > 0 ? ` const ${names.join(", ")};` : "";
  const here = awaits ? ` const ${HERE} = $cell.enter();` : "";
  return `"use strict";${declaration}${here}${functions.map((name) => ` ${boxName(name)}.v = ${name};`).join("")}`;
}

/** One line further down, and under the cell's name. */
function shiftMap(text: string, cell: string): string {
  const map = JSON.parse(text) as { mappings: string };
  return JSON.stringify({ ...map, file: cell, sources: [cell], mappings: `;${map.mappings}` });
}

/** The parser's own findings. */
export function syntaxFaults(file: t.SourceFile): Fault[] {
  const found = (file as t.SourceFile & { parseDiagnostics?: t.DiagnosticWithLocation[] }).parseDiagnostics ?? [];
  return found.map(({ start, length, code, messageText }) => ({
    start,
    length,
    code,
    message: ts.flattenDiagnosticMessageText(messageText, "\n"),
  }));
}

/** A local TypeScript file as a call of `System.register`: its loader links the files of a notebook itself. */
export function emitFile(code: string, path: string): { js: string; map: string; faults: Fault[] } {
  const { outputText, sourceMapText, diagnostics } = ts.transpileModule(code, {
    compilerOptions: {
      ...emitOptions,
      removeComments: false,
      moduleDetection: ts.ModuleDetectionKind.Auto,
      verbatimModuleSyntax: false,
      module: ts.ModuleKind.System,
      // TypeScript 7 drops this format; the kernel's compiler is TypeScript 6.
      ignoreDeprecations: "6.0",
      ...(path.endsWith(".tsx") ? { jsx: ts.JsxEmit.ReactJSX } : {}),
    },
    fileName: path,
    reportDiagnostics: true,
  });
  const faults = (diagnostics ?? []).map(({ start, length, code, messageText }) => ({
    start: start ?? 0,
    length: length ?? 1,
    code,
    message: ts.flattenDiagnosticMessageText(messageText, "\n"),
  }));
  return { js: outputText.replace(/\n?\/\/# sourceMappingURL=.*\s*$/, ""), map: sourceMapText ?? "", faults };
}
