import vm from "node:vm";
import { createScope, type Scope } from "../../compile/scope.js";
import { type Command, type CommEvent, DEVICE_LOST, type MimeBundle, type Outcome } from "../channel.js";
import { Cell, type DisplayOptions, InterruptedError, interruptedOutcome, type Output } from "./cell.js";
import { CommManager } from "./comms.js";
import { contexts } from "./context.js";
import { bundle, clean } from "./display.js";
import { DisplayHandle } from "./displays.js";
import { filesOnStack, type Traces } from "./errors.js";
import { Imports } from "./imports.js";
import { EndOfInputError } from "./input.js";
import { installMeetingPoints } from "./meeting.js";
import type { Port } from "./port.js";
import { BESIDE, INTERRUPTING, type SharedWords } from "./shared.js";
import { native } from "./timers.js";
import { type RunCode, toolsOf } from "./tools.js";

type CellFunction = (scope: object, load: Imports["import"], cell: object) => Promise<{ value: unknown } | undefined>;

const DEVICE_LOST_NOTE =
  "The process that used the device ends here, and the variables of all cells with it; the next cell runs in a new one.";

// How long an interrupted cell may take to end by itself: none of its code listens, or some of it does.
const SETTLE_MS = 20;
const LISTENING_SETTLE_MS = 500;

/** Runs cells, those of one shell one at a time, and keeps what outlives them: the scope, imports, and the way to each cell's output. */
export class Runner implements Output {
  readonly #port: Port;
  readonly #flag: Int32Array;
  readonly #flow: Int32Array;
  readonly #traces: Traces;
  readonly #scope: Scope = createScope();
  readonly #imports: Imports;
  readonly #transpiling = new Map<number, (command: Extract<Command, { type: "transpiled" }>) => void>();
  readonly #compiling = new Map<number, (command: Extract<Command, { type: "compiled" }>) => void>();
  readonly #asking = new Map<number, { cell: Cell; answered(reply: Extract<Command, { type: "input" }>): void }>();
  readonly #comms = new CommManager((event, opener) => this.#sendComm(event, opener));
  /** Cells whose signal somebody holds: what they left behind ends with an interrupt that finds no cell running. */
  readonly #listeners = new Set<Cell>();
  /** Work that goes on after its cell, such as a training run. */
  readonly #beside = new Map<object, Cell>();
  readonly #resets = new Set<() => void>();
  #failed = false;
  readonly #cells = new Map<string, WeakRef<Cell>>();
  /** In the order of their start. */
  readonly #running = new Set<Cell>();
  /** The last cell that shows what it prints. */
  #last: Cell | undefined;
  /** A comm's message is being handled. */
  #handling: Cell | undefined;
  #requests = 0;

