import { readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import type { Completion, Inspection } from "../compile/types.js";
import { describeMagic, findMagic, magics } from "../magics/table.js";

const MAX_FILES = 200;

/** The line of a magic or a command at a cursor, if it is one. */
interface MagicLine {
  /** Where its sign stands. */
  start: number;
  /** `%`, `%%` or `!`. */
  sign: string;
  name: string;
  /** Where its arguments begin; undefined while the name is being typed. */
  rest?: number;
}

function magicLine(text: string, at: number): MagicLine | undefined {
  const begin = text.lastIndexOf("\n", at - 1) + 1;
  const match = /^([ \t]*)(%%|%|!)(\w*)([ \t]+)?/.exec(text.slice(begin, at));
  if (match === null) return undefined;
  const [whole, blank, sign, name, gap] = match as unknown as [string, string, string, string, string | undefined];
  const start = begin + blank.length;
  if (sign === "%%" && text.slice(0, start).trim() !== "") return undefined;
  if (sign === "!") return { start, sign, name: "!", rest: start + 1 };
  if (gap === undefined) return begin + whole.length === at ? { start, sign, name } : undefined;
  return { start, sign, name, rest: begin + whole.length };
}

/**
 * Completes the name of a magic, or its arguments: choices, names of the notebook, files.
 *
 * @param names - top-level names of the notebook
 * @param folder - the notebook's
 * @returns undefined where TypeScript completes
 */
export function completeMagic(text: string, at: number, names: () => string[], folder: string): Completion | undefined {
  const line = magicLine(text, at);
  if (line === undefined) return undefined;
  const { start, sign, name, rest } = line;
  if (rest === undefined) {
    const forms = magics.filter((magic) => (sign === "%%" ? magic.cell : (magic.line ?? magic.cell)));
    const found = forms.filter((magic) => magic.name.startsWith(name));
    const written = found.flatMap((magic) => {
      const first = text.slice(0, start).trim() === "";
      const both = sign === "%" && first ? [magic.line && `%${magic.name}`, magic.cell && `%%${magic.name}`] : [];
      const only = sign === "%%" ? `%%${magic.name}` : magic.line && `%${magic.name}`;
      return (both.length > 0 ? both : [only]).filter((form): form is string => Boolean(form));
    });
    // What looks like a magic after a complete line may still be an operator.
    if (written.length === 0 && text.slice(0, start).trim() !== "") return undefined;
    return completion(written, "magic", start, at);
  }
  const magic = findMagic(name);
  if (magic === undefined || magic.code) return undefined;
  const word = /[^\s'"=|;&<>()]*$/.exec(text.slice(rest, at))![0];
  const from = at - word.length;
  const first = text.slice(rest, from).trim() === "";
  if (magic.choices && first) {
    return completion(
      magic.choices.filter((one) => one.startsWith(word)),
      "keyword",
      from,
      at,
    );
  }
  if (name === "env" && first) {
    return completion(
      Object.keys(process.env)
        .filter((one) => one.startsWith(word))
        .sort(),
      "variable",
      from,
      at,
    );
  }
  if (name === "reset")
    return completion(
      names()
        .filter((one) => one.startsWith(word))
        .sort(),
      "variable",
      from,
      at,
    );
  // In braces of a command stands TypeScript.
  if (sign === "!" && /\{[^}]*$/.test(text.slice(rest, at))) return undefined;
  if (magic.files || sign === "!") return completion(files(word, folder, name), "file", from, at);
  return completion([], "text", from, at);
}

function completion(matches: string[], type: string, start: number, end: number): Completion {
  return {
    matches,
    start,
    end,
    metadata: { _jupyter_types_experimental: matches.map((text) => ({ text, type, start, end })) },
  };
}

/** Paths that begin so, folders with a slash at their end. */
function files(word: string, folder: string, name: string): string[] {
  const slash = word.lastIndexOf("/") + 1;
  const typed = word.slice(0, slash);
  const prefix = word.slice(slash);
  const place = typed.startsWith("~/") ? join(homedir(), typed.slice(1)) : resolve(folder, typed || ".");
  try {
    return readdirSync(place, { withFileTypes: true })
      .filter((entry) => entry.name.startsWith(prefix) && (prefix.startsWith(".") || !entry.name.startsWith(".")))
      .filter((entry) => entry.isDirectory() || name !== "cd")
      .filter((entry) => entry.isDirectory() || name !== "run" || /\.(?:m?[jt]s|ipynb)$/.test(entry.name))
      .slice(0, MAX_FILES)
      .map((entry) => `${typed}${entry.name}${entry.isDirectory() ? "/" : ""}`)
      .sort();
  } catch {
    return [];
  }
}

/** What is known of the magic whose line the cursor is in, unless that line is TypeScript further on. */
export function inspectMagic(text: string, at: number): Inspection | undefined {
  const begin = text.lastIndexOf("\n", at - 1) + 1;
  const match = /^[ \t]*(?:%%?(\w+)|(!))/.exec(text.slice(begin));
  const magic = match && findMagic(match[1] ?? match[2]!);
  if (!magic || (magic.code && at > begin + match[0].length)) return undefined;
  const { text: plain, markdown } = describeMagic(magic);
  return { found: true, data: { "text/plain": plain, "text/markdown": markdown } };
}
