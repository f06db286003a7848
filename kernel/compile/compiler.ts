import { isBuiltin } from "node:module";
import { join } from "node:path";
import type t from "typescript";
import type { Directive } from "../magics/directives.js";
import { preprocess } from "../magics/parse.js";
import type { Analysis, Fault } from "./analyze.js";
import { describe, remedy } from "./diagnostics.js";
import { type Emitted, emitCell, emitFile, syntaxFaults } from "./emit.js";
import { emitExpression } from "./expression.js";
import { History } from "./history.js";
import { Project } from "./project.js";
import type { Surroundings } from "./rewrite.js";
import type { CompiledCell, CompileRequest, Diagnostic, TranspiledFile, Typecheck } from "./types.js";
import { ts } from "./typescript.js";

/** A cell that cannot run. */
export class CompileFailure extends Error {
  readonly diagnostics: Diagnostic[];

  constructor(diagnostics: Diagnostic[]) {
    super(diagnostics[0]?.message ?? "The cell cannot be compiled.");
    this.name = "CompileError";
    this.diagnostics = diagnostics;
  }
}

/** A compiled cell that waits for its commit. */
interface Pending {
  cell: string;
  analysis: Analysis;
  header: string;
  code: string;
  checked?: Checked;
  magics: readonly Directive[];
  folder: string;
}

/** A cell's file in the program that has checked it. */
interface Checked {
  program: t.Program;
  file: t.SourceFile;
}

/** What the language alone has: a cell that mentions nothing else can be checked before Node's declarations are read. */
const languageNames = new Set(
  "const Math JSON Array Object String Number Boolean Map Set Promise Date RegExp BigInt NaN Infinity isNaN parseInt parseFloat".split(
    " ",
  ),
);

/** What the kernelspec asks for: one made for notebooks in JavaScript turns the checks off. */
function fromEnvironment(): Typecheck | undefined {
  const asked = process.env.TUNEBOOK_TYPECHECK;
  return asked === "error" || asked === "warn" || asked === "off" ? asked : undefined;
}

