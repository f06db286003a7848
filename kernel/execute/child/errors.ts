import { SourceMap, type SourceMapPayload } from "node:module";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import type { ErrorReport } from "../channel.js";

interface Source {
  map: string;
  parsed?: SourceMap;
  lines: string[];
  /** Lines that the wrapper puts before the compiled code. */
  label: string;
}

/** A place in the code of a cell or of a local TypeScript file; line and column count from 1. */
interface Place {
  file: string;
  line: number;
  column: number;
}

const INTERNAL = fileURLToPath(new URL("../../", import.meta.url));
const CONTEXT_LINES = 2;
const MAX_FRAMES = 20;
const MAX_LINE = 200;

/** Knows the source maps of all cells, and writes stacks and tracebacks in the cells' own lines. */
export class Traces {
  readonly #sources = new Map<string, Source>();
  /** Turns an engine's message into the cell's words. */
  #clean: (message: string) => string = (message) => message;

  /** Makes every `error.stack` of this process speak of the cells' own lines. */
  install(clean: (message: string) => string): void {
    this.#clean = clean;
    Error.stackTraceLimit = 30;
    Error.prepareStackTrace = (error: Error, sites: NodeJS.CallSite[]): string =>
      [this.#title(error), ...this.#frames(sites)].join("\n");
  }

  /** Remembers a file's map and text; `name` is the file name that V8 sees. */
  add(name: string, map: string, text: string): void {
    this.#sources.set(name, { map, lines: text.split("\n"), label: name });
  }

  /** What a front end shows of whatever was thrown. */
  report(thrown: unknown): ErrorReport {
    if (!isError(thrown)) {
      const value = inspect(thrown, { depth: 2, colors: false });
      return { ename: "Uncaught", evalue: value, traceback: [`Uncaught: ${value}`] };
    }
    const ename = String(thrown.name || "Error");
    const evalue = this.#clean(String(thrown.message ?? ""));
    const stack = typeof thrown.stack === "string" ? thrown.stack : `${ename}: ${evalue}`;
    const traceback = [this.#withExcerpt(stack)];
    let cause = thrown.cause;
    for (let depth = 0; isError(cause) && depth < 5; depth++) {
      traceback.push(`Caused by ${this.#withExcerpt(String(cause.stack ?? cause))}`);
      cause = cause.cause;
    }
    if (thrown instanceof AggregateError) {
      for (const one of thrown.errors.slice(0, 5)) traceback.push(`  ${isError(one) ? one.stack : inspect(one)}`);
    }
    return { ename, evalue, traceback };
  }

  /** The cell that an error's stack speaks of first, if it speaks of one. */
  cellOf(thrown: unknown): string | undefined {
    if (!isError(thrown) || typeof thrown.stack !== "string") return undefined;
    return /^ {4}at .*?\b(cell-[\w.]+):\d+:\d+/m.exec(thrown.stack)?.[1];
  }

  #title(error: Error): string {
    const message = this.#clean(String(error.message ?? ""));
    const name = String(error.name || "Error");
    return message === "" ? name : `${name}: ${message}`;
  }

  #frames(sites: NodeJS.CallSite[]): string[] {
    const lines: string[] = [];
    let outside: string[] = [];
    for (const site of sites) {
      const file = fileName(site);
      // The kernel's own frames say nothing to the reader of a notebook, and Node's below the last user frame neither.
      if (file.startsWith(INTERNAL)) continue;
      // Below it stand the frames that wait: the queue itself is nobody's code.
      if (site.getFunctionName() === "processTicksAndRejections") continue;
      const line = `    at ${this.#site(site, file)}`;
      if (file.startsWith("node:") || file === "") outside.push(line);
      else {
        lines.push(...outside, line);
        outside = [];
      }
    }
    if (lines.length === 0) lines.push(...outside);
    if (lines.length > MAX_FRAMES) lines.splice(MAX_FRAMES, lines.length, "    …");
    return lines;
  }

  #site(site: NodeJS.CallSite, file: string): string {
    const source = this.#sources.get(file);
    if (source === undefined) return String(site);
    const place = this.#place(source, site.getLineNumber() ?? 1, site.getColumnNumber() ?? 1);
    const where = `${place.file}:${place.line}:${place.column}`;
    const called = site.getFunctionName();
    if (called === null || called === "" || called === "$main") return where;
    const type = site.isConstructor() ? "new " : site.isAsync() ? "async " : "";
    return `${type}${called.replace(/^Object\./, "")} (${where})`;
  }

  #place(source: Source, line: number, column: number): Place {
    source.parsed ??= new SourceMap(JSON.parse(source.map) as SourceMapPayload);
    const entry = source.parsed.findEntry(line - 1, column - 1) as { originalLine?: number; originalColumn?: number };
    if (entry.originalLine === undefined || entry.originalColumn === undefined) {
      return { file: source.label, line, column };
    }
    return { file: source.label, line: entry.originalLine + 1, column: entry.originalColumn + 1 };
  }

  // Under the first frame that lies in a cell: the lines around, and a caret.
  #withExcerpt(stack: string): string {
    const lines = stack.split("\n");
    const at = lines.findIndex((line) => this.#placeIn(line) !== undefined);
    const place = this.#placeIn(lines[at] ?? "");
    if (place === undefined) return stack;
    const code = this.#sources.get(place.file)!.lines;
    const first = Math.max(1, place.line - CONTEXT_LINES);
    const excerpt: string[] = [];
    for (let line = first; line <= Math.min(code.length, place.line + 1); line++) {
      if (line > place.line && code[line - 1]!.trim() === "") break;
      // Of a very long line: the part around the place.
      const from = line === place.line ? Math.max(0, place.column - MAX_LINE / 2) : 0;
      const shown = code[line - 1]!.slice(from, from + MAX_LINE);
      excerpt.push(`${line === place.line ? ">" : " "} ${String(line).padStart(4)} | ${shown}`);
      if (line === place.line) excerpt.push(`       | ${" ".repeat(place.column - 1 - from)}^`);
    }
    lines.splice(at + 1, 0, ...excerpt);
    return lines.join("\n");
  }

  #placeIn(line: string): Place | undefined {
    const match = /^ {4}at .*?\(?([^\s()]+):(\d+):(\d+)\)?$/.exec(line);
    if (match === null || !this.#sources.has(match[1]!)) return undefined;
    return { file: match[1]!, line: Number(match[2]), column: Number(match[3]) };
  }
}

/** Also true of errors of another realm, which `instanceof` misses. */
export function isError(value: unknown): value is Error {
  return value instanceof Error || Object.prototype.toString.call(value) === "[object Error]";
}

/** Files of the code that is running now, and of the functions that await it, from the inside out. */
export function filesOnStack(): string[] {
  const prepare = Error.prepareStackTrace;
  const holder: { stack?: unknown } = {};
  Error.prepareStackTrace = (_, sites) => sites.map((site) => fileName(site));
  try {
    Error.captureStackTrace(holder, filesOnStack);
    // The array is made when the property is first read.
    return holder.stack as string[];
  } finally {
    Error.prepareStackTrace = prepare;
  }
}

function fileName(site: NodeJS.CallSite): string {
  const name = site.getFileName() ?? site.getScriptNameOrSourceURL?.() ?? "";
  if (!name.startsWith("file://")) return name;
  try {
    return fileURLToPath(name);
  } catch {
    return name;
  }
}
