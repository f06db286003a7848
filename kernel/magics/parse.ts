import type t from "typescript";
import type { Fault } from "../compile/analyze.js";
import type { Typecheck } from "../compile/types.js";
import { ts } from "../compile/typescript.js";
import type { Directive } from "./directives.js";
import { findMagic, type Magic, unknownMagic, usage } from "./table.js";

/** The number of faults that are about the use of a magic. */
export const USAGE_FAULT = -1;

/** A cell without its magics. */
export interface Preprocessed {
  /** TypeScript, with every character at its place: magics have become blank, but for the expressions in them. */
  code: string;
  typecheck?: Typecheck;
  magics: Directive[];
  faults: Fault[];
}

/** Is a name the notebook's own? `!done` is TypeScript if `done` is, else a command of the shell. */
export type Known = (name: string) => boolean;

const candidate = /^[ \t]*(?:%[%?A-Za-z]|%[ \t]*$|!)/m;

/**
 * Takes the magics and shell commands out of a cell.
 *
 * @param cursor - where the cell is being typed: an expression in braces that the cursor is in need not be closed
 */
export function preprocess(text: string, known: Known = () => false, cursor?: number): Preprocessed {
  if (!candidate.test(text)) return { code: text, magics: [], faults: [] };
  return new Reader(text, known, cursor).read();
}

/** Can a statement, and so a magic, begin after this code? */
export function mayBegin(code: string): boolean {
  return parses(code);
}

interface Line {
  start: number;
  /** Before the line's end; a line that goes on with the next one ends there. */
  end: number;
}

class Reader {
  private readonly text: string;
  private readonly known: Known;
  private readonly cursor: number | undefined;
  private code: string;
  private readonly result: Preprocessed;
  /** Up to here nothing but magics and white space has been seen since the last check. */
  private settled = 0;

  constructor(text: string, known: Known, cursor: number | undefined) {
    this.text = text;
    this.cursor = cursor;
    this.known = known;
    this.code = text;
    this.result = { code: text, magics: [], faults: [] };
  }

  read(): Preprocessed {
    const first = /^\s*/.exec(this.text)![0].length;
    const begin = this.text.startsWith("%%", first) ? this.cellMagic(first) : 0;
    if (begin !== undefined) this.lines(begin);
    this.result.code = this.code;
    this.result.magics.sort((a, b) => a.start - b.start || b.end - a.end);
    return this.result;
  }

  private fault(start: number, end: number, message: string): void {
    this.result.faults.push({ start, length: Math.max(1, end - start), code: USAGE_FAULT, message });
  }

  /** Makes a part blank; its first character ends what stands before. */
  private blank(start: number, end: number): void {
    const hidden = this.text.slice(start, end).replace(/[^\r\n]/g, " ");
    this.code = `${this.code.slice(0, start)};${hidden.slice(1)}${this.code.slice(end)}`;
  }

  /** @returns where TypeScript begins, undefined where the whole rest belongs to the magic. */
  private cellMagic(at: number): number | undefined {
    const newline = this.text.indexOf("\n", at);
    const end = newline < 0 ? this.text.length : newline;
    const line = this.text.slice(at, end).trimEnd();
    const [, name = "", question = "", rest = ""] = /^%%(\w*)(\??)[ \t]*(.*)$/s.exec(line)!;
    const magic = findMagic(name);
    this.blank(at, end);
    if (question !== "" && rest === "") {
      this.help(at, end, name);
      return end;
    }
    if (magic?.cell === undefined) {
      this.fault(at, at + line.length, unknownMagic(name, true));
      this.blank(at, this.text.length);
      return undefined;
    }
    if (magic.code) {
      this.measure(magic, at, this.text.length, rest, at + line.length - rest.length);
      return end;
    }
    const body = newline < 0 ? "" : this.text.slice(newline + 1);
    this.call(name, { start: at, end: at + line.length }, at + line.length - rest.length);
    if (body !== "") this.blank(newline + 1, this.text.length);
    Object.assign(this.result.magics.at(-1)!, { end: this.text.length, body });
    return undefined;
  }

  private help(start: number, end: number, name: string): void {
    if (findMagic(name) === undefined) this.fault(start, end, unknownMagic(name, false));
    else this.result.magics.push({ kind: "call", name: "help", start, end, texts: [name] });
  }

