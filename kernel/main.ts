// The kernel process: `node main.js CONNECTION_FILE`. It speaks to front ends, owns the compiler's thread and the
// executor's process, and runs no user code, so that it always answers.
import { randomUUID } from "node:crypto";
import type { Report } from "./execute/channel.js";
import { compileFailure } from "./execute/diagnostics.js";
import { Executor } from "./execute/executor.js";
import { OutputPublisher } from "./execute/output.js";
import { ExecuteQueue } from "./execute/queue.js";
import { readConnectionFile } from "./protocol/connection.js";
import { Dispatcher } from "./protocol/dispatch.js";
import { History } from "./protocol/history.js";
import type { Message } from "./protocol/message.js";
import { KernelSockets } from "./protocol/sockets.js";

type CompileReport = Extract<Report, { type: "compile" }>;
type CompileService = import("./compile/service.js").CompileService;

const log = (text: string): void => console.error(`[tunebook] ${text}`);

async function main(file: string): Promise<void> {
  const cwd = process.cwd();
  const sockets = new KernelSockets(readConnectionFile(file), randomUUID(), log);
  const executor = new Executor(cwd);
  const output = new OutputPublisher((type, content, parent) => sockets.publish(type, content, parent));
  const history = new History();

  // TypeScript takes a while to load. It starts in its own thread as soon as the first client has been greeted.
  let service: Promise<CompileService> | undefined;
  const compiler = (): Promise<CompileService> =>
    (service ??= import("./compile/service.js").then(({ CompileService }) => new CompileService()));

  const queue = new ExecuteQueue({ sockets, executor, output, history, compiler, cwd });
  const dispatcher = new Dispatcher({
    sockets,
    queue,
    history,
    editor: compiler,
    shutdown: () => void stop(),
    answered: (value) => questions.answer(value),
    log,
  });
  const questions = new Questions(sockets, queue, executor);

  executor.on("report", (report) => {
    if (report.type === "stream") output.stream(report.name, report.text, report.cell);
    else if (report.type === "display" || report.type === "clear") output.show(report);
    else if (report.type === "input") questions.ask(report);
    else if (report.type === "transpile") void transpile(report.id, report.file, report.text);
    else if (report.type === "compile") void compile(report);
    else if (report.type === "packages") void compiler().then((service) => service.packagesChanged());
  });
  executor.on("raw", (name, text) => output.stream(name, text));
  executor.on("died", (reason) => log(reason));

  async function transpile(id: number, path: string, text: string): Promise<void> {
    try {
      const { js, map } = await (await compiler()).transpile(path, text);
      executor.send({ type: "transpiled", id, js, map });
    } catch (error) {
      executor.send({ type: "transpiled", id, error: (error as Error).message });
    }
  }

  async function compile({ id, cell, code, folder }: CompileReport): Promise<void> {
    try {
      const service = await compiler();
      const { js, map } = await service.compile({ code, cell, typecheck: "error", cwd: folder });
      service.commit(cell);
      executor.send({ type: "compiled", id, js, map });
    } catch (error) {
      executor.send({ type: "compiled", id, error: compileFailure(error) });
    }
  }

  let stopping = false;
  async function stop(): Promise<void> {
    if (stopping) return;
    stopping = true;
    await executor.stop();
    await sockets.close();
    process.exit(0);
  }

  let started = false;
  function start(): void {
    if (started) return;
    started = true;
    setImmediate(() => {
      sockets.startHeartbeat();
      executor.start();
      void compiler();
    });
  }

  await sockets.bind();
  sockets.publish("status", { execution_state: "starting" });
  sockets.listen((channel, message) => {
    dispatcher.handle(channel, message);
    start();
  });
  setTimeout(start, 100);
  process.on("SIGINT", () => queue.interrupt());
  process.on("SIGTERM", () => void stop());
  process.on("uncaughtException", (error) => log(error.stack ?? String(error)));
  process.on("unhandledRejection", (error) => log((error as Error)?.stack ?? String(error)));
  followParent(() => void stop());
}

/** Questions to the front end's user: they go to the client whose cell asks. */
class Questions {
  readonly #sockets: KernelSockets;
  readonly #queue: ExecuteQueue;
  readonly #executor: Executor;
  #open: number | undefined;

  constructor(sockets: KernelSockets, queue: ExecuteQueue, executor: Executor) {
    this.#sockets = sockets;
    this.#queue = queue;
    this.#executor = executor;
  }

  ask(question: { id: number; prompt: string; password: boolean }): void {
    const client: Message | undefined = this.#queue.active;
    if (client === undefined || !this.#queue.allowStdin) return;
    // An answer that comes for an older question finds none open.
    this.#open = question.id;
    const { prompt, password } = question;
    this.#sockets.send("stdin", client, "input_request", { prompt, password });
  }

  answer(value: string): void {
    if (this.#open === undefined) return;
    this.#executor.send({ type: "input", id: this.#open, value });
    this.#open = undefined;
  }
}

// Jupyter names the process that started the kernel; when it has gone without a word, the kernel goes too.
function followParent(gone: () => void): void {
  if (!process.env.JPY_PARENT_PID) return;
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent) gone();
  }, 1_000).unref();
}

const file = process.argv[2];
if (file === undefined) {
  console.error(
    "usage: node main.js CONNECTION_FILE (Jupyter starts kernels; `tunebook install` makes this one known)",
  );
  process.exit(2);
}
main(file).catch((error: Error) => {
  log(error.message);
  process.exit(1);
});
