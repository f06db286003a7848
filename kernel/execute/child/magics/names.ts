import { nearest } from "../../../magics/table.js";
import { text } from "../display.js";
import { showTable } from "../tables.js";
import { argumentsOf, type Implementation, oneArgument, UsageError } from "./host.js";

const MAX_VALUE = 80;

/** A value's kind in a word: its type, or its class. */
function kind(value: unknown): string {
  if (value === null) return "null";
  if (typeof value === "function")
    return /^class\b/.test(Function.prototype.toString.call(value)) ? "class" : "function";
  if (typeof value !== "object") return typeof value;
  const name = (Object.getPrototypeOf(value) as { constructor?: { name?: unknown } } | null)?.constructor?.name;
  return typeof name === "string" && name !== "" ? name : "object";
}

function brief(value: unknown): string {
  if (typeof value === "function") return "";
  const line = text(value, 1).replace(/\s+/g, " ");
  return line.length > MAX_VALUE ? `${line.slice(0, MAX_VALUE - 1)}…` : line;
}

export const who: Implementation = ({ cell, scope }, call) => {
  const wanted = oneArgument(call);
  const all = Object.keys(scope)
    .sort()
    .map((name) => [name, kind(scope[name]), brief(scope[name])] as const);
  const rows = wanted === undefined ? all : all.filter(([, type]) => type.toLowerCase() === wanted.toLowerCase());
  if (rows.length > 0) showTable(cell, ["name", "type", "value"], rows);
  else cell.print("stdout", wanted === undefined ? "No names yet.\n" : `No names of type ${wanted}.\n`);
};

export const reset: Implementation = ({ cell, scope }, call) => {
  const names = argumentsOf(call)
    .flatMap((word) => word.split(","))
    .filter((word) => word !== "" && !word.startsWith("-"));
  const known = Object.keys(scope);
  for (const name of names) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    throw new UsageError(
      "reset",
      `The notebook has no name '${name}'.${near === undefined ? "" : ` Did you mean ${near}?`}`,
    );
  }
  (scope["forget()"] as (names?: readonly string[]) => void)(names.length > 0 ? names : undefined);
  cell.print("stdout", names.length > 0 ? `Forgot ${names.join(", ")}\n` : "Forgot all names\n");
};
