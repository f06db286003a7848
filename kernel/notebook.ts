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

/** A fresh id for a cell. */
export function newId(): string {
  return randomUUID().slice(0, 8);
}
