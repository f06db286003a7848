import { Console } from "node:console";
import type { Command, MimeBundle, Outcome } from "../channel.js";
import { bundle } from "./display.js";
import { type Display, displayOf } from "./displays.js";
import { confirm, prompt } from "./input.js";
import type { TimerOwner } from "./timers.js";

/** Thrown into whatever a cell awaits when it is interrupted. */
export class InterruptedError extends Error {
  override readonly name = "InterruptedError";
}

/** Where cells send what they show. */
export interface Output {
  stream(cell: Cell, name: "stdout" | "stderr", text: string): void;
  display(cell: Cell, data: MimeBundle, options: DisplayOptions): void;
  clear(cell: Cell, wait: boolean): void;
  input(cell: Cell, prompt: string, password: boolean): Promise<string>;
  /** The cell that what `cell` shows now belongs to: another one while that runs code of this one, or a comm's message is handled. */
  here(cell: Cell): Cell;
}

export interface DisplayOptions {
  /** Displays of one id can be updated. */
  id?: string;
  /** Replace the earlier display of that id instead of adding one. */
  update?: boolean;
  metadata?: MimeBundle;
}

/** What a cell is made of; a message of a comm is one without the rest. */
export type CellOptions = { cell: string } & Partial<Pick<Extract<Command, { type: "run" }>, "quiet" | "allowStdin">>;

/** One execution of a cell: its own console, display, interrupt signal and timers. */
export class Cell implements TimerOwner {
  readonly id: string;
  readonly quiet: boolean;
  readonly timers: Set<NodeJS.Timeout | NodeJS.Immediate> = new Set();
  /** Output that is still being made. */
  readonly pending: Set<Promise<void>> = new Set();
  #console: Console | undefined;
  interrupted = false;
  finished = false;
  /** Somebody asked for the signal, so the cell may end by itself when it is aborted. */
  listening = false;
  #abort: AbortController | undefined;
  readonly #output: Output;
  readonly #allowStdin: boolean;

  constructor(command: CellOptions, output: Output) {
    this.id = command.cell;
    this.quiet = command.quiet ?? false;
    this.#allowStdin = command.allowStdin ?? false;
    this.#output = output;
  }

  /** Its own console, made when it is first asked for: most cells print nothing. */
  get console(): Console {
    if (this.#console !== undefined) return this.#console;
    const stream = (name: "stdout" | "stderr") =>
      ({
        write: (text: string) => this.#output.stream(this.#output.here(this), name, String(text)),
      }) as unknown as NodeJS.WritableStream;
    const streams = { stdout: stream("stdout"), stderr: stream("stderr") };
    this.#console = new Console({ ...streams, ignoreErrors: false, colorMode: false });
    return this.#console;
  }

  signal(): AbortSignal {
    this.listening = true;
    this.#abort ??= new AbortController();
    return this.#abort.signal;
  }

  /** Text of the kernel's own or of a program that the cell has started. */
  print(name: "stdout" | "stderr", text: string): void {
    this.#output.stream(this, name, text);
  }

  /** Shows a bundle of the kernel's own. */
  publish(data: MimeBundle, options: DisplayOptions = {}): void {
    this.#output.display(this, data, options);
  }

  /** Shows a value now, or as soon as its bundle is there: the cell does not end before. */
  show(value: unknown, options: DisplayOptions = {}): void {
    const made = bundle(value, true);
    const cell = this.#output.here(this);
    if (!(made instanceof Promise)) {
      this.#output.display(cell, made, options);
      return;
    }
    const shown = made.then((data) => this.#output.display(cell, data, options));
    cell.hold(shown.catch((error: unknown) => this.console.error("The display has failed:", error)));
  }

  /** Empties the output that the cell has by now; with `wait`, when the next one comes. */
  clear(wait: boolean): void {
    this.#output.clear(this.#output.here(this), wait);
  }

  /** The `display` of the cell's code. */
  readonly display: Display = displayOf(this);

  /** The cell does not end before this has settled, one way or the other. */
  hold(work: Promise<unknown>): void {
    const settled = (): void => void this.pending.delete(pending);
    const pending: Promise<void> = Promise.resolve(work).then(settled, settled);
    this.pending.add(pending);
  }

  /** Asks the front end's user for a line; rejects with EndOfInputError where there is none. */
  readonly input = async (prompt = "", options: { password?: boolean } = {}): Promise<string> => {
    if (!this.#allowStdin) {
      throw new Error("input(): this front end does not ask its user for input (allow_stdin is false).");
    }
    if (this.finished) throw new Error("input(): the cell has ended, so nobody can be asked any more.");
    return this.#output.input(this, String(prompt), options.password === true);
  };

  /** Asks for a line, which may have a default; null where the user ends the input. */
  readonly prompt = (message = "", fallback?: string): Promise<string | null> => prompt(this.input, message, fallback);

  /** Asks a question whose answer is yes or no. */
  readonly confirm = (message = ""): Promise<boolean> => confirm(this.input, message);

  /** Aborts the signal and takes the cell's timers away. */
  stop(reason: InterruptedError): void {
    this.interrupted = true;
    for (const timer of this.timers) {
      clearTimeout(timer as NodeJS.Timeout);
      clearImmediate(timer as NodeJS.Immediate);
    }
    this.timers.clear();
    this.#abort?.abort(reason);
  }
}

const KEPT = "The cell was interrupted; variables keep their values.";
const GOES_ON = " What an earlier cell has started goes on: a second interrupt stops it.";

/**
 * The error of an interrupted cell; `during` is the traceback of an error that the interrupt led to, `beside` says that work of an earlier
 * cell goes on.
 */
export function interruptedOutcome(during: readonly string[], beside: boolean): Outcome {
  const evalue = beside ? KEPT + GOES_ON : KEPT;
  return {
    status: "error",
    interrupted: true,
    error: { ename: "InterruptedError", evalue, traceback: [`InterruptedError: ${evalue}`, ...during] },
  };
}
