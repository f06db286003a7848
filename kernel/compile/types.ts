/** How strictly a cell is checked: errors stop it, errors are only told, or syntax alone is looked at. */
export type Typecheck = "error" | "warn" | "off";

/** One cell on its way to the executor. */
export interface CompileRequest {
  code: string;
  /** Unique for each execution; also the file name in stack traces: `cell-<n>`. */
  cell: string;
  /** The kernel's setting; a leading line `%typecheck error|warn|off` overrides it from that cell on. */
  typecheck: Typecheck;
  /** The notebook's folder: packages and local files are resolved from there. */
  cwd: string;
}

/** One finding about a cell. Lines and columns count from 1, columns and lengths in UTF-16 units. */
export interface Diagnostic {
  severity: "error" | "warning";
  message: string;
  /** TypeScript's number of the message; 0 for this kernel's own. */
  code: number;
  line: number;
  column: number;
  length: number;
  /** The line of code that it is about. */
  source: string;
}

/** A cell, ready to run. */
export interface CompiledCell {
  /**
   * Body of an async function with the parameters `$scope`, `$import`, `$cell`, called with `this` undefined:
   * - `$scope`: what `createScope()` of scope.ts returns;
   * - `$import(specifier, options?)`: import resolved from the notebook's folder;
   * - `$cell`: `{ console, display, input, prompt, confirm, comms, meta }`; `meta` stands for `import.meta` (`{ url, dirname, filename }`).
   * Returns `{ value }` when the last statement is an expression, else undefined.
   */
  js: string;
  /** Source map (version 3, JSON) from the lines of `js` to the cell's own; its one source is named as the cell. */
  map: string;
  diagnostics: Diagnostic[];
  /** Top-level names that later cells can use as values, sorted. */
  declares: string[];
}

/** Completions of the code at a cursor; positions are UTF-16 offsets. */
export interface Completion {
  matches: string[];
  start: number;
  end: number;
  /** `_jupyter_types_experimental`: one entry a match. */
  metadata: { _jupyter_types_experimental: { text: string; type: string; start: number; end: number }[] };
}

export interface Inspection {
  found: boolean;
  /** `text/plain` and `text/markdown`. */
  data: Record<string, string>;
}

export interface Completeness {
  status: "complete" | "incomplete" | "invalid" | "unknown";
  /** With "incomplete": the white space that the next line should start with. */
  indent?: string;
}

/** A local TypeScript file that a cell imports, turned into JavaScript into a call of `System.register`. */
export interface TranspiledFile {
  js: string;
  map: string;
}