/** Compiles the cells of one notebook, each against the names of those before it. Lives in the compile worker. */
export class Compiler {
  readonly project: Project;
  readonly history: History = new History();
  private pending: Pending[] = [];
  private override: Typecheck | undefined = fromEnvironment();
  /** The notebook's. */
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
    this.project = new Project(folder);
  }

  /** Does the first work ahead of the first request. */
  warmUp(node: boolean): void {
    if (node) this.project.loadNode();
    this.practise("const warm = [1, 2].map((x) => [x, `a`] as const); warm.length", false);
  }

  /** Compiles a cell that nobody will run, so that the next one meets code that V8 has compiled. */
  practise(code: string, declare = true): void {
    const { analysis } = this.emit(code, "cell-0", []);
    const checked = this.check(code, this.history.header(analysis), analysis);
    if (declare) this.declarations(checked);
  }

  /** While nobody asks: a new checker in place of one that has taken many cells, made to know what most cells need. */
  refresh(): void {
    if (!this.project.worn) return;
    this.project.renew();
    this.practise("[1].map((x) => x + 1).length", false);
  }

  compile({ code: text, cell, typecheck, cwd }: CompileRequest): CompiledCell {
    this.project.setFolder(cwd);
    const { code, typecheck: chosen, magics, faults: misused } = preprocess(text, (name) => this.history.has(name));
    if (misused.length > 0) throw new CompileFailure(describe(misused, text, "error"));
    if (chosen !== undefined) this.override = chosen;
    // "off" from the kernel stands for code that is no cell of the notebook's (expressions of a front end).
    const mode = chosen ?? (typecheck === "off" ? "off" : (this.override ?? typecheck));
    let emitted = this.emit(code, cell, magics);
    if (emitted.faults.length > 0) throw new CompileFailure(describe(emitted.faults, text, "error"));
    const { analysis } = emitted;
    const header = this.history.header(analysis);
    let diagnostics: Diagnostic[] = [];
    const pending: Pending = { cell, analysis, header, code, magics, folder: cwd };
    if (mode !== "off") {
      const { program, file, faults, typeOnly } = this.check(code, header, analysis);
      for (const fault of faults) fault.message += remedy(fault.code, fault.message, text);
      diagnostics = describe(faults, text, mode === "error" ? "error" : "warning");
      if (mode === "error" && diagnostics.length > 0) throw new CompileFailure(diagnostics);
      if (typeOnly.size > 0) {
        emitted = emitCell(code, cell, this.around(typeOnly), magics);
        for (const name of typeOnly) analysis.declared.get(name)!.value = false;
      }
      pending.checked = { program, file };
      this.project.keep(packagesOf(analysis));
    }
    this.pending = [...this.pending.slice(-1), pending];
    const declares = [...analysis.declared].filter(([, { value }]) => value).map(([name]) => name);
    return { js: emitted.js, map: emitted.map, diagnostics, declares: declares.sort() };
  }

  /** Makes a compiled cell's names known to those after it. */
  commit(cell: string): void {
    const pending = this.pending.find((one) => one.cell === cell);
    if (pending === undefined) return;
    this.pending = this.pending.filter((one) => one !== pending);
    const { analysis, header, code, checked, magics, folder } = pending;
    this.forget(magics);
    // Later cells import the same files from another folder.
    if (folder !== this.folder) {
      for (const { imported } of analysis.declared.values()) {
        if (imported && /^\.{1,2}\//.test(imported.specifier)) imported.specifier = join(folder, imported.specifier);
      }
    }
    if (analysis.declared.size === 0 && !analysis.augments) return;
    const declarations = checked && this.declarations(checked);
    if (declarations !== undefined) this.project.add(cell, declarations, ".d.ts");
    else this.project.add(cell, header + code, ".ts");
    this.history.commit(cell, analysis);
    if (analysis.augments) this.project.renew();
  }

  /** What a `%reset` of the cell takes away. */
  private forget(magics: readonly Directive[]): void {
    for (const magic of magics) {
      if (magic.kind !== "call" || magic.name !== "reset") continue;
      const names = resetNames(magic.texts.join(" "));
      if (names.length === 0) this.history.clear();
      else for (const name of names) this.history.delete(name);
    }
  }

  /** Commits a cell that has run in the past, without checking it. */
  restore(code: string, cell: string, cwd: string): void {
    this.compile({ code, cell, cwd, typecheck: "off" });
    this.commit(cell);
  }

  reset(): void {
    this.history.clear();
    this.project.clear();
    this.pending = [];
  }

  /** Packages may have been added or replaced. */
  packagesChanged(): void {
    this.project.packagesChanged();
  }

  transpile(path: string, text: string): TranspiledFile {
    const { js, map, faults } = emitFile(text, path);
    const [first] = describe(faults, text, "error");
    if (first) throw new SyntaxError(`${path}:${first.line}:${first.column}: ${first.message}`);
    return { js, map };
  }

  /** Code that is still being typed, in its surroundings: where it starts in the current file. */
  show(code: string, analysis: Pick<Analysis, "mentioned" | "declared" | "exported">): number {
    this.project.loadNode();
    const header = this.history.header(analysis);
    this.project.update(header + code);
    this.project.program();
    return header.length;
  }

  private emit(code: string, cell: string, magics: readonly Directive[]): Emitted {
    const around = this.around(new Set());
    return emitExpression(code, cell, around, magics) ?? emitCell(code, cell, around, magics);
  }

  private around(typeOnly: ReadonlySet<string>): Surroundings {
    return { typeOnly, boxed: (name) => this.history.boxed(name), constant: (name) => this.history.constant(name) };
  }

  private check(
    code: string,
    header: string,
    analysis: Analysis,
  ): Checked & { faults: Fault[]; typeOnly: Set<string> } {
    if (!this.project.withNode && needsNode(code, analysis)) this.project.loadNode();
    try {
      return this.checked(header + code, header.length);
    } catch (error) {
      // A checker that has failed may be left in any state: one that is shared gets a second, fresh try.
      if (!this.project.shared) throw error;
      this.project.renew();
      return this.checked(header + code, header.length);
    }
  }

  /** @param from - where the cell begins in the text */
  private checked(text: string, from: number): Checked & { faults: Fault[]; typeOnly: Set<string> } {
    this.project.update(text);
    const program = this.project.program();
    const file = program.getSourceFile(this.project.current)!;
    const faults = syntaxFaults(file);
    for (const { start, length, code: number, messageText, category } of program.getSemanticDiagnostics(file)) {
      if (category !== ts.DiagnosticCategory.Error || start === undefined || implicitAny(number)) continue;
      const message = ts.flattenDiagnosticMessageText(messageText, "\n");
      faults.push({ start, length: length ?? 1, code: number, message });
    }
    const own = faults.filter(({ start }) => start >= from);
    for (const fault of own) fault.start -= from;
    return { program, file, faults: own, typeOnly: typeOnlyImports(program, file, from) };
  }

  /** The checked cell's declarations as a file of their own, so that later cells need not infer its types again. */
  private declarations({ program, file }: Checked): string | undefined {
    let text: string | undefined;
    const write: t.WriteFileCallback = (_, written) => {
      text = written;
    };
    const { diagnostics } = program.emit(file, write, undefined, true);
    return diagnostics.length === 0 ? text : undefined;
  }
}

