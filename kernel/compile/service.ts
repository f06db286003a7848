import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";
import type { Answer, Call, Notice } from "./messages.js";
import type {
  CompiledCell,
  CompileRequest,
  Completeness,
  Completion,
  Diagnostic,
  Inspection,
  TranspiledFile,
} from "./types.js";

/** A cell that cannot run: what is wrong, and where. */
export class CompileError extends Error {
  readonly diagnostics: readonly Diagnostic[];

  constructor(message: string, diagnostics: readonly Diagnostic[]) {
    super(message);
    this.name = "CompileError";
    this.diagnostics = diagnostics;
  }
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/**
 * The kernel process's side of the compiler: TypeScript itself lives in a worker thread, which starts when this is
 * made. A worker that dies is replaced by one that knows the same cells.
 */
export class CompileService {
  #worker: Worker | undefined;
  readonly #folder: string;
  readonly #waiting = new Map<number, Waiting>();
  readonly #committed: { code: string; cell: string; cwd: string }[] = [];
  readonly #compiled = new Map<string, CompileRequest>();
  #calls = 0;
  #disposed = false;

  /** @param folder - the notebook's, for completion before the first cell */
  constructor(folder: string = process.cwd()) {
    this.#folder = folder;
    this.#start();
  }

  /**
   * Checks and rewrites a cell.
   * @throws CompileError with diagnostics, when the cell cannot run
   */
  async compile(request: CompileRequest): Promise<CompiledCell> {
    const compiled = (await this.#call({ type: "compile", request })) as CompiledCell;
    this.#compiled.set(request.cell, request);
    for (const cell of this.#compiled.keys()) if (this.#compiled.size > 4) this.#compiled.delete(cell);
    return compiled;
  }

  /** Makes the cell's declarations known to later cells: called once the compiled cell starts to run. */
  commit(cell: string): void {
    const request = this.#compiled.get(cell);
    if (request) this.#committed.push({ code: request.code, cell, cwd: request.cwd });
    this.#compiled.delete(cell);
    this.#tell({ type: "commit", cell });
  }

  /** @param cursor - UTF-16 offset in `code` */
  complete(code: string, cursor: number): Promise<Completion> {
    return this.#call({ type: "complete", code, cursor }) as Promise<Completion>;
  }

  /** @param detail - 1 asks for everything that is known */
  inspect(code: string, cursor: number, detail: 0 | 1): Promise<Inspection> {
    return this.#call({ type: "inspect", code, cursor, detail }) as Promise<Inspection>;
  }

  isComplete(code: string): Promise<Completeness> {
    return this.#call({ type: "isComplete", code }) as Promise<Completeness>;
  }

  /** A local TypeScript file as a call of `System.register`. */
  transpile(path: string, text: string): Promise<TranspiledFile> {
    return this.#call({ type: "transpile", path, text }) as Promise<TranspiledFile>;
  }

  /** Forgets every cell. */
  reset(): void {
    this.#committed.length = 0;
    this.#compiled.clear();
    this.#tell({ type: "reset" });
  }

  /** Packages of the notebook's may have been added or replaced. */
  packagesChanged(): void {
    this.#tell({ type: "packages" });
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    await this.#worker?.terminate();
  }

  #start(): Worker {
    // Every cell leaves a checker behind, some megabytes. Most of them die in a young generation that holds several (three times 16 MB); what
    // has grown old is collected before the heap has grown by a quarter.
    setFlagsFromString("--heap-growing-percent=25");
    // TypeScript's largest functions run once a program: optimising them takes 100 MB and gains nothing.
    setFlagsFromString("--max-optimized-bytecode-size=10000");
    const worker = new Worker(new URL("./worker.js", import.meta.url), {
      workerData: { folder: this.#folder },
      resourceLimits: { maxYoungGenerationSizeMb: 48, maxOldGenerationSizeMb: 1_536 },
      execArgv: [],
    });
    worker.unref();
    worker.on("message", (answer: Answer) => this.#settle(answer));
    worker.on("error", (error) => this.#lost(worker, error));
    worker.on("exit", () => this.#lost(worker, new Error("it has ended")));
    this.#worker = worker;
    if (this.#committed.length > 0) worker.postMessage({ type: "restore", cells: this.#committed } satisfies Notice);
    return worker;
  }

  #settle(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (this.#waiting.size === 0) this.#worker?.unref();
    if (!("error" in answer)) {
      waiting?.resolve(answer.value);
      return;
    }
    const { name, message, stack } = answer.error;
    if (answer.diagnostics) waiting?.reject(new CompileError(message, answer.diagnostics));
    else waiting?.reject(Object.assign(new Error(message), { name, ...(stack ? { stack } : {}) }));
  }

  #lost(worker: Worker, error: Error): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    for (const { reject } of this.#waiting.values()) {
      reject(
        new Error(
          `The compiler's thread was lost (${error.message}). It starts anew with the next cell; run this one again.`,
        ),
      );
    }
    this.#waiting.clear();
  }

  #call(call: Call): Promise<unknown> {
    if (this.#disposed) return Promise.reject(new Error("The compile service is disposed."));
    const id = ++this.#calls;
    const worker = this.#worker ?? this.#start();
    worker.ref();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ id, ...call });
    });
  }

  #tell(notice: Notice): void {
    this.#worker?.postMessage(notice);
  }
}