  private lines(begin: number): void {
    const starts = /^[ \t]*([%!])/gm;
    starts.lastIndex = begin;
    for (let found = starts.exec(this.text); found !== null; found = starts.exec(this.text)) {
      const at = found.index + found[0].length - 1;
      // The first character of a statement, or else it is an operator, part of a template or of a comment.
      if (!this.beginsStatement(found.index)) continue;
      const line = this.lineAt(at);
      if (!this.line(line)) continue;
      this.settled = line.end;
      starts.lastIndex = line.end;
    }
  }

  private beginsStatement(at: number): boolean {
    const before = this.code.slice(0, at);
    if (before.slice(this.settled).trim() === "") return true;
    const complete = parses(before);
    if (complete) this.settled = at;
    return complete;
  }

  /** The line at an offset, with those that a backslash at its end adds to it. */
  private lineAt(start: number): Line {
    let end = start;
    for (;;) {
      const newline = this.text.indexOf("\n", end);
      if (newline < 0) return { start, end: this.text.length };
      const before = this.text[newline - 1] === "\r" ? newline - 1 : newline;
      if (this.text[before - 1] !== "\\") return { start, end: before };
      end = newline + 1;
    }
  }

  /** @returns whether the line is a magic's */
  private line(line: Line): boolean {
    const { start } = line;
    if (this.text[start] === "!") return this.shell(line);
    if (this.text.startsWith("%%", start)) {
      this.fault(start, line.end, "A magic that begins with %% has to stand on the first line of its cell.");
      this.blank(start, line.end);
      return true;
    }
    const whole = this.text.slice(start, line.end);
    const help = /^%(?:(\w+|!)\?+|\?(\w+))[ \t]*$/.exec(whole);
    if (help) {
      this.blank(start, line.end);
      this.help(start, line.end, help[1] ?? help[2]!);
      return true;
    }
    const match = /^%(\w+)(?:[ \t]+|$)/.exec(whole);
    if (match === null) return false;
    const name = match[1]!;
    const magic = findMagic(name);
    if (magic?.line === undefined) {
      // `a` on one line and `%b` on the next are a remainder.
      if (this.code.slice(0, start).trim() !== "" && parses(this.code.slice(0, line.end))) return false;
      this.fault(start, start + 1 + name.length, unknownMagic(name, false));
      this.blank(start, line.end);
      return true;
    }
    const rest = whole.slice(match[0].length);
    const at = start + match[0].length;
    if (magic.code) {
      // Further magics may stand in what is measured, on the same line.
      this.blank(start, at);
      const code = this.measure(magic, start, line.end, rest, at);
      const inner = code + /^[ \t]*/.exec(this.text.slice(code))![0].length;
      if (/[%!]/.test(this.text[inner] ?? "")) this.line({ start: inner, end: line.end });
      return true;
    }
    if (name === "typecheck") this.typecheck(line, rest.trim());
    else this.call(name, line, at);
    return true;
  }

  private typecheck({ start, end }: Line, mode: string): void {
    this.blank(start, end);
    if (mode === "error" || mode === "warn" || mode === "off") this.result.typecheck = mode;
    else
      this.fault(
        start,
        end,
        `${mode === "" ? "A mode is missing" : `'${mode}' is no mode`}: write %typecheck error, %typecheck warn or %typecheck off.`,
      );
  }

  /** @returns where the measured code begins */
  private measure(magic: Magic, start: number, end: number, rest: string, at: number): number {
    if (magic.name === "time") {
      const cell = this.text.startsWith("%%", start);
      if (cell && rest.trim() !== "")
        this.fault(at, at + rest.length, "%%time stands alone on its line; %time measures one statement.");
      if (!cell && rest.trim() === "") this.fault(start, end, `What is to be measured? ${usage(magic)}.`);
      this.result.magics.push({ kind: "time", start, end });
      return at;
    }
    const options = /^(?:-([nr])[ \t]*(\S*)[ \t]*)*/.exec(rest)![0];
    const given: { loops?: number; runs?: number } = {};
    for (const [, letter, digits = ""] of options.matchAll(/-([nr])[ \t]*(\S*)/g)) {
      const count = Number(digits);
      if (!Number.isSafeInteger(count) || count < 1)
        this.fault(at, at + options.length, `-${letter} takes a number from 1, got '${digits}'. ${usage(magic)}.`);
      else given[letter === "n" ? "loops" : "runs"] = count;
    }
    const cell = this.text.startsWith("%%", start);
    const left = rest.slice(options.length).trim();
    if (cell && left !== "") this.fault(at, at + rest.length, `'${left}' is not understood here. ${magic.cell}.`);
    if (!cell && left === "") this.fault(start, end, `What is to be measured? ${usage(magic)}.`);
    if (!cell && options !== "") this.blank(at, at + options.length);
    this.result.magics.push({ kind: "timeit", start, end, ...given });
    return at + options.length;
  }

