import { appendFileSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { showTable } from "../tables.js";
import { argumentsOf, type Implementation, oneArgument, UsageError } from "./host.js";

let before: string | undefined;

/** A path with `~` for the home folder. */
export function expanded(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}

export const cd: Implementation = ({ cell }, call) => {
  const given = oneArgument(call) ?? "~";
  if (given === "-" && before === undefined) throw new UsageError("cd", "There is no folder before this one yet.");
  const folder = given === "-" ? before! : resolve(expanded(given));
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found === undefined)
    throw new UsageError("cd", `There is no folder ${folder}; the working folder is ${process.cwd()}.`);
  if (!found.isDirectory()) throw new UsageError("cd", `${folder} is a file, not a folder.`);
  const old = process.cwd();
  process.chdir(folder);
  before = old;
  cell.print("stdout", `${folder}\n`);
};

export const pwd: Implementation = ({ cell }, call) => {
  if (oneArgument(call) !== undefined) throw new UsageError("pwd", "It takes no argument.");
  cell.print("stdout", `${process.cwd()}\n`);
};

const secret = /key|token|secret|passw|credential|auth/i;

export const env: Implementation = ({ cell }, call) => {
  // What follows the name is the value as it stands, quotes and all, as in IPython.
  const text = call.texts
    .map((piece, index) => piece + (index < call.values.length ? String(call.values[index]) : ""))
    .join("")
    .trim();
  if (text === "") {
    const rows = Object.keys(process.env)
      .sort()
      .map((name) => [name, secret.test(name) ? "<hidden>" : process.env[name]]);
    showTable(cell, ["variable", "value"], rows);
    return;
  }
  const [, name = "", sign, value = ""] = /^([^\s=]+)(?:\s*(=)\s*|\s+|$)(.*)$/s.exec(text) ?? [];
  if (name === "") throw new UsageError("env", `'${text}' has no name.`);
  if (sign === undefined && value === "") {
    const known = process.env[name];
    if (known === undefined) throw new UsageError("env", `There is no environment variable ${name}.`);
    cell.print("stdout", `${known}\n`);
    return;
  }
  process.env[name] = value;
  cell.print("stdout", `${name}=${secret.test(name) ? "<hidden>" : value}\n`);
};

export const writefile: Implementation = ({ cell }, call) => {
  const given = argumentsOf(call);
  const append = given[0] === "-a" || given[0] === "--append";
  const [name, strange] = append ? given.slice(1) : given;
  if (name === undefined) throw new UsageError("writefile", "The file's name is missing.");
  if (strange !== undefined)
    throw new UsageError(
      "writefile",
      `Expected one file, got also ${JSON.stringify(strange)}; a name with blanks stands in quotes.`,
    );
  const file = resolve(expanded(name));
  const folder = statSync(dirname(file), { throwIfNoEntry: false });
  if (!folder?.isDirectory())
    throw new UsageError("writefile", `There is no folder ${dirname(file)}: make it with !mkdir -p first.`);
  const existed = statSync(file, { throwIfNoEntry: false }) !== undefined;
  const text = call.body === "" || call.body.endsWith("\n") ? call.body : `${call.body}\n`;
  if (append) appendFileSync(file, text);
  else writeFileSync(file, text);
  cell.print("stdout", `${append ? "Added to" : existed ? "Overwrote" : "Wrote"} ${file}\n`);
};
