import { statSync } from "node:fs";
import { isBuiltin } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type t from "typescript";
import { type Libraries, languageFile, libraries, nodeFile } from "./libraries.js";
import { Standing } from "./standing.js";
import { libFolder, ts } from "./typescript.js";

/** Marks the virtual files of cells, so that no file of the user's can have such a name. */
export const CELL_PREFIX = "__tunebook__";

// dist/kernel/compile/project.js: the package is three folders up.
const packageFolder = fileURLToPath(new URL("../../../", import.meta.url));
const packageName = "tunebook";
const ownFiles = join(packageFolder, "dist");
const ownDeclarations = join(ownFiles, "src");
/** What stands for the package "tslab" in cells. */
const tslab: t.ResolvedModuleFull = {
  resolvedFileName: join(packageFolder, "dist", "kernel", "execute", "child", "tslab.d.ts"),
  extension: ts.Extension.Dts,
  isExternalLibraryImport: true,
};

/** Strict, but friendly to a notebook: parameters need no type, packages without types are `any`, a caught error too. */
export const compilerOptions: t.CompilerOptions = {
  target: ts.ScriptTarget.ES2023,
  module: ts.ModuleKind.Preserve,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  moduleDetection: ts.ModuleDetectionKind.Force,
  noLib: true,
  types: [],
  strict: true,
  noImplicitAny: true, // so that an empty array takes the type of what is put into it; what else it finds is left out
  noImplicitThis: false,
  useUnknownInCatchVariables: false,
  allowUnreachableCode: true,
  allowUnusedLabels: true,
  allowImportingTsExtensions: true,
  resolveJsonModule: true,
  allowJs: false,
  skipLibCheck: true,
  declaration: true,
  removeComments: false,
};

/**
 * The language service over one current cell and whatever it stands on. The names of the root files never change, so
 * that TypeScript keeps its program's structure from cell to cell; earlier cells come in by imports of virtual files.
 */
export class Project {
  readonly service: t.LanguageService;
  private readonly libraries: Libraries = libraries();
  /** Texts by path. */
  private readonly virtual = new Map<string, string>();
  private readonly snapshots = new Map<string, { version: string; snapshot: t.IScriptSnapshot }>();
  private readonly resolutions = new Map<string, t.ResolvedModuleFull>();
  /** Paths of committed cells by the specifier that later cells import them with. */
  private readonly cells = new Map<string, string>();
  private readonly kept = new Set<string>();
  private roots: string[];
  private nodeLoaded = false;
  private thinned = false;
  private folder = "";
  private currentPath = "";
  private packages = "";
  private version = 0;
  /** How often the language service was to look whether its program is still right. */
  private asked = 0;
  /** Have packages changed since the start? Until then no file of theirs is looked at twice. */
  private installing = false;
  /** Only remembers the package.json files that say how a file of a package is to be read. */
  private readonly manifests: t.ModuleResolutionCache;
  private text = "";
  /** Takes cells that need no program of their own. */
  private standing: Standing | undefined;
  /** The current cell's file there. */
  private beside: t.SourceFile | undefined;
  private taken = 0;

  constructor(folder: string) {
    for (const [path, text] of [...this.libraries.language, ...this.libraries.cell]) this.virtual.set(path, text);
    this.roots = [...this.virtual.keys()];
    this.manifests = ts.createModuleResolutionCache(folder, (path) => path, compilerOptions);
    this.moveTo(folder);
    // Comments of the declarations are not parsed into trees: a third of the start. Inspection reads them from the text.
    const comments = ts.JSDocParsingMode.ParseNone;
    this.service = ts.createLanguageService(this.host(comments), ts.createDocumentRegistry(true, folder, comments));
  }

  /** Path of the current cell: one of its own where it stands beside a program. */
  get current(): string {
    return this.beside?.fileName ?? this.currentPath;
  }

  get withNode(): boolean {
    return this.nodeLoaded;
  }

  /** Reads the declarations of Node. Until then only the language itself is known: that is enough for `1 + 1`, and early. */
  loadNode(): void {
    if (this.nodeLoaded) return;
    this.nodeLoaded = true;
    for (const [path, text] of this.libraries.node()) {
      if (!this.virtual.has(path)) this.roots.push(path);
      this.virtual.set(path, text);
    }
    this.renew();
  }

  /** The next cell gets a program and a checker of its own, which those after it share. */
  renew(): void {
    this.standing = undefined;
    this.beside = undefined;
    this.version++;
  }

  /** Does the current cell share a program and a checker with others? */
  get shared(): boolean {
    return this.beside !== undefined;
  }

  /** Has the shared checker taken so many cells that another one should be made when there is time? */
  get worn(): boolean {
    return this.standing?.worn === true;
  }

