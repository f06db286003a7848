// The kernel process: `node main.js CONNECTION_FILE`. It speaks to front ends, owns the compiler's thread and the
// executor's process, and runs no user code, so that it always answers.
import { randomUUID } from "node:crypto";
import type { Report } from "./execute/channel.js";
import { Comms } from "./execute/comms.js";
import { compileFailure } from "./execute/diagnostics.js";
import { Executor } from "./execute/executor.js";
import { OutputPublisher } from "./execute/output.js";
import { Questions } from "./execute/questions.js";
import { Session } from "./execute/queue.js";
import { Shells } from "./execute/shells.js";
import { readConnectionFile } from "./protocol/connection.js";
import { Dispatcher } from "./protocol/dispatch.js";
import { History, historyFile } from "./protocol/history.js";
import { KernelSockets } from "./protocol/sockets.js";

type CompileReport = Extract<Report, { type: "compile" }>;
type CompileService = import("./compile/service.js").CompileService;

const log = (text: string): void => console.error(`[tunebook] ${text}`);

async function main(file: string): Promise<void> {
  const cwd = process.cwd();
  const sockets = new KernelSockets(readConnectionFile(file), randomUUID(), log);
  const executor = new Executor(cwd);
  const output = new OutputPublisher((...message) => sockets.publish(...message));
  const history = new History(historyFile(), log);
  const comms = new Comms();

  // TypeScript takes a while to load. It starts in its own thread as soon as the first client has been greeted.
  let service: Promise<CompileService> | undefined;
  const compiler = (): Promise<CompileService> =>
    (service ??= import("./compile/service.js").then(({ CompileService }) => new CompileService()));

  const questions: Questions = new Questions(sockets, executor, (cell) => shells.asking(cell));
  const ended = (cell: string): void => questions.ended(cell);
  const session = new Session();
  const parts = { sockets, executor, output, history, comms, compiler, cwd, log, ended, session };
  const shells: Shells = new Shells(parts);
  const dispatcher = new Dispatcher({
    sockets,
    shells,
    comms,
    history,
    editor: compiler,
    shutdown: () => void stop(),
    answered: (message) => questions.answer(message),
    log,
  });

  executor.on("report", (report) => {
    if (report.type === "stream") output.stream(report.name, report.text, report.cell);
    else if (report.type === "display" || report.type === "clear") output.show(report);
    else if (report.type === "page") shells.page(report.cell, report.data);
    else if (report.type === "comm") {
      comms.note(report.event);
      output.comm(report);
    } else if (report.type === "input") questions.ask(report);
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
      const { js, map } = await session.alone(async () => {
        const made = await service.compile({ code, cell, typecheck: "error", cwd: folder });
        service.commit(cell);
        return made;
      });
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
    await Promise.all([sockets.close(), history.saved()]);
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
      void history.start();
    });
  }

  await sockets.bind();
  sockets.publish("status", { execution_state: "starting" });
  sockets.listen((channel, message) => {
    dispatcher.handle(channel, message);
    start();
  });
  setTimeout(start, 100);
  process.on("SIGINT", () => shells.interrupt());
  process.on("SIGTERM", () => void stop());
  process.on("uncaughtException", (error) => log(error.stack ?? String(error)));
  process.on("unhandledRejection", (error) => log((error as Error)?.stack ?? String(error)));
  followParent(() => void stop());
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
