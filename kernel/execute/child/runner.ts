import vm from "node:vm";
import { createScope, type Scope } from "../../compile/scope.js";
import type { Command, MimeBundle, Outcome } from "../channel.js";
import { Cell, type DisplayOptions, InterruptedError, interruptedOutcome, type Output } from "./cell.js";
import { contexts } from "./context.js";
import { bundle, clean } from "./display.js";
import { DisplayHandle } from "./displays.js";
import type { Traces } from "./errors.js";
import { Imports } from "./imports.js";
import { installMeetingPoints } from "./meeting.js";
import type { Port } from "./port.js";
import { native } from "./timers.js";
import { type RunCode, toolsOf } from "./tools.js";

type CellFunction = (scope: object, load: Imports["import"], cell: object) => Promise<{ value: unknown } | undefined>;

// How long an interrupted cell may take to end by itself: none of its code listens, or some of it does.
const SETTLE_MS = 20;
const LISTENING_SETTLE_MS = 500;

/** Runs one cell at a time and keeps what outlives them: the scope, imports, and the way to each cell's output. */
export class Runner implements Output {
  readonly #port: Port;
  readonly #flag: Int32Array;
  readonly #traces: Traces;
  readonly #scope: Scope = createScope();
  readonly #imports: Imports;
  readonly #transpiling = new Map<number, (command: Extract<Command, { type: "transpiled" }>) => void>();
  readonly #compiling = new Map<number, (command: Extract<Command, { type: "compiled" }>) => void>();
  readonly #asking = new Map<number, (value: string) => void>();
  /** Cells whose signal somebody holds: background work of earlier cells ends with an interrupt too. */
  readonly #listeners = new Set<Cell>();
  readonly #resets = new Set<() => void>();
  readonly #cells = new Map<string, WeakRef<Cell>>();
  #current: Cell | undefined;
  #before: Cell | undefined;
  #requests = 0;