  constructor(port: Port, { flag, flow }: SharedWords, traces: Traces) {
    this.#port = port;
    this.#flag = flag;
    this.#flow = flow;
    this.#traces = traces;
    const compiled = (file: string, map: string, text: string): void => traces.add(file, map, text);
    this.#imports = new Imports(process.cwd(), (file, text) => this.#transpile(file, text), compiled);
    globalThis.require = this.#imports.require;
    installMeetingPoints(this, flag, this.#resets, this.#comms.of());
  }

  /** The cell that runs now; of several the one that was started last. */
  get running(): Cell | undefined {
    let newest: Cell | undefined;
    for (const cell of this.#running) newest = cell;
    return newest;
  }

  /** The cell whose work runs now, as far as that is known; else the one that runs or ran last. */
  get current(): Cell | undefined {
    return contexts.now ?? this.#handling ?? this.running ?? this.#last;
  }

  /**
   * The running cell that the code running now belongs to. With one cell running and nothing beside it, that is the one; otherwise the cell
   * has said so, or the stack tells, which knows the functions that await.
   */
  owner(): Cell | undefined {
    if (this.#running.size === 0) return undefined;
    if (contexts.now !== undefined && this.#running.has(contexts.now)) return contexts.now;
    if (this.#running.size === 1 && this.#beside.size === 0) return this.running;
    const files = new Set(filesOnStack());
    return [...this.#running].find((cell) => files.has(cell.id));
  }

  /** The cell, running or not, that the code running now belongs to, as far as that can be known. */
  get origin(): Cell | undefined {
    if (this.#handling !== undefined || this.#beside.size === 0) return this.#handling ?? this.owner() ?? this.current;
    const found = contexts.now ?? this.owner();
    if (found !== undefined) return found;
    const known = filesOnStack().find((file) => this.#cells.has(file));
    return (known && this.#cells.get(known)?.deref()) || [...this.#beside.values()].at(-1);
  }

  /** While a comm's message is handled, what cells of the past show belongs to it. */
  here(cell: Cell): Cell {
    return contexts.now ?? (this.#handling !== undefined && cell.finished ? this.#handling : cell);
  }

  /** The signal of the cell that the code running now belongs to, held until it is aborted. */
  signal(which?: "running"): AbortSignal {
    const cell = which === "running" ? this.current : this.origin;
    if (cell === undefined) return new AbortController().signal;
    this.#listeners.add(cell);
    return cell.signal();
  }

  handle(command: Command): void {
    switch (command.type) {
      case "run":
        this.#start(new Cell(command, this), (cell) => this.#execute(cell, command));
        break;
      case "comm":
        this.#start(new Cell(command, this), (cell) => this.#receive(cell, command.event));
        break;
      case "interrupt":
        this.#interrupt(command.meant);
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
        this.#asking.get(command.id)?.answered(command);
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

  page(cell: Cell, data: MimeBundle): void {
    this.#port.post({ type: "page", cell: cell.id, data: { "text/plain": "", ...clean(data) } });
  }

  input(cell: Cell, prompt: string, password: boolean): Promise<string> {
    const id = ++this.#requests;
    return new Promise((resolve, reject) => {
      cell.signal().addEventListener("abort", () => reject(cell.signal().reason), { once: true });
      const answered = ({ value, refused }: Extract<Command, { type: "input" }>): void => {
        if (value !== undefined) resolve(value);
        else if (refused === "end of input") reject(new EndOfInputError());
        else reject(new Error("input(): the cell has ended, so nobody can be asked any more."));
      };
      this.#asking.set(id, { cell, answered });
      this.#port.post({ type: "input", id, cell: cell.id, prompt, password });
    });
  }

  /** Work that may go on after its cell: an interrupt of a later cell leaves it alone. */
  beside(work: Promise<unknown>, cell: Cell | undefined = this.origin): void {
    if (cell === undefined) return;
    const key = {};
    this.#beside.set(key, cell);
    const ended = (): void => {
      this.#beside.delete(key);
      this.#tellBeside();
    };
    work.then(ended, ended);
    this.#tellBeside();
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
    const cell = (origin === undefined ? undefined : this.#cells.get(origin)?.deref()) ?? this.current;
    if (cell !== undefined) this.stream(this.here(cell), "stderr", `${how}: ${traceback.join("\n")}\n`);
    if (endsProcess(error)) process.exit(DEVICE_LOST);
  }

  #start(cell: Cell, work: (cell: Cell) => Promise<Outcome>): void {
    // What an interrupt has stopped since the last cell is cleared away before this one.
    // So is native work that a failed cell has left behind: its error has been told.
    if (this.#running.size === 0 && (Atomics.exchange(this.#flag, 0, 0) !== 0 || this.#failed)) this.#reset();
    this.#failed = false;
    this.#running.add(cell);
    this.#tellBeside();
    work(cell).then(
      (outcome) => this.#finish(cell, outcome),
      (error: unknown) => {
        const outcome = this.#failure(cell, error);
        const ends = endsProcess(error);
        if (ends && outcome.status === "error") {
          outcome.error.traceback.push(DEVICE_LOST_NOTE);
          outcome.last = true;
        }
        this.#finish(cell, outcome);
        if (ends) process.exit(DEVICE_LOST);
      },
    );
  }

  async #execute(cell: Cell, command: Extract<Command, { type: "run" }>): Promise<Outcome> {
    // Late output of nobody's goes to the last cell that shows any.
    if (!cell.quiet) this.#last = cell;
    this.#cells.set(cell.id, new WeakRef(cell));
    this.#traces.add(cell.id, command.map, command.source);
    const run = this.#function(command);
    const begun = contexts.run(cell, () => run(this.#scope, this.#imports.import, this.#bindings(cell)));
    return this.#render(cell, await begun);
  }

  // Handlers that await have one turn of the event loop to fail or to show something before the message counts as handled: a handler
  // may wait for the next message, which comes after this one only.
  async #receive(cell: Cell, event: CommEvent): Promise<Outcome> {
    this.#handling = cell;
    const turn = new Promise<void>((resolve) => {
      native.setImmediate(() => {
        if (this.#handling === cell) this.#handling = undefined;
        resolve();
      });
    });
    const work = Promise.resolve(contexts.run(cell, () => this.#comms.receive(event)));
    await Promise.race([work, turn]);
    await turn;
    work.catch((error: unknown) => this.uncaught(error, "In the handler of a comm"));
    await this.#shown(cell);
    return { status: "ok" };
  }

  #sendComm(event: CommEvent, opener: Cell | undefined): void {
    const cell = opener === undefined || opener.finished ? (this.#handling ?? this.running ?? opener) : opener;
    const bytes = event.buffers.reduce((sum, { byteLength }) => sum + byteLength, 0);
    this.#port.post({ type: "comm", ...(cell === undefined ? {} : { cell: cell.id }), event }, bytes);
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
      prompt: cell.prompt,
      confirm: cell.confirm,
      comms: this.#comms.of(cell),
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
    await this.#shown(cell);
    return data === undefined ? { status: "ok" } : { status: "ok", result: { data, metadata: {} } };
  }

  async #shown(cell: Cell): Promise<void> {
    while (cell.pending.size > 0) await Promise.all(cell.pending);
  }

  #failure(cell: Cell, error: unknown): Outcome {
    const report = this.#traces.report(error);
    // The words are set before the news of the interrupt reaches this thread.
    const interrupted = cell.interrupted || Atomics.load(this.#flag, 0) + Atomics.load(this.#flow, INTERRUPTING) !== 0;
    if (!interrupted) return { status: "error", error: report };
    const expected = report.ename === "InterruptedError" || report.ename === "AbortError";
    return interruptedOutcome(expected ? [] : report.traceback, this.#isBeside(cell));
  }

  // Whether work of other cells goes on that this one's interrupt has left alone.
  #isBeside(cell: Cell): boolean {
    if (Atomics.load(this.#flag, 0) !== 0) return false;
    return [...this.#beside.values()].some((one) => one !== cell);
  }

  // The control thread asks this word before it raises the flag that stops all native work.
  #tellBeside(): void {
    const others = this.#running.size > 0 && [...this.#beside.values()].some((cell) => !this.#running.has(cell));
    Atomics.store(this.#flow, BESIDE, others ? 1 : 0);
  }

  #finish(cell: Cell, outcome: Outcome): void {
    if (cell.finished) return;
    cell.finished = true;
    if (contexts.now === cell) contexts.clear();
    this.#failed ||= outcome.status === "error";
    this.#running.delete(cell);
    if (this.#handling === cell) this.#handling = undefined;
    this.#tellBeside();
    try {
      this.#port.post({ type: "done", cell: cell.id, outcome });
    } catch (error) {
      // A bundle that cannot be cloned.
      this.#port.post({ type: "done", cell: cell.id, outcome: { status: "error", error: this.#traces.report(error) } });
    }
  }

  // Only reached with the event loop alive: either the cell awaits, or its loop has been stopped. A stopped cell's
  // promise never settles and its `finally` blocks never run, so it is ended here. With no cell running the interrupt is for what earlier
  // cells have left behind.
  #interrupt(meant: readonly string[]): void {
    this.#port.acknowledge();
    contexts.clear();
    const reason = new InterruptedError("The cell was interrupted.");
    const running = [...this.#running];
    // The cell that was meant may have ended meanwhile, by its program's end for instance: then nothing else is.
    const stopped = running.length > 0 ? running : meant.length > 0 ? [] : this.#listeners;
    for (const cell of stopped) {
      this.#listeners.delete(cell);
      cell.stop(reason);
    }
    Atomics.store(this.#flow, INTERRUPTING, 0);
    for (const [id, { cell }] of this.#asking) if (cell.interrupted) this.#asking.delete(id);
    if (running.length === 0) return;
    native.setTimeout(
      () => {
        const left = running.filter((cell) => !cell.finished);
        for (const cell of left) this.#finish(cell, interruptedOutcome([], this.#isBeside(cell)));
        if (left.length > 0) this.#reset();
        // A cell that another shell has started meanwhile is not meant.
        if (this.#running.size > 0 && Atomics.exchange(this.#flag, 0, 0) !== 0) this.#reset();
      },
      running.some((cell) => cell.listening) ? LISTENING_SETTLE_MS : SETTLE_MS,
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

/** Whether an error, or what caused it, says that a device stays unusable until the process starts again: libraries set `lost` on it. */
function endsProcess(error: unknown): boolean {
  let cause = error;
  for (let depth = 0; cause instanceof Error && depth < 8; depth++) {
    if ((cause as { lost?: unknown }).lost === true) return true;
    cause = cause.cause;
  }
  return false;
}
