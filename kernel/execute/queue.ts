import type { CompiledCell, CompileRequest, Diagnostic } from "../compile/types.js";
import type { Json, Message } from "../protocol/message.js";
import type { KernelSockets } from "../protocol/sockets.js";
import type { ErrorReport, MimeBundle } from "./channel.js";
import { Comms } from "./comms.js";
import { compileFailure, warnings } from "./diagnostics.js";
import type { Executor, RunResult } from "./executor.js";
import type { OutputPublisher } from "./output.js";

/** The part of the compile service that running cells needs. */
export interface Compiler {
  compile(request: CompileRequest): Promise<CompiledCell>;
  commit(cell: string): void;
  reset(): void;
}

/** Where executed code is remembered. */
export interface HistoryKeeper {
  add(execution: number, code: string, output: string | undefined): void;
}

/** What the queues of all shells share. */
export interface Parts {
  sockets: KernelSockets;
  executor: Executor;
  output: OutputPublisher;
  history: HistoryKeeper;
  comms: Comms;
  compiler(): Promise<Compiler>;
  cwd: string;
  log(text: string): void;
  /** A cell has ended: nobody can be asked for it any more. */
  ended(cell: string): void;
  /** Numbers and notices of the session, whichever shell a cell runs in. */
  session: Session;
}

/** What the shells of a kernel count together. */
export class Session {
  /** The execution count. */
  count = 0;
  /** Cells and comm messages without a number of their own. */
  others = 0;
  /** What the next cell has to tell: how the executor ended between two cells. */
  notice = "";
  #compiling: Promise<void> | undefined;

  /** One cell at a time is compiled and committed, so that the compiler sees them in one order; it begins at once if no other one is. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#compiling === undefined ? work() : this.#compiling.then(work);
    const ended = (): void => {
      if (this.#compiling === settled) this.#compiling = undefined;
    };
    const settled: Promise<void> = done.then(ended, ended);
    this.#compiling = settled;
    return done;
  }
}

interface Request {
  code: string;
  silent: boolean;
  store: boolean;
  allowStdin: boolean;
  stopOnError: boolean;
  expressions: [string, string][];
}

type Ending = { ok: true; result?: { data: MimeBundle; metadata: MimeBundle } } | { ok: false; error: ErrorReport };

/**
 * What one shell works off in order: execute requests, each compiled, run and answered, and the messages of comms. After an error the
 * execute requests that wait are aborted.
 */
export class ExecuteQueue {
  readonly #parts: Parts;
  #queue: Message[] = [];
  #working = false;
  #active: Message | undefined;
  #cell: string | undefined;
  #allowStdin = false;
  #pages: MimeBundle[] = [];
  #interrupted: ((ending: Ending) => void) | undefined;
  #compiler: Compiler | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** The request that runs now. */
  get active(): Message | undefined {
    return this.#active;
  }

  /** The running request, if it runs this cell and allows questions to the user. */
  asking(cell: string): Message | undefined {
    return this.#cell === cell && this.#allowStdin ? this.#active : undefined;
  }

  /** Keeps a page for the reply of the cell, if that is the one that runs here. */
  page(cell: string, data: MimeBundle): void {
    if (this.#cell === cell) this.#pages.push(data);
  }

  submit(message: Message): void {
    this.#queue.push(message);
    if (!this.#working) void this.#work();
  }

  /** Stops a cell that is still being compiled; what runs already is the executor's to stop. */
  interrupt(): void {
    const error = { ename: "InterruptedError", evalue: "The cell was interrupted before it ran." };
    this.#interrupted?.({ ok: false, error: { ...error, traceback: [`${error.ename}: ${error.evalue}`] } });
  }

  async #work(): Promise<void> {
    this.#working = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      this.#active = next;
      const { sockets } = this.#parts;
      let told = false;
      const busy = (): void => {
        if (!told) sockets.publish("status", { execution_state: "busy" }, next.rawHeader);
        told = true;
      };
      let doomed: Message[] = [];
      try {
        if (Comms.has(next.header.msg_type)) {
          busy();
          await this.#event(next);
        } else doomed = await this.#execute(next, busy);
      } catch (error) {
        busy();
        const report = failure(error as Error);
        const { count } = this.#parts.session;
        sockets.send("shell", next, "execute_reply", { status: "error", execution_count: count, ...report });
      }
      this.#active = undefined;
      sockets.publish("status", { execution_state: "idle" }, next.rawHeader);
      for (const message of doomed) this.#abort(message);
    }
    this.#working = false;
  }