  /** From now on the files of packages are read again when they have changed. */
  packagesChanged(): void {
    this.installing = true;
    this.resolutions.clear();
    this.manifests.clear();
    this.renew();
  }

  setFolder(folder: string): void {
    if (folder === this.folder) return;
    this.moveTo(folder);
  }

  /** A committed cell: its declarations (`.d.ts`) or, where they cannot be written down, its code (`.ts`). */
  add(cell: string, text: string, extension: ".d.ts" | ".ts"): void {
    const path = join(this.folder, CELL_PREFIX + cell + extension);
    if (this.virtual.has(path)) this.renew();
    this.virtual.set(path, text);
    this.cells.set(`./${CELL_PREFIX}${cell}`, path);
  }

  /** Forgets every committed cell. */
  clear(): void {
    for (const path of this.cells.values()) {
      this.virtual.delete(path);
      this.snapshots.delete(path);
    }
    this.cells.clear();
    this.renew();
  }

  /** Keeps the packages that a cell has imported in the program: cells without them would drop them, to be read again. */
  keep(specifiers: Iterable<string>): void {
    for (const specifier of specifiers) this.kept.add(`import ${JSON.stringify(specifier)};`);
    const text = [...this.kept, "export {};"].join("\n");
    if (this.virtual.get(this.packages) === text) return;
    this.virtual.set(this.packages, text);
    // The program of the cell that has brought them has read them.
    this.version++;
  }

  private moveTo(folder: string): void {
    this.virtual.delete(this.packages);
    this.folder = folder;
    this.currentPath = join(folder, `${CELL_PREFIX}cell.ts`);
    this.packages = join(folder, `${CELL_PREFIX}packages.ts`);
    this.resolutions.clear();
    this.keep([]);
    this.renew();
  }

  /** Puts text into the current cell. */
  update(text: string): void {
    if (text === this.text && (this.beside || !this.standing)) return;
    if (this.beside) this.standing?.drop(this.beside.fileName);
    this.text = text;
    this.beside = undefined;
    this.version++;
    const path = join(this.folder, `${CELL_PREFIX}cell.${++this.taken}.ts`);
    try {
      if (this.standing?.full === false) this.beside = this.standing.take(path, text);
    } catch {
      // What is wrong with it shows in a program of its own.
      this.standing = undefined;
    }
  }

  /** The program that knows the current cell, with a checker. */
  program(): t.Program {
    if (this.beside) return this.standing!.program;
    const program = this.service.getProgram()!;
    if (this.nodeLoaded && !this.thinned) {
      this.thinned = true;
      thin(program.getSourceFile(nodeFile));
    }
    if (this.standing?.program !== program) this.standing = this.stand(program);
    return program;
  }

  /**
   * Files of the user's change, and with them what they import: cells of a program with one get programs of their own. Packages stay as they
   * are until there is news of them, and then no program is shared any longer.
   */
  private stand(program: t.Program): Standing | undefined {
    for (const { fileName } of program.getSourceFiles()) {
      const own = fileName === this.currentPath || this.virtual.has(fileName) || fileName.startsWith(ownFiles);
      if (!own && !fileName.includes("/node_modules/")) return undefined;
    }
    return Standing.over(program, {
      cell: (path) => (path.includes(CELL_PREFIX) ? this.virtual.get(path) : undefined),
      resolve: (name, from, mode) => this.resolve(name, from, compilerOptions, mode),
    });
  }

  private host(jsDocParsingMode: t.JSDocParsingMode): t.LanguageServiceHost {
    const host: t.LanguageServiceHost & { getModuleResolutionCache(): t.ModuleResolutionCache } = {
      getModuleResolutionCache: () => this.manifests,
      jsDocParsingMode,
      // A cell that stands beside a program leaves that as it is.
      getProjectVersion: () => `${this.beside ? this.asked : ++this.asked}`,
      getCompilationSettings: () => compilerOptions,
      getScriptFileNames: () => [this.current, this.packages, ...this.roots],
      getScriptVersion: (path) => this.versionOf(path),
      getScriptSnapshot: (path) => this.snapshot(path),
      getCurrentDirectory: () => this.folder,
      getDefaultLibFileName: () => languageFile,
      fileExists: (path) => this.exists(path),
      readFile: (path) => this.read(path),
      directoryExists: ts.sys.directoryExists,
      getDirectories: ts.sys.getDirectories,
      readDirectory: ts.sys.readDirectory,
      realpath: ts.sys.realpath!,
      useCaseSensitiveFileNames: () => ts.sys.useCaseSensitiveFileNames,
      resolveModuleNameLiterals: (literals, from, _redirect, options, file) =>
        literals.map((literal) => {
          const mode = file && ts.getModeForUsageLocation(file, literal, options);
          return { resolvedModule: this.resolve(literal.text, from, options, mode) };
        }),
      resolveTypeReferenceDirectiveReferences: (references, from, redirect, options) =>
        references.map((reference) => this.typeReference(reference, from, redirect, options)),
    };
    return host;
  }

