import { existsSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import vm from "node:vm";

type Namespace = Record<string, unknown>;

/** Turns TypeScript into a `System.register` call; done by the kernel process, which has the compiler. */
export type Transpile = (file: string, text: string) => Promise<{ js: string; map: string }>;

/** Files that are transpiled rather than given to Node. */
export const TYPESCRIPT: RegExp = /\.(?:ts|mts|tsx)$/;

interface Declaration {
  setters: ((namespace: Namespace) => void)[];
  execute(): void | Promise<void>;
}
type Export = (name: string | Namespace, value?: unknown) => unknown;
type Register = (
  exports: Export,
  context: { id: string; meta: object; import: (specifier: string) => Promise<Namespace> },
) => Declaration;

interface Loaded {
  file: string;
  stamp: string;
  namespace: Namespace;
  dependencies: Loaded[];
  /** Gives the namespace to those that imported it before it ran (cycles, live bindings). */
  importers: ((namespace: Namespace) => void)[];
  linked: Promise<Declaration>;
  ran?: Promise<void>;
}

/**
 * Local TypeScript files. Node caches modules for good, but a file that a notebook's author edits must be picked up
 * by the next import, together with every file that stands on it; so these are linked here.
 */
export class LocalModules {
  readonly #transpile: Transpile;
  readonly #compiled: (file: string, map: string, text: string) => void;
  readonly #outside: (specifier: string, from: string) => Promise<Namespace>;
  readonly #loaded = new Map<string, Loaded>();

  constructor(
    transpile: Transpile,
    compiled: (file: string, map: string, text: string) => void,
    outside: (specifier: string, from: string) => Promise<Namespace>,
  ) {
    this.#transpile = transpile;
    this.#compiled = compiled;
    this.#outside = outside;
  }

  /** Imports a file, as it is now. */
  async import(file: string): Promise<Namespace> {
    this.#dropStale();
    const module = await this.#load(file);
    await this.#link(module, new Set());
    await this.#run(module, new Set());
    return module.namespace;
  }

  /** The file that a path without its real ending means: `x`, `x.js` → `x.ts`, `x/index.ts`. */
  find(path: string): string {
    const candidates = [path];
    const script = /\.(m?)js(x?)$/.exec(path);
    if (script !== null)
      candidates.push(path.slice(0, -script[0].length) + `.${script[1]}ts`, path.slice(0, -2) + "tsx");
    else
      candidates.push(`${path}.ts`, `${path}.mts`, `${path}.tsx`, `${path}.js`, `${path}.mjs`, join(path, "index.ts"));
    return candidates.find((one) => existsSync(one) && statSync(one).isFile()) ?? path;
  }

  // A module is stale when its file or one that it stands on has changed.
  #dropStale(): void {
    const stale = new Set<Loaded>();
    for (const module of this.#loaded.values()) if (stampOf(module.file) !== module.stamp) stale.add(module);
    for (let grown = stale.size > 0; grown; ) {
      grown = false;
      for (const module of this.#loaded.values()) {
        if (stale.has(module) || !module.dependencies.some((one) => stale.has(one))) continue;
        stale.add(module);
        grown = true;
      }
    }
    for (const module of stale) this.#loaded.delete(module.file);
  }

  async #load(file: string): Promise<Loaded> {
    const known = this.#loaded.get(file);
    if (known !== undefined) return known;
    const namespace = Object.create(null) as Namespace;
    Object.defineProperty(namespace, Symbol.toStringTag, { value: "Module" });
    const module: Loaded = {
      file,
      stamp: stampOf(file),
      namespace,
      dependencies: [],
      importers: [],
      linked: Promise.resolve().then(() => this.#declare(module)),
    };
    this.#loaded.set(file, module);
    module.linked.catch(() => this.#loaded.delete(file));
    return module;
  }

  async #declare(module: Loaded): Promise<Declaration> {
    const { file, namespace } = module;
    const text = await readFile(file, "utf8");
    const { js, map } = await this.#transpile(file, text);
    this.#compiled(file, map, text);
    let specifiers: string[] = [];
    let register: Register | undefined;
    const system = {
      register: (names: string[], declare: Register): void => {
        specifiers = names;
        register = declare;
      },
    };
    const script = new vm.Script(`(function (System) {\n${js}\n})`, { filename: file, lineOffset: -1 });
    (script.runInThisContext() as (system: object) => void)(system);
    if (register === undefined) throw new SyntaxError(`${file} could not be loaded as a module.`);
    const exports: Export = (name, value) => {
      if (typeof name === "string") namespace[name] = value;
      else Object.assign(namespace, name);
      for (const update of module.importers) update(namespace);
      return value;
    };
    const meta = { url: pathToFileURL(file).href, filename: file, dirname: dirname(file) };
    const load = (specifier: string): Promise<Namespace> => this.#dependency(specifier, file, true);
    const declaration = register(exports, { id: file, meta, import: load });
    await Promise.all(
      specifiers.map(async (specifier, i) => {
        const setter = declaration.setters[i];
        const path = this.#typescript(specifier, file);
        if (path === undefined) {
          setter?.(await this.#outside(specifier, file));
          return;
        }
        const dependency = await this.#load(path);
        module.dependencies.push(dependency);
        if (setter === undefined) return;
        dependency.importers.push(setter);
        setter(dependency.namespace);
      }),
    );
    return declaration;
  }

  async #link(module: Loaded, seen: Set<Loaded>): Promise<void> {
    if (seen.has(module)) return;
    seen.add(module);
    await module.linked;
    for (const one of module.dependencies) await this.#link(one, seen);
  }

  async #run(module: Loaded, path: Set<Loaded>): Promise<void> {
    if (path.has(module)) return;
    module.ran ??= (async () => {
      const below = new Set(path).add(module);
      for (const one of module.dependencies) await this.#run(one, below);
      await (await module.linked).execute();
    })();
    try {
      await module.ran;
    } catch (error) {
      this.#loaded.delete(module.file);
      throw error;
    }
  }

  #dependency(specifier: string, from: string, dynamic: boolean): Promise<Namespace> {
    const path = this.#typescript(specifier, from);
    if (path !== undefined && dynamic) return this.import(path);
    return this.#outside(specifier, from);
  }

  #typescript(specifier: string, from: string): string | undefined {
    if (!/^(?:\.{1,2}\/|\/|file:)/.test(specifier)) return undefined;
    const path = specifier.startsWith("file:") ? fileURLToPath(specifier) : resolve(dirname(from), specifier);
    const file = this.find(path);
    return TYPESCRIPT.test(file) ? file : undefined;
  }
}

function stampOf(file: string): string {
  const found = statSync(file, { throwIfNoEntry: false });
  return found === undefined ? "absent" : `${found.mtimeMs}-${found.size}`;
}
