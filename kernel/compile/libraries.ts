import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { commDeclarations, inputDeclarations } from "./front-end.js";
import { displayDeclarations, shellDeclarations } from "./tools.js";
import { libFolder } from "./typescript.js";

/** Declarations that every cell sees, as few virtual files: a program of 160 files costs each cell 10 ms more than one of 10. */
export interface Libraries {
  /** The language: JavaScript's own names. */
  language: Map<string, string>;
  /** What cells have beside it: `display`, `input` and the like. */
  cell: Map<string, string>;
  /** Node and, in the same file, the language: read when first needed, and then instead of the language alone. */
  node(): Map<string, string>;
}

const cellDeclarations = `${displayDeclarations}${shellDeclarations}
/** Asks the user for a line of text. */
declare function input(prompt?: string, options?: { password?: boolean }): Promise<string>;
${inputDeclarations}${commDeclarations}`;

/** The folder of the declarations of Node, a dependency of this package. */
const nodeTypes: string = dirname(createRequire(import.meta.url).resolve("@types/node/package.json"));

/** The one file that stands for most of the language. */
export const languageFile: string = join(libFolder, "lib.tunebook.d.ts");

/**
 * The one file that stands for most of Node's, and for the language's: in two files their declarations of one name would be put together
 * anew for each program, which is half of the work of making a checker.
 */
export const nodeFile: string = join(nodeTypes, "tunebook.d.ts");

export function libraries(): Libraries {
  const known = language();
  return {
    language: known,
    cell: new Map([[join(libFolder, "lib.tunebook.cell.d.ts"), cellDeclarations]]),
    node: () => node(known.get(languageFile)!).set(languageFile, ""),
  };
}

const isModule = /^(?:export|import)\b/m;

function language(): Map<string, string> {
  const files = new Map<string, string>();
  const seen = new Set<string>();
  const scripts: string[] = [];
  const add = (name: string): void => {
    const path = join(libFolder, `lib.${name}.d.ts`);
    if (seen.has(name) || !existsSync(path)) return;
    seen.add(name);
    const text = readFileSync(path, "utf8").replace(/^\/\/\/ <reference lib="([^"]+)".*$/gm, (_, other: string) => {
      add(other);
      return "";
    });
    const plain = text.replace(/^\/\/\/ <reference no-default-lib.*$/gm, "");
    if (isModule.test(plain)) files.set(join(libFolder, `lib.tunebook.${name}.d.ts`), plain);
    else scripts.push(plain);
  };
  for (const name of ["es2023", "esnext.disposable", "decorators", "decorators.legacy"]) add(name);
  if ("Iterator" in globalThis) for (const name of ["es2025.iterator", "es2025.collection"]) add(name);
  if ("fromAsync" in Array) add("esnext.array");
  if ("withResolvers" in Promise)
    for (const name of ["es2024.promise", "es2024.object", "es2024.collection"]) add(name);
  return files.set(languageFile, scripts.join("\n"));
}

function node(language: string): Map<string, string> {
  const files = new Map<string, string>();
  const scripts: string[] = [language];
  const seen = new Set<string>();
  const add = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    const text = readFileSync(path, "utf8").replace(
      /^\/\/\/ <reference (\w+)="([^"]+)".*$/gm,
      (_, kind: string, other: string) => {
        if (kind === "path") add(join(dirname(path), other));
        return "";
      },
    );
    // A file with imports of its own stays a module, under its own name.
    if (isModule.test(text)) files.set(path, text);
    else scripts.push(text);
  };
  add(join(nodeTypes, "index.d.ts"));
  return files.set(nodeFile, scripts.join("\n"));
}
