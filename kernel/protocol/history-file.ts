import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";

/** One executed cell of some session. */
export interface Entry {
  session: number;
  line: number;
  input: string;
  output: string | undefined;
}

const MAX_BYTES = 8 * 2 ** 20;
const KEPT_BYTES = 4 * 2 ** 20;
const MAX_LINE_BYTES = 256 * 2 ** 10;
const MAX_OUTPUT = 16_384;
const LOCK_WAIT_MS = 2_000;
const LOCK_STALE_MS = 10_000;

/**
 * Executed code of many sessions and kernels in one file of JSON lines, only ever appended to: `{"s":session,"l":line,"i":input,"o":output}`,
 * and `{"s":session}` where a session begins. A line that a crash has torn is skipped. Beyond 8 MiB the oldest half goes when a session begins.
 */
export class HistoryFile {
  readonly path: string;
  #stamp = "";
  #entries: Entry[] = [];
  #last = 0;

  constructor(path: string) {
    this.path = path;
  }

  /** Begins a session; returns its number, which no other has. */
  async begin(): Promise<number> {
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    return this.#locked(async () => {
      await this.#shrink();
      await this.entries();
      const session = this.#last + 1;
      await this.#append([{ s: session }]);
      return session;
    });
  }

  /** Appends what was executed; too long a line is left out. */
  async add(entries: readonly Entry[]): Promise<void> {
    const records = entries.map(({ session, line, input, output }) => {
      const shown = output !== undefined && output.length > MAX_OUTPUT ? undefined : output;
      return { s: session, l: line, i: input, ...(shown === undefined ? {} : { o: shown }) };
    });
    await this.#append(records);
  }

  /** All entries in the order they were written, read anew when the file has changed. */
  async entries(): Promise<readonly Entry[]> {
    const text = await this.#changed();
    if (text === undefined) return this.#entries;
    // By session and line: an append that met a shrinking file was written twice.
    const found = new Map<string, Entry>();
    this.#last = 0;
    for (const line of text.split("\n")) {
      const entry = parse(line);
      if (entry === undefined) continue;
      this.#last = Math.max(this.#last, entry.session);
      if (entry.line > 0) found.set(`${entry.session} ${entry.line}`, entry);
    }
    this.#entries = [...found.values()];
    return this.#entries;
  }

  async #changed(): Promise<string | undefined> {
    let file: FileHandle;
    try {
      file = await open(this.path, constants.O_RDONLY | constants.O_NOFOLLOW);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      this.#entries = [];
      this.#stamp = "";
      return undefined;
    }
    try {
      const { ino, size, mtimeMs } = await file.stat();
      const stamp = `${ino} ${size} ${mtimeMs}`;
      if (stamp === this.#stamp) return undefined;
      if (size > 16 * MAX_BYTES) throw new Error(`it has ${size} bytes, which no history has; delete it`);
      this.#stamp = stamp;
      return await file.readFile("utf8");
    } finally {
      await file.close();
    }
  }

  // One write of whole lines: appends of several kernels do not mix.
  async #append(records: readonly object[]): Promise<void> {
    const lines = records.map((record) => Buffer.from(`${JSON.stringify(record)}\n`));
    const text = Buffer.concat(lines.filter(({ length }) => length <= MAX_LINE_BYTES));
    if (text.length === 0) return;
    for (let attempt = 0; attempt < 3; attempt++) {
      const flags = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW;
      const file = await open(this.path, flags, 0o600);
      try {
        const { size, ino } = await file.stat();
        const end = Buffer.alloc(1);
        if (size > 0) await file.read(end, 0, 1, size - 1);
        // A torn last line is ended first, so that it spoils itself alone.
        const torn = size > 0 && end[0] !== 10;
        await file.write(torn ? Buffer.concat([Buffer.from("\n"), text]) : text);
        // Another kernel has put a shorter file in this one's place meanwhile: it gets the lines too.
        if ((await stat(this.path)).ino === ino) return;
      } finally {
        await file.close();
      }
    }
  }

  async #shrink(): Promise<void> {
    let size = 0;
    try {
      ({ size } = await stat(this.path));
    } catch {
      return;
    }
    if (size <= MAX_BYTES) return;
    await this.entries();
    const kept: string[] = [`{"s":${this.#last}}`];
    let bytes = 0;
    for (const { session, line, input, output } of this.#entries.toReversed()) {
      const text = JSON.stringify({ s: session, l: line, i: input, ...(output === undefined ? {} : { o: output }) });
      bytes += Buffer.byteLength(text) + 1;
      if (bytes > KEPT_BYTES) break;
      kept.push(text);
    }
    const fresh = `${this.path}.${randomUUID()}`;
    const file = await open(fresh, "wx", 0o600);
    try {
      await file.writeFile(`${kept.reverse().join("\n")}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, this.path);
  }

  // A lock file of a kernel that was killed goes stale.
  async #locked<T>(work: () => Promise<T>): Promise<T> {
    const lock = `${this.path}.lock`;
    for (const began = Date.now(); ; ) {
      try {
        await (await open(lock, "wx", 0o600)).close();
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
      const age = await stat(lock).then(
        ({ mtimeMs }) => Date.now() - mtimeMs,
        () => 0,
      );
      if (age > LOCK_STALE_MS) await rm(lock, { force: true });
      else if (Date.now() - began > LOCK_WAIT_MS) throw new Error(`${lock} is held by another kernel`);
      else await new Promise((resolve) => setTimeout(resolve, 10));
    }
    try {
      return await work();
    } finally {
      await rm(lock, { force: true });
    }
  }
}

function parse(line: string): Entry | undefined {
  if (line === "") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { s, l = 0, i = "", o } = value as { [key: string]: unknown };
  if (!isCount(s) || !isCount(l) || typeof i !== "string") return undefined;
  return { session: s, line: l, input: i, output: typeof o === "string" ? o : undefined };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
