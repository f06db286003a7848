import { inspect } from "node:util";
import type { Cell } from "./cell.js";
import { type Ended, runProgram, shellCommand, shellProgram } from "./shell.js";

/** What a command has printed, and its exit code. */
export class ShellOutput implements Ended {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;

  constructor({ stdout, stderr, code }: Ended) {
    this.stdout = stdout;
    this.stderr = stderr;
    this.code = code;
  }

  /** The lines of its standard output. */
  get lines(): string[] {
    const text = this.stdout.replace(/\r?\n$/, "");
    return text === "" ? [] : text.split(/\r?\n/);
  }

  /** Its standard output without the line end at its end, as `$(…)` gives it. */
  toString(): string {
    return this.stdout.replace(/\n+$/, "");
  }

  [Symbol.for("Jupyter.display")](): Record<string, string> {
    const parts = [this.stdout.trimEnd(), this.stderr.trimEnd(), this.code === 0 ? "" : `[exit code ${this.code}]`];
    return { "text/plain": parts.filter(Boolean).join("\n") };
  }

  [inspect.custom](): object {
    return { stdout: this.stdout, stderr: this.stderr, code: this.code };
  }
}

/** A command has ended with another exit code than 0. */
export class ShellError extends Error {
  override readonly name = "ShellError";
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;

  constructor(command: string, { code, signal, stdout, stderr }: Ended) {
    const how = signal === undefined ? `ended with exit code ${code}` : `was ended by ${signal}`;
    const last = (stderr.trimEnd() || stdout.trimEnd()).split("\n").slice(-5).join("\n");
    const shown = command.length > 200 ? `${command.slice(0, 199)}…` : command;
    super(`\`${shown.trim()}\` ${how}${last === "" ? "." : `:\n${last}`}`);
    for (const key of ["code", "stdout", "stderr"] as const) Object.defineProperty(this, key, { enumerable: false });
    this.code = code;
    this.stdout = stdout;
    this.stderr = stderr;
  }
}

interface ShellOptions {
  live?: boolean;
  check?: boolean;
  cwd?: string;
  env?: Record<string, string | undefined>;
  input?: string | Uint8Array;
  signal?: AbortSignal;
}

type Tag = (texts: TemplateStringsArray, ...values: unknown[]) => Promise<ShellOutput>;
const known = new Set(["live", "check", "cwd", "env", "input", "signal"]);

/** The texts of a template; one with an escape that JavaScript does not know, such as `\\d`, as it is written. */
function pieces(texts: TemplateStringsArray): string[] {
  return texts.map((text: string | undefined, index) => text ?? texts.raw[index]!);
}

/** The `sh` of cells; `cell` gives the one that calls it. */
export function shellFor(cell: () => Cell): Tag & ((options: ShellOptions) => Tag) {
  const run = async (options: ShellOptions, texts: readonly string[], values: unknown[]): Promise<ShellOutput> => {
    const { live = false, check = true, cwd, env, input, signal } = options;
    const owner = cell();
    const command = shellCommand(texts, values);
    const ended = await runProgram(shellProgram(), ["-c", command], {
      cwd,
      env: env && { ...process.env, ...env },
      input,
      signal: signal ? AbortSignal.any([signal, owner.signal()]) : owner.signal(),
      onText: live ? (name, text) => owner.print(name, text) : undefined,
    });
    if (check && ended.code !== 0) throw new ShellError(command, ended);
    return new ShellOutput(ended);
  };
  const isTemplate = (first: unknown): first is TemplateStringsArray => Array.isArray(first) && "raw" in first;
  return ((first: unknown, ...values: unknown[]) => {
    if (isTemplate(first)) return run({}, pieces(first), values);
    const strange =
      typeof first === "object" && first !== null ? Object.keys(first).find((key) => !known.has(key)) : String(first);
    if (strange !== undefined) {
      throw new TypeError(
        `sh takes a template (sh\`ls \${folder}\`) or options (sh({ live: true })\`make\`); expected ${[...known].join(", ")}, got ${JSON.stringify(strange)}.`,
      );
    }
    return (texts: TemplateStringsArray, ...inner: unknown[]) => run(first as ShellOptions, pieces(texts), inner);
  }) as Tag & ((options: ShellOptions) => Tag);
}