  private versionOf(path: string): string {
    if (path === this.current) return `${this.version}`;
    if (path === this.packages) return `${this.kept.size}`;
    if (path === languageFile) return this.nodeLoaded ? "2" : "1";
    // Packages do not change while a kernel runs, nor does this one.
    if (this.virtual.has(path) || path.startsWith(ownDeclarations)) return "1";
    if (path.includes("/node_modules/") && !(this.installing && !path.startsWith(packageFolder))) return "1";
    // A file of the user's: as it is now.
    const stat = statSync(path, { throwIfNoEntry: false });
    return stat ? `${stat.mtimeMs}-${stat.size}` : "0";
  }

  private snapshot(path: string): t.IScriptSnapshot | undefined {
    if (path === this.current) return ts.ScriptSnapshot.fromString(this.text);
    const version = this.versionOf(path);
    const known = this.snapshots.get(path);
    if (known?.version === version) return known.snapshot;
    const text = this.read(path);
    if (text === undefined) return undefined;
    const snapshot = ts.ScriptSnapshot.fromString(text);
    this.snapshots.set(path, { version, snapshot });
    return snapshot;
  }

  private exists(path: string): boolean {
    return path === this.current || this.virtual.has(path) || ts.sys.fileExists(path);
  }

  private read(path: string): string | undefined {
    if (path === this.current) return this.text;
    // The language is loaded already; a package that asks for a part of it gets nothing twice.
    if (dirname(path) === libFolder && /^lib\.(?:es|decorators)/.test(path.slice(libFolder.length + 1))) return "";
    return this.virtual.get(path) ?? ts.sys.readFile(path);
  }

  private resolve(
    name: string,
    from: string,
    options: t.CompilerOptions,
    mode: t.ResolutionMode | undefined,
  ): t.ResolvedModuleFull | undefined {
    const cell = this.cells.get(name);
    if (cell !== undefined) {
      const extension = cell.endsWith(".d.ts") ? ts.Extension.Dts : ts.Extension.Ts;
      return { resolvedFileName: cell, extension, isExternalLibraryImport: false };
    }
    // Node's declarations are there as ambient modules; looking for packages of their names costs each program 10 ms.
    if (isBuiltin(name)) return undefined;
    if (name === "tslab") return tslab;
    const key = `${dirname(from)}\0${name}\0${mode ?? ""}`;
    const known = this.resolutions.get(key);
    if (known && this.exists(known.resolvedFileName)) return known;
    const host: t.ModuleResolutionHost = ts.sys;
    let found = ts.resolveModuleName(name, from, options, host, undefined, undefined, mode).resolvedModule;
    if (!found && (name === packageName || name.startsWith(`${packageName}/`))) {
      found = ts.resolveModuleName(
        name,
        join(packageFolder, "index.ts"),
        options,
        host,
        undefined,
        undefined,
        mode,
      ).resolvedModule;
    }
    // A JavaScript file without types counts as not found here: `any`, without an error.
    if (found) this.resolutions.set(key, found);
    return found;
  }

  private typeReference(
    reference: t.FileReference | string,
    from: string,
    redirect: t.ResolvedProjectReference | undefined,
    options: t.CompilerOptions,
  ): t.ResolvedTypeReferenceDirectiveWithFailedLookupLocations {
    const name = typeof reference === "string" ? reference : reference.fileName;
    if (name === "node") {
      // The declarations are there once, as one file.
      const primary = { primary: true, resolvedFileName: nodeFile };
      if (this.nodeLoaded) return { resolvedTypeReferenceDirective: primary } as never;
      return { resolvedTypeReferenceDirective: undefined } as never;
    }
    return ts.resolveTypeReferenceDirective(name, from, options, ts.sys, redirect);
  }
}

/**
 * Node's modules import each other, more than 200 times, and all of them are declared in the one file. A program looks each import up
 * whenever the imports of a cell change, to find that there is no file for it; so they are taken off the file's list.
 */
function thin(file: t.SourceFile | undefined): void {
  const known = file as unknown as { imports?: readonly t.StringLiteralLike[]; ambientModuleNames?: readonly string[] };
  if (!known?.imports || !known.ambientModuleNames) return;
  const own = new Set(known.ambientModuleNames);
  known.imports = known.imports.filter(({ text }) => !own.has(text));
}
