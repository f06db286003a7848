import { isBuiltin } from "node:module";
import type t from "typescript";
import { ts } from "./typescript.js";

/** Where the files of cells come from. */
export interface Sources {
  /** A committed cell's text; undefined for all else. */
  cell(path: string): string | undefined;
  /** A module as the project resolves it. */
  resolve(name: string, from: string, mode: t.ResolutionMode | undefined): t.ResolvedModuleFull | undefined;
}

/** What a program answers beside its public methods, to its checker and to the language service. */
interface Inner {
  getSourceFileByPath(path: string): t.SourceFile | undefined;
  getResolvedModule(file: t.SourceFile, name: string, mode: t.ResolutionMode): Resolution | undefined;
  getResolvedModuleFromModuleSpecifier(literal: t.StringLiteralLike, file?: t.SourceFile): Resolution | undefined;
}

interface Resolution {
  resolvedModule: t.ResolvedModuleFull | undefined;
}

/** What a program notes in the files that it reads. */
interface Noted {
  path: string;
  resolvedPath: string;
  originalFileName: string;
  version: string;
  imports: readonly t.StringLiteralLike[];
  moduleAugmentations: readonly t.Node[];
  ambientModuleNames: readonly string[];
}

interface Parts {
  bindSourceFile(file: t.SourceFile, options: t.CompilerOptions): void;
  getSetExternalModuleIndicator(options: t.CompilerOptions): (file: t.SourceFile) => void;
  getModeForUsageLocation(
    file: t.SourceFile,
    literal: t.StringLiteralLike,
    options: t.CompilerOptions,
  ): t.ResolutionMode;
}

const parts = ts as unknown as Partial<Parts>;
const needed = ["bindSourceFile", "getSetExternalModuleIndicator", "getModeForUsageLocation"] as const;

/** Cells that one checker takes before another one is made, at once or when there is time: it keeps something of each. */
const MOST = 250;
const MANY = 50;

/**
 * A program, and the checker that it has, which take further cells. A program of its own for each cell costs two to four milliseconds and some
 * megabytes: the program, a checker, and, since that knows nothing yet, the members of arrays, strings and promises once more. A cell is a
 * module, so nothing of the global scope depends on it, and a checker looks at modules only when it meets an import of one.
 *
 * So files of cells are put beside the program's own: bound by themselves, with imports resolved here. What would change the program or its
 * global scope (a module that it has not read, an augmentation) is refused, and needs a program of its own.
 */
export class Standing {
  readonly program: t.Program;
  private readonly sources: Sources;
  private readonly options: t.CompilerOptions;
  private readonly files = new Map<string, t.SourceFile>();
  private readonly resolved = new WeakMap<t.SourceFile, Map<string, Resolution>>();
  private readonly known: (path: string) => t.SourceFile | undefined;
  private count = 0;

  /** @returns undefined where TypeScript has no such parts */
  static over(program: t.Program, sources: Sources): Standing | undefined {
    const inner = program as unknown as Partial<Inner>;
    const able =
      typeof inner.getResolvedModule === "function" &&
      typeof inner.getResolvedModuleFromModuleSpecifier === "function" &&
      typeof inner.getSourceFileByPath === "function" &&
      needed.every((name) => typeof parts[name] === "function");
    return able ? new Standing(program, sources) : undefined;
  }

  private constructor(program: t.Program, sources: Sources) {
    this.program = program;
    this.sources = sources;
    this.options = program.getCompilerOptions();
    const inner = program as unknown as Inner;
    const { getSourceFile } = program;
    const { getSourceFileByPath, getResolvedModule, getResolvedModuleFromModuleSpecifier } = inner;
    this.known = getSourceFile;
    // The checker and the language service ask the program's object, so that they find what is put there.
    program.getSourceFile = (path) => this.files.get(path) ?? getSourceFile(path);
    inner.getSourceFileByPath = (path) => this.files.get(path) ?? getSourceFileByPath(path as never);
    inner.getResolvedModule = (file, name, mode) => {
      const own = this.resolved.get(file);
      return own === undefined ? getResolvedModule(file, name, mode) : own.get(name);
    };
    inner.getResolvedModuleFromModuleSpecifier = (literal, file = literal.getSourceFile()) => {
      const own = this.resolved.get(file);
      return own === undefined ? getResolvedModuleFromModuleSpecifier(literal, file) : own.get(literal.text);
    };
  }