  constructor(port: Port, flag: Int32Array, traces: Traces) {
    this.#port = port;
    this.#flag = flag;
    this.#traces = traces;
    const compiled = (file: string, map: string, text: string): void => traces.add(file, map, text);
    this.#imports = new Imports(process.cwd(), (file, text) => this.#transpile(file, text), compiled);
    globalThis.require = this.#imports.require;
    installMeetingPoints(this, flag, this.#resets);
  }

  /** The cell that runs now. */
  get running(): Cell | undefined {
    return this.#current?.finished === false ? this.#current : undefined;
  }

  /** The cell whose work runs now, as far as that is known; else the one that runs or ran last. */
  get current(): Cell | undefined {
    return contexts.now ?? this.#current;
  }

  here(cell: Cell): Cell {
    return contexts.now ?? cell;
  }

  /** The signal of the cell that runs now (or ran last), held until it is aborted. */
  signal(): AbortSignal {
    const cell = this.#current;
    if (cell === undefined) return new AbortController().signal;
    this.#listeners.add(cell);
    return cell.signal();
  }

  handle(command: Command): void {
    switch (command.type) {
      case "run":
        this.#run(command);
        break;
      case "interrupt":
        this.#interrupt();
        break;
      case "transpiled":
        this.#transpiling.get(command.id)?.(command);
        this.#transpiling.delete(command.id);
        break;
      case "compiled":
        this.#compiling.get(command.id)?.(command);
        this.#compiling.delete(command.id);
        break;
      case "input":
        this.#asking.get(command.id)?.(command.value);
        this.#asking.delete(command.id);
        break;
    }
  }

  stream(cell: Cell, name: "stdout" | "stderr", text: string): void {
    if (!cell.quiet) this.#port.stream(cell.id, name, text);
  }

  display(cell: Cell, data: MimeBundle, options: DisplayOptions): void {
    if (cell.quiet) return;
    const { id, update = false, metadata = {} } = options;
    const content = { data: clean(data), metadata: clean(metadata) };
    this.#port.post({
      type: "display",
      cell: cell.id,
      ...content,
      ...(id === undefined ? {} : { id: String(id) }),
      update,
    });
  }

  clear(cell: Cell, wait: boolean): void {
    if (!cell.quiet) this.#port.post({ type: "clear", cell: cell.id, wait });
  }

  input(cell: Cell, prompt: string, password: boolean): Promise<string> {
    const id = ++this.#requests;
    return new Promise((resolve, reject) => {
      cell.signal().addEventListener("abort", () => reject(cell.signal().reason), { once: true });
      this.#asking.set(id, resolve);
      this.#port.post({ type: "input", id, cell: cell.id, prompt, password });
    });
  }

  /** Text that no cell's own console has printed. */
  print(name: "stdout" | "stderr", text: string): void {
    const cell = this.current;
    if (cell !== undefined) this.stream(cell, name, text);
  }

  /** An error that nobody caught: shown under the cell it comes from; the state lives on. */
  uncaught(error: unknown, how: string): void {
    // What an interrupt has rejected is no news.
    if (error instanceof InterruptedError || (error as { name?: unknown } | null)?.name === "InterruptedError") return;
    const { traceback } = this.#traces.report(error);
    const origin = this.#traces.cellOf(error);
    const cell = (origin === undefined ? undefined : this.#cells.get(origin)?.deref()) ?? this.#current;
    if (cell !== undefined) this.stream(cell, "stderr", `${how}: ${traceback.join("\n")}\n`);
  }

  #run(command: Extract<Command, { type: "run" }>): void {
    const cell = new Cell(command, this);
    this.#before = this.#current;
    this.#current = cell;
    this.#cells.set(cell.id, new WeakRef(cell));
    // What an interrupt has stopped since the last cell is cleared away before this one.
    if (Atomics.exchange(this.#flag, 0, 0) !== 0) this.#reset();
    this.#traces.add(cell.id, command.map, command.source);
    let settled: Promise<{ value: unknown } | undefined>;
    try {
      const run = this.#function(command);
      settled = contexts.run(cell, () => run(this.#scope, this.#imports.import, this.#bindings(cell)));
    } catch (error) {
      settled = Promise.reject(error);
    }
    settled
      .then((result) => this.#render(cell, result))
      .then(
        (outcome) => this.#finish(cell, outcome),
        (error: unknown) => this.#finish(cell, this.#failure(cell, error)),
      );
  }

  // The compiled body, one line below the wrapper. Packages that a cell imports natively start from the folder.
  #function(command: { cell: string; js: string }): CellFunction {
    const code = `(async function $main($scope, $import, $cell) {\n${command.js}\n})`;
    return new vm.Script(code, {
      filename: command.cell,
      lineOffset: -1,
      importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
    }).runInThisContext() as CellFunction;
  }

  #bindings(cell: Cell): object {
    return {
      id: cell.id,
      console: cell.console,
      display: cell.display,
      input: cell.input,
      signal: () => cell.signal(),
      meta: this.#imports.meta,
      ...toolsOf(cell, { scope: this.#scope, folder: this.#imports.folder, port: this.#port, runCode: this.#runCode }),
    };
  }

  // Code of a file, as a cell of the notebook: compiled by the kernel process, run under the cell that asks for it.
  readonly #runCode: RunCode = async (cell, code, file, folder) => {
    const id = ++this.#requests;
    const { js, map, error } = await new Promise<Extract<Command, { type: "compiled" }>>((resolve) => {
      this.#compiling.set(id, resolve);
      this.#port.post({ type: "compile", id, cell: `${cell.id}.f${id}`, code, folder });
    });
    if (js === undefined || map === undefined) {
      const reason = error?.traceback.join("\n").replace(`${error.ename}: `, "") ?? "it cannot be compiled";
      throw Object.assign(new Error(`${file}: ${reason}`), { name: error?.ename ?? "SyntaxError" });
    }
    this.#traces.add(file, map, code);
    const meta = this.#imports.metaOf(file, folder);
    const run = this.#function({ cell: file, js });
    const bindings = { ...this.#bindings(cell), meta };
    return contexts.run(cell, () => run(this.#scope, this.#imports.from(folder), bindings));
  };

  async #render(cell: Cell, result: { value: unknown } | undefined): Promise<Outcome> {
    const value = result?.value;
    const data = value === undefined || value instanceof DisplayHandle ? undefined : clean(await bundle(value, false));
    while (cell.pending.size > 0) await Promise.all(cell.pending);
    return data === undefined ? { status: "ok" } : { status: "ok", result: { data, metadata: {} } };
  }

  #failure(cell: Cell, error: unknown): Outcome {
    const report = this.#traces.report(error);
    // The flag is up before the news of the interrupt reaches this thread.
    if (!cell.interrupted && Atomics.load(this.#flag, 0) === 0) return { status: "error", error: report };
    const expected = report.ename === "InterruptedError" || report.ename === "AbortError";
    return interruptedOutcome(expected ? [] : report.traceback);
  }

  #finish(cell: Cell, outcome: Outcome): void {
    if (cell.finished) return;
    cell.finished = true;
    if (contexts.now === cell) contexts.clear();
    // Late output of nobody's goes to the last cell that shows any.
    if (cell.quiet) this.#current = this.#before;
    try {
      this.#port.post({ type: "done", cell: cell.id, outcome });
    } catch (error) {
      // A bundle that cannot be cloned.
      this.#port.post({ type: "done", cell: cell.id, outcome: { status: "error", error: this.#traces.report(error) } });
    }
  }

  // Only reached with the event loop alive: either the cell awaits, or its loop has been stopped. A stopped cell's
  // promise never settles and its `finally` blocks never run, so it is ended here.
  #interrupt(): void {
    this.#port.acknowledge();
    contexts.clear();
    const reason = new InterruptedError("The cell was interrupted.");
    const running = this.running;
    for (const cell of this.#listeners) cell.stop(reason);
    this.#listeners.clear();
    this.#asking.clear();
    if (running === undefined) return;
    running.stop(reason);
    native.setTimeout(
      () => {
        if (running.finished) return;
        this.#finish(running, interruptedOutcome());
        this.#reset();
      },
      running.listening ? LISTENING_SETTLE_MS : SETTLE_MS,
    );
  }

  // Libraries put right what skipped `finally` blocks left behind (open scopes, tapes).
  #reset(): void {
    for (const reset of this.#resets) {
      try {
        reset();
      } catch (error) {
        this.uncaught(error, "A reset after the interrupt has failed");
      }
    }
  }

  #transpile(file: string, text: string): Promise<{ js: string; map: string }> {
    const id = ++this.#requests;
    return new Promise((resolve, reject) => {
      this.#transpiling.set(id, ({ js, map, error }) => {
        if (js === undefined || map === undefined) reject(new SyntaxError(error ?? `${file} cannot be transpiled.`));
        else resolve({ js, map });
      });
      this.#port.post({ type: "transpile", id, file, text });
    });
  }
}
