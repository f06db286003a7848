import { readFileSync } from "node:fs";
import { extname } from "node:path";
import { type Notebook, newId, sourceOf, tagsOf } from "./notebook.js";

/** A parameter for a notebook; the value is what JSON or YAML can say. */
export interface Parameter {
  name: string;
  value: unknown;
}

/**
 * Adds a cell with the parameters after the one tagged `parameters` (at the top where there is none), as papermill
 * does; one that an earlier run has added is replaced. Of several values of one name the last counts.
 *
 * @returns names that the `parameters` cell does not declare.
 */
export function injectParameters(notebook: Notebook, parameters: readonly Parameter[]): string[] {
  if (parameters.length === 0) return [];
  notebook.cells = notebook.cells.filter((cell) => !tagsOf(cell).includes("injected-parameters"));
  const at = notebook.cells.findIndex((cell) => tagsOf(cell).includes("parameters"));
  const declared = at < 0 ? "" : sourceOf(notebook.cells[at]!);
  const values = new Map(parameters.map(({ name, value }) => [name, value]));
  const lines = [...values].map(([name, value]) => assignment(name, value, declared));
  notebook.cells.splice(at + 1, 0, {
    cell_type: "code",
    id: newId(),
    metadata: { tags: ["injected-parameters"] },
    source: ["// Parameters", ...lines].join("\n"),
    outputs: [],
    execution_count: null,
  });
  return [...values.keys()].filter((name) => declaration(name, declared) === null);
}

/**
 * Reads `NAME=VALUE`. A value that is JSON is taken as such, `True`, `False` and `None` as papermill takes them,
 * anything else as text; with `raw` every value is text.
 *
 * @throws Error when there is no "=" or the name is no identifier.
 */
export function parseParameter(text: string, raw = false): Parameter {
  const at = text.indexOf("=");
  const name = text.slice(0, at).trim();
  if (at < 1 || !isIdentifier(name)) {
    throw new Error(`-p ${text}: expected NAME=VALUE or NAME VALUE with an identifier as name.`);
  }
  const value = text.slice(at + 1);
  if (raw) return { name, value };
  if (Object.hasOwn(PYTHON, value)) return { name, value: PYTHON[value as keyof typeof PYTHON] };
  try {
    return { name, value: JSON.parse(value) as unknown };
  } catch {
    return { name, value };
  }
}

/**
 * Reads the parameters of a file: a JSON object in a `.json` file, else a YAML mapping.
 *
 * @throws Error naming the file and what is wrong with it.
 */
export async function readParameters(path: string): Promise<Parameter[]> {
  let value: unknown;
  try {
    const text = readFileSync(path, "utf8");
    value = extname(path) === ".json" ? JSON.parse(text) : (await import("yaml")).parse(text);
  } catch (error) {
    throw new Error(`-f ${path}: the parameters cannot be read: ${(error as Error).message}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error(`-f ${path}: expected names with their values, as in "steps: 100".`);
  }
  const bad = Object.keys(value).find((name) => !isIdentifier(name));
  if (bad !== undefined) throw new Error(`-f ${path}: ${JSON.stringify(bad)} is no identifier.`);
  return Object.entries(value).map(([name, one]) => ({ name, value: one as unknown }));
}

/** `-p NAME VALUE` as papermill has it, written `-p NAME=VALUE` as this command has it. */
export function joinParameters(argv: readonly string[]): string[] {
  const joined: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const [option, name, value] = argv.slice(i);
    if (option === "--") return [...joined, ...argv.slice(i)];
    const pair = /^(?:-p|-r|--parameter|--parameter-raw)$/.test(option!) && isIdentifier(name ?? "");
    if (!pair || value === undefined) {
      joined.push(option!);
      continue;
    }
    joined.push(option!, `${name}=${value}`);
    i += 2;
  }
  return joined;
}

const PYTHON = { True: true, False: false, None: null };

function isIdentifier(name: string): boolean {
  return /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(name);
}

// A `let` of the parameters cell is assigned to, so that it keeps its type; a `const` is declared anew with its type.
function assignment(name: string, value: unknown, declared: string): string {
  const found = declaration(name, declared);
  if (found === null) return `let ${name} = ${literal(value)};`;
  if (found[1] !== "const") return `${name} = ${literal(value)};`;
  const type = found[2]?.trim();
  return type ? `const ${name}: ${type} = ${literal(value)};` : `let ${name} = ${literal(value)};`;
}

function literal(value: unknown): string {
  if (typeof value === "number") return String(value);
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value ?? null);
  // `"__proto__": x` would set the prototype; a computed key makes a property.
  const key = (name: string): string => (name === "__proto__" ? '["__proto__"]' : JSON.stringify(name));
  const pairs = Object.entries(value).map(([name, one]) => `${key(name)}: ${literal(one)}`);
  return pairs.length === 0 ? "{}" : `{ ${pairs.join(", ")} }`;
}

function declaration(name: string, code: string): RegExpExecArray | null {
  const escaped = name.replace(/\$/g, "\\$&");
  return new RegExp(`^\\s*(?:export\\s+)?(let|var|const)\\s+${escaped}\\s*(?::([^=;\\n]+))?\\s*=`, "m").exec(code);
}
