import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { StringDecoder } from "node:string_decoder";
import { native } from "./timers.js";

/** How a program has ended. */
export interface Ended {
  stdout: string;
  stderr: string;
  /** Its exit code; 128 and the signal's number where a signal ended it, as shells have it. */
  code: number;
  signal?: NodeJS.Signals;
}

export interface ProgramOptions {
  cwd?: string | undefined;
  env?: NodeJS.ProcessEnv | undefined;
  /** Text for its standard input, which is empty otherwise. */
  input?: string | Uint8Array | undefined;
  /** Ends the program when it is aborted. */
  signal?: AbortSignal | undefined;
  /** Called with what the program writes, as it comes. */
  onText?: ((name: "stdout" | "stderr", text: string) => void) | undefined;
  /** Keep no more of each stream than its last so many characters (all by default). */
  keep?: number | undefined;
}

const TERMINATE_AFTER_MS = 400;
const KILL_AFTER_MS = 1_000;
/** Programs that a command leaves running hold its output open: it counts as ended when so much time has brought no more. */
const QUIET_MS = 100;
/** What a command starts inherits this variable, and so is found when its parent has gone. */
const MARK = "TUNEBOOK_COMMAND";
let commands = 0;
const signalNumbers: Partial<Record<NodeJS.Signals, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
};

let shell: string | undefined;

/** The shell of commands: bash where there is one. */
export function shellProgram(): string {
  shell ??= ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"].find((path) => existsSync(path)) ?? "/bin/sh";
  return shell;
}

/**
 * Runs a program in the executor's process group, so that it gets an interrupt's SIGINT and ends with the executor. One
 * that does not end by that is terminated, then killed, together with all that it has started.
 *
 * @throws the reason of the signal, at once when it is aborted
 */
export function runProgram(file: string, args: readonly string[], options: ProgramOptions = {}): Promise<Ended> {
  const { cwd, env, input, signal, onText, keep } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const mark = `${process.pid}-${++commands}`;
    const child = spawn(file, args, {
      cwd,
      env: { ...(env ?? process.env), [MARK]: mark },
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    const texts = { stdout: "", stderr: "" };
    let ended = false;
    let received = 0;
    const take = (name: "stdout" | "stderr", text: string): void => {
      if (text === "") return;
      onText?.(name, text);
      if (keep !== 0) texts[name] = (texts[name] + text).slice(keep === undefined ? 0 : -keep);
    };
    for (const name of ["stdout", "stderr"] as const) {
      const decoder = new StringDecoder("utf8");
      child[name]!.on("data", (piece: Buffer) => {
        received++;
        take(name, decoder.write(piece));
      });
      child[name]!.on("end", () => take(name, decoder.end()));
    }
    child.stdin?.on("error", () => {}); // a program may end without reading its input
    child.stdin?.end(input);
    const stop = (): void => {
      const end = (kind: NodeJS.Signals): void => {
        if (child.pid !== undefined) signalAll(child.pid, mark, kind);
      };
      // A caller's own signal has not sent anything yet; an interrupt has, and a second SIGINT does no harm.
      end("SIGINT");
      native.setTimeout(() => end("SIGTERM"), TERMINATE_AFTER_MS);
      native.setTimeout(() => end("SIGKILL"), KILL_AFTER_MS);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", stop, { once: true });
    child.on("error", (error) => {
      ended = true;
      signal?.removeEventListener("abort", stop);
      reject(error);
    });
    const end = (code: number | null, by: NodeJS.Signals | null): void => {
      if (ended) return;
      ended = true;
      signal?.removeEventListener("abort", stop);
      resolve({ ...texts, code: code ?? 128 + (signalNumbers[by!] ?? 0), ...(by ? { signal: by } : {}) });
    };
    child.on("close", end);
    child.on("exit", (code, by) => {
      const wait = (): void => {
        const before = received;
        // An immediate comes after the input that the timer has made wait.
        native.setTimeout(() => native.setImmediate(() => (received === before ? end(code, by) : wait())), QUIET_MS);
      };
      wait();
    });
  });
}

/** Signals a command and all that it has started: what descends from it, and what carries its mark. */
function signalAll(pid: number, mark: string, signal: NodeJS.Signals): void {
  const children = new Map<number, number[]>();
  const found = new Set<number>();
  const entry = Buffer.from(`${MARK}=${mark}\0`);
  try {
    for (const name of readdirSync("/proc")) {
      if (!/^\d+$/.test(name) || name === String(process.pid)) continue;
      try {
        // The name in parentheses may hold anything.
        const parent = Number(/^.*\) \S (\d+)/s.exec(readFileSync(`/proc/${name}/stat`, "utf8"))?.[1]);
        children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
        if (readFileSync(`/proc/${name}/environ`).includes(entry)) found.add(Number(name));
      } catch {
        // It has ended meanwhile, or is somebody else's.
      }
    }
  } catch {
    // No /proc: the program alone.
    found.add(pid);
  }
  for (const one of [pid, ...found]) for (const child of children.get(one) ?? []) found.add(child);
  for (const one of found) {
    try {
      process.kill(one, signal);
    } catch {
      // Gone already.
    }
  }
}

type Quote = "" | "'" | '"';

/**
 * Puts values into a command: each as one word, whatever it holds, quoted by where it stands (bare, or inside the
 * command's own quotes). An array becomes several words.
 */
export function shellCommand(texts: readonly string[], values: readonly unknown[]): string {
  let quote: Quote = "";
  let command = "";
  texts.forEach((text, index) => {
    quote = quoteAfter(text, quote);
    command += text;
    if (index >= values.length) return;
    const value = values[index];
    const words = (Array.isArray(value) ? value : [value]).map(word);
    command += words.map((one) => quoted(one, quote)).join(" ");
  });
  return command;
}

function word(value: unknown): string {
  if (typeof value === "object" && value !== null && "stdout" in value) return String(value.stdout).replace(/\n+$/, "");
  const text = String(value);
  if (text.includes("\0")) throw new TypeError("A word of a command cannot hold the character NUL.");
  return text;
}

function quoted(text: string, quote: Quote): string {
  if (quote === '"') return text.replace(/["\\$`]/g, "\\$&");
  const inside = text.replaceAll("'", "'\\''");
  if (quote === "'") return inside;
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${inside}'`;
}

/** The quote that is open after a piece of a command. */
function quoteAfter(text: string, before: Quote): Quote {
  let quote = before;
  for (let i = 0; i < text.length; i++) {
    const letter = text[i]!;
    if (letter === "\\" && quote !== "'") i++;
    else if (quote === "" && (letter === "'" || letter === '"')) quote = letter;
    else if (letter === quote) quote = "";
  }
  return quote;
}