  // The execute requests that wait when a cell has failed, taken before its client hears of it: what comes later was sent knowingly.
  async #doomed(): Promise<Message[]> {
    // Requests that have arrived but were not read yet belong to the same run of cells.
    await new Promise((resolve) => setImmediate(resolve));
    const waiting = this.#queue;
    this.#queue = waiting.filter(({ header }) => Comms.has(header.msg_type));
    return waiting.filter(({ header }) => !Comms.has(header.msg_type));
  }

  #abort(message: Message): void {
    const { sockets } = this.#parts;
    sockets.publish("status", { execution_state: "busy" }, message.rawHeader);
    sockets.send("shell", message, "execute_reply", { status: "aborted" });
    sockets.publish("status", { execution_state: "idle" }, message.rawHeader);
  }

  // A comm's message occupies the executor as a cell does; what its handler shows has the message's own header as parent.
  async #event(message: Message): Promise<void> {
    const { comms, executor, output, session, log } = this.#parts;
    const event = comms.read(message);
    if (typeof event === "string") {
      log(`${message.header.msg_type}: ${event}`);
      return;
    }
    comms.note(event);
    const cell = `comm-${++session.others}`;
    const done = output.event(cell, message.rawHeader);
    const result = await executor.run({ type: "comm", cell, event });
    if (result.status === "error") output.stream("stderr", `${result.error.traceback.join("\n")}\n`, cell);
    else if (result.status === "died") output.stream("stderr", `${lost(result.reason)}\n`, cell);
    output.flush();
    done();
  }

  /**
   * @param busy - publishes the status, before all else
   * @returns the requests that are to be aborted.
   */
  async #execute(message: Message, busy: () => void): Promise<Message[]> {
    const { sockets, output, history, session } = this.#parts;
    const request = readRequest(message.content);
    if (request.store) session.count++;
    const { count } = session;
    const cell = request.store ? `cell-${count}` : `cell-${count}.${++session.others}`;
    this.#cell = cell;
    this.#allowStdin = request.allowStdin;
    this.#pages = [];
    const blank = request.code.trim() === "";
    // The compiler's thread works while this one tells the front ends.
    const begun = blank ? undefined : this.#run(cell, request.code, request);
    busy();
    if (request.silent) output.mute(cell);
    else {
      output.begin(cell, message.rawHeader);
      sockets.publish("execute_input", { code: request.code, execution_count: count }, message.rawHeader);
      if (session.notice !== "") output.stream("stderr", session.notice, cell);
    }
    session.notice = "";
    const ending: Ending = begun === undefined ? { ok: true } : await begun;
    this.#parts.ended(cell);
    output.flush();
    let reply: Json = { status: "ok", execution_count: count, user_expressions: {}, payload: [] };
    if (!ending.ok) {
      reply = { status: "error", execution_count: count, ...ending.error, payload: [] };
      if (!request.silent) sockets.publish("error", { ...ending.error }, message.rawHeader);
    } else {
      if (ending.result !== undefined && !request.silent) {
        const content = { execution_count: count, data: ending.result.data, metadata: ending.result.metadata };
        sockets.publish("execute_result", content, message.rawHeader);
      }
      reply = { ...reply, user_expressions: await this.#evaluate(cell, request) };
    }
    reply.payload = this.#pages.map((data) => ({ source: "page", data, start: 0 }));
    if (request.store) {
      const shown = ending.ok ? ending.result?.data["text/plain"] : undefined;
      history.add(count, request.code, typeof shown === "string" ? shown : undefined);
    }
    await sockets.published();
    const doomed = !ending.ok && request.stopOnError ? await this.#doomed() : [];
    sockets.send("shell", message, "execute_reply", reply);
    return doomed;
  }

  async #run(cell: string, code: string, request: Request, expression = false): Promise<Ending> {
    const { executor, output, cwd } = this.#parts;
    let cancelled = false;
    const interrupted = new Promise<Ending>((resolve) => {
      this.#interrupted = (ending) => {
        cancelled = true;
        resolve(ending);
      };
    });
    const work = async (): Promise<Ending> => {
      this.#compiler ??= await this.#parts.compiler();
      const compiler = this.#compiler;
      let compiled: CompiledCell;
      try {
        compiled = await this.#parts.session.alone(async () => {
          const made = await compiler.compile({ code, cell, typecheck: expression ? "off" : "error", cwd });
          if (!cancelled && !expression) compiler.commit(cell);
          return made;
        });
      } catch (error) {
        return { ok: false, error: compileFailure(error) };
      }
      if (cancelled) return { ok: true };
      // From here on the executor's own interrupt ends the cell.
      this.#interrupted = undefined;
      const quiet = request.silent || expression;
      if (!quiet) this.#warn(cell, compiled.diagnostics);
      const command = { type: "run", cell, js: compiled.js, map: compiled.map, source: code, quiet } as const;
      return this.#ending(await executor.run({ ...command, allowStdin: request.allowStdin }));
    };
    const ending = await Promise.race([work(), interrupted]);
    this.#interrupted = undefined;
    output.flush();
    return ending;
  }

  #warn(cell: string, diagnostics: readonly Diagnostic[]): void {
    const text = warnings(diagnostics);
    if (text !== "") this.#parts.output.stream("stderr", text, cell);
  }

  #ending(result: RunResult): Ending {
    if (result.status === "ok") return result.result === undefined ? { ok: true } : { ok: true, result: result.result };
    if (result.status === "error") return { ok: false, error: result.error };
    const evalue = lost(result.reason);
    return { ok: false, error: { ename: "ExecutorDied", evalue, traceback: [`ExecutorDied: ${evalue}`] } };
  }

  async #evaluate(cell: string, request: Request): Promise<Json> {
    const answers = new Map<string, Json>();
    let index = 0;
    for (const [name, code] of request.expressions) {
      const ending = await this.#run(`${cell}.u${++index}`, code, request, true);
      if (!ending.ok) answers.set(name, { status: "error", ...ending.error });
      else
        answers.set(name, { status: "ok", data: ending.result?.data ?? {}, metadata: ending.result?.metadata ?? {} });
    }
    return Object.fromEntries(answers);
  }
}

/** How the end of an executor is told. */
export function lost(reason: string): string {
  return `${reason} A new one has been started; the variables of earlier cells are lost.`;
}

function readRequest(content: Json): Request {
  const { code, user_expressions: expressions } = content;
  if (typeof code !== "string") throw new Error(`execute_request: "code" must be a string, got ${typeof code}.`);
  const silent = content.silent === true;
  const given = typeof expressions === "object" && expressions !== null ? Object.entries(expressions) : [];
  return {
    code,
    silent,
    store: !silent && content.store_history !== false && code.trim() !== "",
    allowStdin: content.allow_stdin !== false,
    stopOnError: content.stop_on_error !== false,
    expressions: given.filter((pair): pair is [string, string] => typeof pair[1] === "string"),
  };
}

function failure(error: Error): ErrorReport {
  return { ename: error.name, evalue: error.message, traceback: [`${error.name}: ${error.message}`] };
}
