import { renameSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { formatNotebook, type Notebook, type NotebookCell, readNotebook, sourceOf, tagsOf } from "./notebook.js";
import { OutputRecorder } from "./outputs.js";
import { injectParameters, type Parameter } from "./parameters.js";
import { RunProgress } from "./progress.js";
import type { Json } from "./protocol/message.js";
import { localKernel, type RunKernel } from "./run-kernel.js";
import type { ServerOptions } from "./run-server.js";

export interface RunOptions {
  /** Where the executed notebook goes; default: beside it, ending in `.out.ipynb`. */
  output?: string;
  parameters?: readonly Parameter[];
  /** Seconds that one cell may take; unlimited by default. */
  timeout?: number;
  /** Go on after a failed cell. */
  allowErrors?: boolean;
  /** Aborted: the running cell is interrupted and the run ends as failed. */
  signal?: AbortSignal;
  /** Where progress is written; none by default. */
  progress?: NodeJS.WriteStream;
  /** Runs on a Jupyter server instead of here; the file is read and written here all the same. */
  server?: ServerOptions;
}

export interface RunReport {
  /** Path of the executed notebook. */
  output: string;
  /** Code cells that were executed. */
  executed: number;
  seconds: number;
  /** The first cell that failed and was not allowed to. */
  failure?: { index: number; source: string; ename: string; evalue: string; traceback: string[] };
}

/** Executes a notebook through a kernel of its own, as a front end would, and writes it with its outputs. */
export async function runNotebook(path: string, options: RunOptions = {}): Promise<RunReport> {
  const started = Date.now();
  const notebook = readNotebook(path);
  const progress = new RunProgress(options.progress);
  for (const name of injectParameters(notebook, options.parameters ?? [])) {
    progress.note(`parameter ${name} is not declared in a cell tagged "parameters"`);
  }
  const output = options.output ?? defaultOutput(path);
  const cells = notebook.cells.filter((cell) => cell.cell_type === "code");
  for (const cell of cells) Object.assign(cell, { outputs: [], execution_count: null });
  const kernel = await start(path, notebook, options.server);
  const report: RunReport = { output, executed: 0, seconds: 0 };
  const interrupt = (): void => void kernel.interrupt();
  options.signal?.addEventListener("abort", interrupt, { once: true });
  try {
    describeKernel(notebook.metadata, await kernel.info());
    // Until this is back the compiler loads, which no cell's time limit should pay for.
    await kernel.execute(isJavaScript(notebook) ? "%typecheck off" : "0", { silent: true });
    const recorder = new OutputRecorder();
    // Output that comes after its cell has ended is recorded under that cell too.
    const owners = new Map<string, NotebookCell>();
    kernel.listen((message) => {
      const id = String(message.parent.msg_id ?? "");
      const cell = owners.get(id);
      if (cell === undefined) return;
      recorder.record(cell, message);
      progress.show(message);
    });
    for (const [index, cell] of cells.entries()) {
      const source = sourceOf(cell);
      if (source.trim() === "") continue;
      progress.start(index + 1, cells.length, source);
      // Interrupted before it runs: while the kernel started, or between two cells.
      const reply = options.signal?.aborted
        ? INTERRUPTED
        : await runCell(kernel, cell, source, owners, options.timeout);
      if (reply !== INTERRUPTED) report.executed++;
      const failed = reply.status === "error";
      progress.end(failed);
      if (!options.signal?.aborted && (!failed || options.allowErrors || tagsOf(cell).includes("raises-exception")))
        continue;
      report.failure = { index: index + 1, source, ...errorOf(failed ? reply : INTERRUPTED) };
      break;
    }
  } finally {
    options.signal?.removeEventListener("abort", interrupt);
    await kernel.stop();
    progress.close();
    write(output, formatNotebook(notebook));
  }
  report.seconds = (Date.now() - started) / 1_000;
  return report;
}

const INTERRUPTED: Json = {
  status: "error",
  ename: "InterruptedError",
  evalue: "The run was interrupted.",
  traceback: [],
};

async function runCell(
  kernel: RunKernel,
  cell: NotebookCell,
  source: string,
  owners: Map<string, NotebookCell>,
  timeout: number | undefined,
): Promise<Json> {
  const pending = kernel.execute(source, { onSent: (id: string) => owners.set(id, cell) });
  let timedOut = false;
  const timer =
    timeout === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          void kernel.interrupt();
        }, timeout * 1_000);
  let reply: Json;
  try {
    reply = await pending;
  } catch (error) {
    // The kernel itself is gone.
    const { message } = error as Error;
    const content = { ename: "KernelDied", evalue: message, traceback: [`KernelDied: ${message}`] };
    cell.outputs?.push({ output_type: "error", ...content });
    return { status: "error", ...content };
  } finally {
    clearTimeout(timer);
  }
  if (!timedOut || reply.status !== "error") return reply;
  return { ...reply, ename: "CellTimeout", evalue: `The cell took longer than ${timeout} s and was interrupted.` };
}

function errorOf(reply: Json): { ename: string; evalue: string; traceback: string[] } {
  const traceback = Array.isArray(reply.traceback) ? reply.traceback.map(String) : [];
  return { ename: String(reply.ename), evalue: String(reply.evalue), traceback };
}

function describeKernel(metadata: Json, info: Json): void {
  metadata.kernelspec ??= { display_name: "TypeScript (tunebook)", language: "typescript", name: "tunebook" };
  metadata.language_info = info.language_info;
}

async function start(path: string, notebook: Notebook, server: ServerOptions | undefined): Promise<RunKernel> {
  if (server === undefined) return localKernel(dirname(resolve(path)));
  const { serverKernel } = await import("./run-server.js");
  const name = (notebook.metadata.kernelspec as { name?: unknown } | undefined)?.name;
  return serverKernel(server, typeof name === "string" ? name : undefined);
}

/** Notebooks in JavaScript (tslab's second kernel) were never type-checked. */
function isJavaScript({ metadata }: Notebook): boolean {
  const { kernelspec, language_info } = metadata as Record<string, { name?: unknown; language?: unknown } | undefined>;
  return (kernelspec?.language ?? language_info?.name) === "javascript";
}

function defaultOutput(path: string): string {
  return join(dirname(path), `${basename(path).replace(/\.ipynb$/, "")}.out.ipynb`);
}

// Whoever reads the file meanwhile sees the old one or the new one, never a part.
function write(path: string, text: string): void {
  const partial = `${path}.partial-${process.pid}`;
  writeFileSync(partial, text);
  renameSync(partial, path);
}