/** Whether a finding says no more than that something has no type: its author may mean any. */
function implicitAny(code: number): boolean {
  return code >= 7005 && code <= 7053 && !OTHER_FINDINGS.has(code);
}

// Unreachable code, unused labels, fallthrough, missing returns, `yield` and `this`: no matter of types left out.
const OTHER_FINDINGS: ReadonlySet<number> = new Set([7027, 7028, 7029, 7030, 7036, 7037, 7038, 7040, 7041]);

/** The names after `%reset`; IPython's options are taken and mean nothing. */
function resetNames(rest: string): string[] {
  return rest.split(/[\s,]+/).filter((word) => word !== "" && !word.startsWith("-"));
}

function needsNode(code: string, { free, typeNames, declared }: Analysis): boolean {
  // Of Node's many additions to the language's own types only these are seen by code without names of Node's.
  if (/\b(?:import|stack|cause|dispose|asyncDispose|require)\b/.test(code)) return true;
  for (const name of [...free, ...typeNames]) if (!languageNames.has(name) && !declared.has(name)) return true;
  return false;
}

function packagesOf({ declared }: Analysis): Set<string> {
  const found = new Set<string>();
  for (const { imported } of declared.values())
    if (imported && !isBuiltin(imported.specifier)) found.add(imported.specifier);
  return found;
}

/** Imported names that stand for types alone: the module need not even exist at run time. */
function typeOnlyImports(program: t.Program, file: t.SourceFile, from: number): Set<string> {
  const found = new Set<string>();
  const checker = program.getTypeChecker();
  for (const statement of file.statements) {
    if (
      statement.end <= from ||
      !ts.isImportDeclaration(statement) ||
      !statement.importClause ||
      statement.importClause.isTypeOnly
    )
      continue;
    const { name, namedBindings } = statement.importClause;
    const names = name ? [name] : [];
    if (namedBindings && ts.isNamedImports(namedBindings)) {
      for (const element of namedBindings.elements) if (!element.isTypeOnly) names.push(element.name);
    }
    for (const local of names) {
      const symbol = checker.getSymbolAtLocation(local);
      if (!symbol || !(symbol.flags & ts.SymbolFlags.Alias)) continue;
      if (!(checker.getAliasedSymbol(symbol).flags & ts.SymbolFlags.Value)) found.add(local.text);
    }
  }
  return found;
}
