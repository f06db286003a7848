import { mkdtempSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Compiler } from "../../kernel/compile/compiler.js";
import { createScope, type Scope } from "../../kernel/compile/scope.js";
import type { CompiledCell, Typecheck } from "../../kernel/compile/types.js";
import { type Activation, Contexts } from "../../kernel/execute/child/context.js";

type CellFunction = (scope: Scope, load: unknown, cell: object) => Promise<{ value: unknown } | undefined>;
const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as new (...parts: string[]) => CellFunction;

/** Cells compiled and run for real, in this process. */
export class Notebook {
  readonly folder: string;
  readonly compiler: Compiler;
  readonly scope: Scope = createScope();
  readonly logs: unknown[][] = [];
  readonly #contexts = new Contexts<object>();
  #cells = 0;

  constructor(folder: string = mkdtempSync(join(tmpdir(), "tunebook-cells-"))) {
    this.folder = folder;
    this.compiler = new Compiler(folder);
    // The cells of tests use `require` as those of a notebook do.
    (globalThis as { require?: unknown }).require ??= createRequire(join(folder, "notebook.cjs"));
  }

  compile(code: string, typecheck: Typecheck = "error"): CompiledCell & { cell: string } {
    const cell = `cell-${++this.#cells}`;
    return { cell, ...this.compiler.compile({ code, cell, typecheck, cwd: this.folder }) };
  }

  /** Compiles, commits and runs a cell. @returns its value, undefined when it has none */
  async run(code: string, typecheck: Typecheck = "error"): Promise<unknown> {
    const { js, cell } = this.compile(code, typecheck);
    this.compiler.commit(cell);
    const load = async (specifier: string, options?: ImportCallOptions): Promise<unknown> => {
      const url = /^\.{0,2}\//.test(specifier) ? pathToFileURL(join(this.folder, specifier)).href : specifier;
      return await import(url, options);
    };
    const console = { log: (...values: unknown[]) => this.logs.push(values) };
    const meta = { url: pathToFileURL(join(this.folder, "notebook.ts")).href };
    const enter = (): Activation => this.#contexts.enter();
    const run = new AsyncFunction("$scope", "$import", "$cell", js);
    return (await run(this.scope, load, { console, display: console.log, meta, enter }))?.value;
  }

  /** Runs cells one after the other. @returns the value of the last */
  async all(...cells: string[]): Promise<unknown> {
    let value: unknown;
    for (const code of cells) value = await this.run(code);
    return value;
  }

  /** What is wrong with a cell: `line:column+length code message`. */
  faults(code: string, typecheck: Typecheck = "error"): string[] {
    try {
      const { diagnostics } = this.compile(code, typecheck);
      return diagnostics.map((one) => `${one.line}:${one.column}+${one.length} ${one.code} ${one.message}`);
    } catch (error) {
      const { diagnostics } = error as { diagnostics?: CompiledCell["diagnostics"] };
      if (!diagnostics) throw error;
      return diagnostics.map((one) => `${one.line}:${one.column}+${one.length} ${one.code} ${one.message}`);
    }
  }
}
