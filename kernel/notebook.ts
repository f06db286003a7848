import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Json } from "./protocol/message.js";

/** An output of a code cell, as nbformat 4 stores it. */
export type CellOutput = Json & { output_type: string };

/** A cell of a notebook. */
export interface NotebookCell {
  cell_type: "code" | "markdown" | "raw";
  id: string;
  metadata: Json;
  source: string | string[];
  outputs?: CellOutput[];
  execution_count?: number | null;
  [key: string]: unknown;
}

/** A notebook in nbformat 4.5. */
export interface Notebook {
  cells: NotebookCell[];
  metadata: Json;
  nbformat: number;
  nbformat_minor: number;
}

/** A parameter for a notebook; the value is any JSON value. */
export interface Parameter {
  name: string;
  value: unknown;
}

/**
 * Reads a notebook and brings it to nbformat 4.5 (every cell gets an id).
 *
 * @throws Error that names the file and what is wrong with it.
 */
export function readNotebook(path: string): Notebook {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new Error(`${path} cannot be read as a notebook: ${(error as Error).message}`);
  }
  const notebook = value as Partial<Notebook> | null;
  if (notebook === null || typeof notebook !== "object" || !Array.isArray(notebook.cells)) {
    throw new Error(`${path} is no notebook: it has no list of cells.`);
  }
  if (notebook.nbformat !== 4) {
    throw new Error(`${path} has nbformat ${String(notebook.nbformat)}; expected 4. Save it anew in Jupyter.`);
  }
  const kernelspec = notebook.metadata?.kernelspec as { language?: unknown } | undefined;
  const language = kernelspec?.language;
  if (typeof language === "string" && !["typescript", "javascript"].includes(language)) {
    throw new Error(`${path} is written in ${language}; tunebook runs notebooks in TypeScript.`);
  }
  for (const cell of notebook.cells) {
    if (!["code", "markdown", "raw"].includes(cell.cell_type)) {
      throw new Error(`${path} has a cell of type ${JSON.stringify(cell.cell_type)}.`);
    }
    cell.id ??= newId();
    cell.metadata ??= {};
  }
  return { cells: notebook.cells, metadata: notebook.metadata ?? {}, nbformat: 4, nbformat_minor: 5 };
}

/** The notebook as JSON, as Jupyter writes it: sources and texts in lines. */
export function formatNotebook(notebook: Notebook): string {
  const cells = notebook.cells.map((cell) => {
    const formatted = { ...cell, source: lines(sourceOf(cell)) };
    if (cell.outputs !== undefined) formatted.outputs = cell.outputs.map(formatOutput);
    return formatted;
  });
  return `${JSON.stringify({ ...notebook, cells }, null, 1)}\n`;
}

export function sourceOf(cell: NotebookCell): string {
  return Array.isArray(cell.source) ? cell.source.join("") : cell.source;
}

export function tagsOf(cell: NotebookCell): string[] {
  const tags = cell.metadata.tags;
  return Array.isArray(tags) ? tags.filter((tag) => typeof tag === "string") : [];
}

/**
 * Adds a cell with the parameters after the one tagged `parameters` (at the top where there is none); one that an
 * earlier run has added is replaced.
 *
 * @returns names that the `parameters` cell does not declare.
 */
export function injectParameters(notebook: Notebook, parameters: readonly Parameter[]): string[] {
  if (parameters.length === 0) return [];
  notebook.cells = notebook.cells.filter((cell) => !tagsOf(cell).includes("injected-parameters"));
  const at = notebook.cells.findIndex((cell) => tagsOf(cell).includes("parameters"));
  const declared = at < 0 ? "" : sourceOf(notebook.cells[at]!);
  const source = ["// Parameters", ...parameters.map((one) => assignment(one, declared))].join("\n");
  notebook.cells.splice(at + 1, 0, {
    cell_type: "code",
    id: newId(),
    metadata: { tags: ["injected-parameters"] },
    source,
    outputs: [],
    execution_count: null,
  });
  return parameters.filter(({ name }) => declaration(name, declared) === null).map(({ name }) => name);
}

/**
 * Reads `NAME=VALUE`; a value that is JSON is taken as such, anything else as text.
 *
 * @throws Error when there is no "=" or the name is no identifier.
 */
export function parseParameter(text: string): Parameter {
  const at = text.indexOf("=");
  const name = text.slice(0, at).trim();
  if (at < 1 || !/^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(name)) {
    throw new Error(`-p ${text}: expected NAME=VALUE with an identifier as name.`);
  }
  const value = text.slice(at + 1);
  try {
    return { name, value: JSON.parse(value) as unknown };
  } catch {
    return { name, value };
  }
}

// A `let` of the parameters cell is assigned to, so that it keeps its type; a `const` is declared anew with its type.
function assignment({ name, value }: Parameter, declared: string): string {
  const found = declaration(name, declared);
  const literal = JSON.stringify(value);
  if (found === null) return `let ${name} = ${literal};`;
  if (found[1] !== "const") return `${name} = ${literal};`;
  const type = found[2]?.trim();
  return type ? `const ${name}: ${type} = ${literal};` : `let ${name} = ${literal};`;
}

function declaration(name: string, code: string): RegExpExecArray | null {
  const escaped = name.replace(/\$/g, "\\$&");
  return new RegExp(`^\\s*(?:export\\s+)?(let|var|const)\\s+${escaped}\\s*(?::([^=;\\n]+))?\\s*=`, "m").exec(code);
}

function formatOutput(output: CellOutput): CellOutput {
  if (output.output_type === "stream") return { ...output, text: lines(String(output.text)) };
  if (output.data === undefined) return output;
  const data = Object.entries(output.data as Json).map(([mime, part]): [string, unknown] => {
    const isText = typeof part === "string" && (mime.startsWith("text/") || mime === "image/svg+xml");
    return [mime, isText ? lines(part) : part];
  });
  return { ...output, data: Object.fromEntries(data) };
}

function lines(text: string): string[] {
  return text === "" ? [] : text.split(/(?<=\n)/);
}

function newId(): string {
  return randomUUID().slice(0, 8);
}