  /** Has it taken as many cells as it can? */
  get full(): boolean {
    return this.count >= MOST;
  }

  /** Has it taken so many cells that another one should be made when there is time? */
  get worn(): boolean {
    return this.count >= MANY;
  }

  /**
   * Puts the current cell beside the program.
   *
   * @param path - of no file before
   * @returns undefined if it needs a program of its own
   */
  take(path: string, text: string): t.SourceFile | undefined {
    this.count++;
    return this.add(path, text);
  }

  /** Takes the current cell away again; what knows its types keeps it. */
  drop(path: string): void {
    this.files.delete(path);
  }

  private add(path: string, text: string): t.SourceFile | undefined {
    const { bindSourceFile, getSetExternalModuleIndicator } = parts as Parts;
    const file = ts.createSourceFile(path, text, {
      languageVersion: this.options.target!,
      setExternalModuleIndicator: getSetExternalModuleIndicator(this.options),
      jsDocParsingMode: ts.JSDocParsingMode.ParseNone,
    });
    const imports = importsOf(file);
    if (imports === undefined || file.referencedFiles.length + file.typeReferenceDirectives.length > 0)
      return undefined;
    const noted: Noted = {
      path,
      resolvedPath: path,
      originalFileName: path,
      version: "1",
      imports,
      moduleAugmentations: [],
      ambientModuleNames: [],
    };
    Object.assign(file, noted);
    bindSourceFile(file, this.options);
    // Cells that import each other find each other.
    this.files.set(path, file);
    if (this.resolve(file, imports)) return file;
    this.files.delete(path);
    return undefined;
  }

  /** @returns whether every module is there that the file imports */
  private resolve(file: t.SourceFile, imports: readonly t.StringLiteralLike[]): boolean {
    const own = new Map<string, Resolution>();
    for (const literal of imports) {
      const mode = (parts as Parts).getModeForUsageLocation(file, literal, this.options);
      const resolvedModule = this.sources.resolve(literal.text, file.fileName, mode);
      if (resolvedModule === undefined) {
        // Node's modules are ambient; of others one may come to be.
        if (!isBuiltin(literal.text)) return false;
      } else if (!this.has(resolvedModule)) return false;
      own.set(literal.text, { resolvedModule });
    }
    this.resolved.set(file, own);
    return true;
  }

  private has({ resolvedFileName: path, extension }: t.ResolvedModuleFull): boolean {
    // A package without types is `any`, and no program reads it.
    if (extension === ts.Extension.Js || extension === ts.Extension.Cjs || extension === ts.Extension.Mjs) return true;
    if (this.files.has(path) || this.known(path) !== undefined) return true;
    const text = this.sources.cell(path);
    return text !== undefined && this.add(path, text) !== undefined;
  }
}

/** The specifiers of all that a file imports, in statements, types and calls; undefined if it adds to other modules or to the global scope. */
function importsOf(file: t.SourceFile): t.StringLiteralLike[] | undefined {
  const found: t.StringLiteralLike[] = [];
  let alone = true;
  const note = (node: t.Node | undefined): void => {
    if (node && ts.isStringLiteralLike(node) && node.text !== "") found.push(node);
  };
  const visit = (node: t.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) note(node.moduleSpecifier);
    else if (ts.isExternalModuleReference(node)) note(node.expression);
    else if (ts.isImportTypeNode(node)) note(ts.isLiteralTypeNode(node.argument) ? node.argument.literal : undefined);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) note(node.arguments[0]);
    else if (ts.isModuleDeclaration(node) && (ts.isStringLiteral(node.name) || node.name.text === "global")) {
      alone = false;
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return alone ? found : undefined;
}
