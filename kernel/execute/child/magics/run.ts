import { readFileSync, statSync } from "node:fs";
import { dirname, extname, resolve } from "node:path";
import { nearest } from "../../../magics/table.js";
import { expanded } from "./folders.js";
import { type Implementation, oneArgument, UsageError } from "./host.js";

interface NotebookFile {
  cells?: { cell_type?: unknown; source?: unknown }[];
}

const scripts = [".ts", ".mts", ".js", ".mjs"];
const MAX_DEPTH = 20;
let depth = 0;

export const run: Implementation = async (host, call) => {
  const given = oneArgument(call);
  if (given === undefined) throw new UsageError("run", "The file's name is missing.");
  const file = resolve(expanded(given));
  if (statSync(file, { throwIfNoEntry: false })?.isFile() !== true) {
    const near = nearest(given, await neighbours(file));
    throw new UsageError("run", `There is no file ${file}.${near === undefined ? "" : ` Did you mean ${near}?`}`);
  }
  if (depth >= MAX_DEPTH)
    throw new UsageError("run", `${given}: files run each other ${MAX_DEPTH} deep; is there a circle?`);
  depth++;
  try {
    for (const [name, code] of pieces(file)) await host.runCode(code, name, dirname(file));
  } finally {
    depth--;
  }
};

async function neighbours(file: string): Promise<string[]> {
  const { readdir } = await import("node:fs/promises");
  return readdir(dirname(file)).catch(() => []);
}

/** The code of a file, cell by cell, each with the name that errors call it by. */
function pieces(file: string): [name: string, code: string][] {
  const ending = extname(file);
  const text = readFileSync(file, "utf8");
  if (scripts.includes(ending)) return [[file, text.replace(/^#!.*/, "")]];
  if (ending !== ".ipynb")
    throw new UsageError("run", `${file} is neither a script (${scripts.join(", ")}) nor a notebook (.ipynb).`);
  let notebook: NotebookFile;
  try {
    notebook = JSON.parse(text) as NotebookFile;
  } catch (error) {
    throw new UsageError("run", `${file} is no notebook: ${(error as Error).message}.`);
  }
  if (!Array.isArray(notebook?.cells)) throw new UsageError("run", `${file} is no notebook: it has no cells.`);
  return notebook.cells.flatMap(({ cell_type, source }, index) => {
    const code = Array.isArray(source) ? source.join("") : String(source ?? "");
    return cell_type === "code" && code.trim() !== "" ? [[`${file}#${index + 1}`, code] as [string, string]] : [];
  });
}
