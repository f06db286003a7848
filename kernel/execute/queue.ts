import type { CompiledCell, CompileRequest, Diagnostic } from "../compile/types.js";
import type { Json, Message } from "../protocol/message.js";
import type { KernelSockets } from "../protocol/sockets.js";
import type { ErrorReport, MimeBundle } from "./channel.js";
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

interface Parts {
  sockets: KernelSockets;
  executor: Executor;
  output: OutputPublisher;
  history: HistoryKeeper;
  compiler(): Promise<Compiler>;
  cwd: string;
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

/** Execute requests: one after the other, each compiled, run and answered; the rest aborted after an error. */
export class ExecuteQueue {
  readonly #parts: Parts;
  #queue: Message[] = [];
  #active: Message | undefined;
  #allowStdin = false;
  #count = 0;
  #unstored = 0;
  #notice = "";
  #interrupted: ((ending: Ending) => void) | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
    parts.executor.on("died", (reason, running) => {
      // A cell that runs says so itself.
      if (!running) this.#notice = `${lost(reason)}\n`;
      void parts.compiler().then((compiler) => compiler.reset());
    });
  }

  /** The request that runs now. */
  get active(): Message | undefined {
    return this.#active;
  }

  /** Whether the running request allows questions to the user. */
  get allowStdin(): boolean {
    return this.#allowStdin;
  }

  submit(message: Message): void {
    this.#queue.push(message);
    if (this.#active === undefined) void this.#work();
  }

  /** Stops what runs now: a cell that is still being compiled, or the executor's. */
  interrupt(): void {
    const error = { ename: "InterruptedError", evalue: "The cell was interrupted before it ran." };
    this.#interrupted?.({ ok: false, error: { ...error, traceback: [`${error.ename}: ${error.evalue}`] } });
    this.#parts.executor.interrupt();
  }

  async #work(): Promise<void> {
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      this.#active = next;
      const { sockets } = this.#parts;
      sockets.publish("status", { execution_state: "busy" }, next.rawHeader);
      let abort = false;
      try {
        abort = await this.#execute(next);
      } catch (error) {
        const report = failure(error as Error);
        sockets.send("shell", next, "execute_reply", { status: "error", execution_count: this.#count, ...report });
      }
      this.#active = undefined;
      sockets.publish("status", { execution_state: "idle" }, next.rawHeader);
      if (abort) await this.#abort();
    }
  }

  // Only execute requests are here, so nothing else is aborted.
  async #abort(): Promise<void> {
    // Requests that have arrived but were not read yet belong to the same run of cells.
    await new Promise((resolve) => setImmediate(resolve));
    const { sockets } = this.#parts;
    for (const message of this.#queue.splice(0)) {
      sockets.publish("status", { execution_state: "busy" }, message.rawHeader);
      sockets.send("shell", message, "execute_reply", { status: "aborted" });
      sockets.publish("status", { execution_state: "idle" }, message.rawHeader);
    }
  }

  /** @returns whether the queue is to be aborted. */
  async #execute(message: Message): Promise<boolean> {
    const { sockets, output, history } = this.#parts;
    const request = readRequest(message.content);
    if (request.store) this.#count++;
    const count = this.#count;
    const cell = request.store ? `cell-${count}` : `cell-${count}.${++this.#unstored}`;
    this.#allowStdin = request.allowStdin;
    if (request.silent) output.mute(cell);
    else {
      output.begin(cell, message.rawHeader);
      sockets.publish("execute_input", { code: request.code, execution_count: count }, message.rawHeader);
      if (this.#notice !== "") output.stream("stderr", this.#notice, cell);
    }
    this.#notice = "";
    const blank = request.code.trim() === "";
    const ending: Ending = blank ? { ok: true } : await this.#run(cell, request.code, request);
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
    if (request.store) {
      const shown = ending.ok ? ending.result?.data["text/plain"] : undefined;
      history.add(count, request.code, typeof shown === "string" ? shown : undefined);
    }
    await sockets.published();
    sockets.send("shell", message, "execute_reply", reply);
    return !ending.ok && request.stopOnError;
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
      const compiler = await this.#parts.compiler();
      let compiled: CompiledCell;
      try {
        compiled = await compiler.compile({ code, cell, typecheck: expression ? "off" : "error", cwd });
      } catch (error) {
        return { ok: false, error: compileFailure(error) };
      }
      if (cancelled) return { ok: true };
      // From here on the executor's own interrupt ends the cell.
      this.#interrupted = undefined;
      const quiet = request.silent || expression;
      if (!quiet) this.#warn(cell, compiled.diagnostics);
      if (!expression) compiler.commit(cell);
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

function lost(reason: string): string {
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