  private shell(line: Line): boolean {
    const { start, end } = line;
    const rest = this.text.slice(start + 1, end);
    if (rest.trim() === "" || rest === "?") {
      this.blank(start, end);
      this.help(start, end, "!");
      return true;
    }
    // `!(…)`, `!!x` and `![…]` are TypeScript; so is `!name` of a name that the notebook has.
    if (/^[([!+`"']/.test(rest)) return false;
    const word = /^[\p{ID_Start}$_][\p{ID_Continue}$]*/u.exec(rest)?.[0];
    if (word !== undefined && (keywords.has(word) || this.known(word) || this.declares(word))) {
      if (parses(`${this.code.slice(0, end)}`)) return false;
    }
    this.call("!", line, start + 1);
    return true;
  }

  private declares(word: string): boolean {
    return new RegExp(
      `\\b(?:let|const|var|function|class|import)\\b[^;=\\n]*(?<![\\p{ID_Continue}$])${word.replaceAll("$", "\\$")}(?![\\p{ID_Continue}$])`,
      "u",
    ).test(this.code);
  }

  private call(name: string, { start, end }: Line, at: number): void {
    const texts: string[] = [];
    const spans: [open: number, close: number][] = [];
    let text = "";
    let doubled = 0;
    for (let i = at; i < end; i++) {
      const letter = this.text[i]!;
      if (this.text.startsWith("{{", i) || (doubled > 0 && this.text.startsWith("}}", i))) {
        doubled += letter === "{" ? 1 : -1;
        text += letter;
        i++;
      } else if (letter === "{" && this.text[i - 1] !== "$") {
        const close = this.closing(i, end);
        if (close === undefined) text += letter;
        else {
          texts.push(text);
          text = "";
          spans.push([i, close]);
          i = close;
        }
      } else if (letter === "\\" && /[\r\n]/.test(this.text[i + 1] ?? "")) {
        i += this.text[i + 1] === "\r" ? 2 : 1;
        text += " ";
      } else text += letter;
    }
    texts.push(text);
    this.blank(start, end);
    // The expressions stay where they are, as the elements of an array: `!cat {a} {b}` is `;    [a , b]`.
    spans.forEach(([open, close], index) => {
      const inner = this.text.slice(open + 1, close);
      const last = index === spans.length - 1;
      this.code = `${this.code.slice(0, open)}${index === 0 ? "[" : " "}${inner}${last ? "]" : ","}${this.code.slice(close + 1)}`;
    });
    this.result.magics.push({ kind: "call", name, start, end, texts });
  }

  /** The brace that closes an expression; none where the braces hold something else, as those of awk or of a shell do. */
  private closing(open: number, end: number): number | undefined {
    for (
      let close = this.text.indexOf("}", open);
      close >= 0 && close < end;
      close = this.text.indexOf("}", close + 1)
    ) {
      if (isExpression(this.text.slice(open + 1, close))) return close;
    }
    const { cursor } = this;
    if (cursor === undefined || cursor <= open || cursor > end) return undefined;
    // Up to the cursor everything in braces is an expression that is being typed.
    return /[}\s]/.test(this.text[cursor] ?? " ") ? cursor : undefined;
  }
}

const keywords = new Set(
  "await function class new this typeof void delete import true false null undefined async globalThis".split(" "),
);

function parse(code: string): { file: t.SourceFile; sound: boolean } {
  const file = ts.createSourceFile("cell.ts", code, ts.ScriptTarget.ES2023, false);
  return { file, sound: (file as typeof file & { parseDiagnostics: unknown[] }).parseDiagnostics.length === 0 };
}

function parses(code: string): boolean {
  return parse(code).sound;
}

/** One expression, and no sequence: `{a,b}` is the shell's. */
function isExpression(text: string): boolean {
  if (text.trim() === "") return false;
  const { file, sound } = parse(`[${text}\n]`);
  const statement = file.statements[0];
  if (!sound || file.statements.length !== 1 || statement === undefined || !ts.isExpressionStatement(statement))
    return false;
  const { expression } = statement;
  return (
    ts.isArrayLiteralExpression(expression) &&
    expression.elements.length === 1 &&
    !ts.isSpreadElement(expression.elements[0]!)
  );
}
