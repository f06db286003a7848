import { readFile, stat } from "node:fs/promises";
import { builtinModules, createRequire } from "node:module";
import { extname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import vm from "node:vm";
import { LocalModules, type Transpile, TYPESCRIPT } from "./modules.js";

type Namespace = Record<string, unknown>;
type Load = (specifier: string, options?: ImportCallOptions) => Promise<Namespace>;

/** Imports for the cells of a notebook: everything is resolved from the notebook's folder. */
export class Imports {
  /** The notebook's folder. */
  readonly folder: string;
  readonly #load: Load;
  readonly #local: LocalModules;
  readonly #stamps = new Map<string, string>();
  /** `require` of the notebook's folder. */
  readonly require: NodeJS.Require;
  /** `import.meta` of the cells. */
  readonly meta: { url: string; filename: string; dirname: string };

  constructor(folder: string, transpile: Transpile, compiled: (file: string, map: string, text: string) => void) {
    this.folder = folder;
    this.#load = importer(folder);
    this.meta = this.metaOf(join(folder, "notebook.ts"), folder);
    this.require = this.#withOwnPackage(createRequire(join(folder, "notebook.cjs")));
    this.#local = new LocalModules(transpile, compiled, (specifier, from) => this.#outside(specifier, from));
  }

  /** What `import` of a cell becomes. */
  import = (specifier: string, options?: ImportCallOptions): Promise<Namespace> =>
    this.#import(this.folder, this.#load, specifier, options);

  /** What `import` of code from another folder becomes. */
  from(folder: string): Imports["import"] {
    if (folder === this.folder) return this.import;
    const load = importer(folder);
    return (specifier, options) => this.#import(folder, load, specifier, options);
  }

  /** `import.meta` of code in a file. */
  metaOf(filename: string, folder: string): Imports["meta"] {
    return { url: pathToFileURL(filename).href, filename, dirname: folder };
  }

  #import(folder: string, load: Load, specifier: string, options?: ImportCallOptions): Promise<Namespace> {
    const file = this.#localFile(specifier, folder);
    if (file !== undefined && TYPESCRIPT.test(file)) return this.#local.import(file);
    if (file !== undefined && extname(file) === ".json") return json(file);
    if (file !== undefined) return this.#fresh(file, options);
    return this.#package(load, specifier, options);
  }

  async #package(load: Load, specifier: string, options?: ImportCallOptions): Promise<Namespace> {
    const own = ownPackage(specifier, this.require);
    if (own !== undefined) return this.#load(pathToFileURL(own).href, options);
    try {
      return await load(specifier, options);
    } catch (error) {
      throw this.#withRemedy(error, specifier);
    }
  }

  // An import inside a local TypeScript file that is no TypeScript file itself.
  #outside(specifier: string, from: string): Promise<Namespace> {
    const own = ownPackage(specifier, this.require);
    if (own !== undefined) return this.#load(pathToFileURL(own).href);
    return importer(join(from, ".."))(specifier);
  }

  // A local JavaScript file that has changed is loaded anew: an ES module by another query, CommonJS from its cache.
  async #fresh(file: string, options?: ImportCallOptions): Promise<Namespace> {
    const url = pathToFileURL(file);
    try {
      const { mtimeMs, size } = await stat(file);
      const stamp = `${mtimeMs}-${size}`;
      const known = this.#stamps.get(file);
      if (known !== undefined && known !== stamp) delete this.require.cache[file];
      if (known === undefined) this.#stamps.set(file, stamp);
      else if (known !== stamp) url.searchParams.set("changed", stamp);
    } catch {
      // The import below says what is wrong.
    }
    return this.#load(url.href, options);
  }

  #localFile(specifier: string, folder: string): string | undefined {
    if (specifier.startsWith("file://")) return fileURLToPath(specifier);
    if (/^\.{0,2}\//.test(specifier) || specifier === "." || specifier === "..") {
      return this.#local.find(resolve(folder, specifier));
    }
    return undefined;
  }

  #withRemedy(error: unknown, specifier: string): unknown {
    const code = (error as { code?: unknown }).code;
    if (code !== "ERR_MODULE_NOT_FOUND" || !(error instanceof Error)) return error;
    const name = /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? specifier;
    if (!error.message.includes(`'${name}'`)) return error;
    error.message = `Cannot find the package "${name}" from ${this.folder}: run %npm install ${name} in a cell.`;
    return error;
  }

  #withOwnPackage(require: NodeJS.Require): NodeJS.Require {
    const wrapped = (id: string): unknown => require(ownPackage(id, require) ?? id);
    return Object.assign(wrapped, require);
  }
}

/** `import()` as a module in `folder` would do it. */
function importer(folder: string): (specifier: string, options?: ImportCallOptions) => Promise<Namespace> {
  return new vm.Script("(specifier, options) => import(specifier, options)", {
    filename: join(folder, "notebook.mjs"),
    importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  }).runInThisContext() as (specifier: string, options?: ImportCallOptions) => Promise<Namespace>;
}

const PACKAGE = "tunebook";
const ROOT = new URL("../../../../", import.meta.url);

/** Path of what stands for the package "tslab", so that notebooks made for that kernel run unchanged. */
const TSLAB = fileURLToPath(new URL("./tslab.js", import.meta.url));

// The notebook's own copy of this package comes first; without one, the kernel's.
function ownPackage(specifier: string, require: NodeJS.Require): string | undefined {
  if (specifier === "tslab") return TSLAB;
  if (specifier !== PACKAGE && !specifier.startsWith(`${PACKAGE}/`)) return undefined;
  if (builtinModules.includes(specifier)) return undefined;
  try {
    return require.resolve(specifier);
  } catch {
    return createRequire(new URL("package.json", ROOT)).resolve(specifier);
  }
}

async function json(file: string): Promise<Namespace> {
  const text = await readFile(file, "utf8");
  try {
    return Object.assign(Object.create(null) as Namespace, { default: JSON.parse(text) as unknown });
  } catch (error) {
    throw new SyntaxError(`${file} is no JSON: ${(error as Error).message}`);
  }
}
