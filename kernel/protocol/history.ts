import { homedir } from "node:os";
import { join } from "node:path";
import { type Entry, HistoryFile } from "./history-file.js";
import type { Json } from "./message.js";

/**
 * Where executed code is kept across sessions: `TUNEBOOK_HISTORY`, or `tunebook/history.jsonl` in the user's data folder.
 *
 * @returns undefined where `TUNEBOOK_HISTORY` is "off".
 */
export function historyFile(env: NodeJS.ProcessEnv = process.env): string | undefined {
  const chosen = env.TUNEBOOK_HISTORY;
  if (chosen === "off") return undefined;
  if (chosen !== undefined && chosen !== "" && chosen !== "on") return chosen;
  const data =
    process.platform === "darwin"
      ? join(homedir(), "Library", "Application Support")
      : process.platform === "win32" && env.APPDATA
        ? env.APPDATA
        : env.XDG_DATA_HOME || join(homedir(), ".local", "share");
  return join(data, "tunebook", "history.jsonl");
}

// A cell's reply comes first: what was executed is written a little later, and all at once where cells follow each other.
const WRITE_AFTER_MS = 200;

/** What was executed in this session and those before it, and the answers to `history_request`. */
export class History {
  readonly #file: HistoryFile | undefined;
  readonly #log: (text: string) => void;
  readonly #entries: Entry[] = [];
  #session = 1;
  #usable = false;
  #begun: Promise<void> | undefined;
  #saving: Promise<void> = Promise.resolve();
  #unsaved: Entry[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** @param path - where sessions are kept; undefined: this session alone is remembered */
  constructor(path?: string, log: (text: string) => void = () => {}) {
    this.#file = path === undefined ? undefined : new HistoryFile(path);
    this.#log = log;
  }

  /** Begins a session of its own in the file; nothing has to wait for it. */
  start(): Promise<void> {
    this.#begun ??= this.#begin();
    return this.#begun;
  }

  /** Remembers one execution: its number, its code, and the text of its result. */
  add(line: number, input: string, output: string | undefined): void {
    const entry = { session: this.#session, line, input, output };
    this.#entries.push(entry);
    if (this.#file === undefined) return;
    this.#unsaved.push(entry);
    this.#timer ??= setTimeout(() => void this.saved(), WRITE_AFTER_MS);
  }

  /** Resolves when everything is in the file. */
  saved(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const entries = this.#unsaved;
    this.#unsaved = [];
    const file = this.#file;
    if (file === undefined || entries.length === 0) return this.#saving;
    this.#saving = this.#saving.then(async () => {
      // It numbers the entries anew: only now the session has its number.
      await this.start();
      if (!this.#usable) return;
      try {
        await file.add(entries);
      } catch (error) {
        this.#usable = false;
        this.#log(`the history is not kept any more: ${(error as Error).message}`);
      }
    });
    return this.#saving;
  }

  /** The content of a `history_reply`: tail, range or search. */
  async answer(request: Json): Promise<Json> {
    await this.start();
    const chosen = this.#choose(request, await this.#all());
    const withOutput = request.output === true;
    const history = chosen.map(({ session, line, input, output }) => [
      session,
      line,
      withOutput ? [input, output ?? null] : input,
    ]);
    return { status: "ok", history };
  }

  async #begin(): Promise<void> {
    if (this.#file === undefined) return;
    try {
      this.#session = await this.#file.begin();
      this.#usable = true;
    } catch (error) {
      this.#log(`the history in ${this.#file.path} is not used: ${(error as Error).message}`);
    }
    for (const entry of this.#entries) entry.session = this.#session;
  }

  // Other sessions first, this one last, whatever order they were written in.
  async #all(): Promise<readonly Entry[]> {
    if (this.#file === undefined || !this.#usable) return this.#entries;
    try {
      const others = (await this.#file.entries()).filter(({ session }) => session !== this.#session);
      return [...others, ...this.#entries];
    } catch (error) {
      this.#log(`the history cannot be read: ${(error as Error).message}`);
      return this.#entries;
    }
  }

  #choose(request: Json, entries: readonly Entry[]): readonly Entry[] {
    const n = typeof request.n === "number" ? Math.max(0, Math.floor(request.n)) : undefined;
    const last = (some: readonly Entry[]): readonly Entry[] => (n === undefined ? some : n === 0 ? [] : some.slice(-n));
    switch (request.hist_access_type) {
      case "range": {
        // 0 is this session, -1 the one before it.
        const given = typeof request.session === "number" ? request.session : 0;
        const wanted = given <= 0 ? this.#session + given : given;
        const start = typeof request.start === "number" ? request.start : 0;
        const stop = typeof request.stop === "number" ? request.stop : Number.POSITIVE_INFINITY;
        return entries.filter(({ session, line }) => session === wanted && line >= start && line < stop);
      }
      case "search": {
        const pattern = glob(typeof request.pattern === "string" ? request.pattern : "*");
        let found = entries.filter(({ input }) => pattern(input));
        // Of equal inputs the newest counts, at the newest's place.
        if (request.unique === true) {
          const newest = new Map(found.map((one) => [one.input, one]));
          found = found.filter((one) => newest.get(one.input) === one);
        }
        return last(found);
      }
      default:
        return last(entries);
    }
  }
}

// `*` and `?` as in SQLite's GLOB, without regular expressions: a pattern from outside cannot be made to explode.
function glob(pattern: string): (text: string) => boolean {
  return (text) => {
    let p = 0;
    let t = 0;
    let star = -1;
    let resume = 0;
    while (t < text.length) {
      if (pattern[p] === "*") {
        star = p++;
        resume = t;
      } else if (p < pattern.length && (pattern[p] === "?" || pattern[p] === text[t])) {
        p++;
        t++;
      } else if (star >= 0) {
        p = star + 1;
        t = ++resume;
      } else return false;
    }
    while (pattern[p] === "*") p++;
    return p === pattern.length;
  };
}
