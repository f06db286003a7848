import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { StringDecoder } from "node:string_decoder";
import { fileURLToPath } from "node:url";
import { CHANNEL_FD, type Command, FrameReader, frame, type Outcome, type Report } from "./channel.js";
import { withCommand } from "./command-path.js";
import { explain, type OomKills, oomEvidence } from "./crash.js";

/** What occupies the executor until it is reported as done: a cell, or a message of a comm. */
export type RunCommand = Extract<Command, { type: "run" | "comm" }>;

/** How a run ended: as the cell says, or with its process. */
export type RunResult = Outcome | { status: "died"; reason: string };

interface Events {
  report: [Report];
  /** Text that native code or a child process wrote to descriptor 1 or 2. */
  raw: ["stdout" | "stderr", string];
  /** The process has ended; `running` tells whether a cell ran. A new one is on its way. */
  died: [reason: string, running: boolean];
}

// --no-force-async-hooks-checks: a cell stopped inside a timer must not abort the process (Node 20).
const FLAGS = [
  "--no-force-async-hooks-checks",
  "--disable-warning=ExperimentalWarning",
  // Options for the process of the cells alone, such as a larger heap.
  ...(process.env.TUNEBOOK_EXECUTOR_OPTIONS ?? "").split(/\s+/).filter((option) => option !== ""),
];
const GRACE_MS = Number(process.env.TUNEBOOK_INTERRUPT_GRACE_MS ?? 10_000);
const MAX_FAILED_STARTS = 3;
const RESTART_MS = 2_000;
const TAIL = 8_192;

interface Running {
  resolve(result: RunResult): void;
  /** The executor has it. */
  sent: boolean;
  /** An interrupt is to end it within the grace period. */
  interrupted: boolean;
  /** How it ended, if its process ends with it. */
  last?: Outcome;
}

/**
 * The executor's process, seen from the kernel process: started, spoken to, interrupted, and started again when it
 * has ended for whatever reason.
 */
export class Executor extends EventEmitter<Events> {
  readonly #cwd: string;
  #child: ChildProcess | undefined;
  #channel: Socket | undefined;
  #ready: PromiseWithResolversLike<void> = resolvers();
  readonly #running = new Map<string, Running>();
  #stderr = "";
  #rawBytes = 0;
  #grace: NodeJS.Timeout | undefined;
  #unstoppable = false;
  #closed = false;
  #oomKills: OomKills = { group: 0, machine: 0 };
  #isReady = false;
  #failedStarts = 0;

  constructor(cwd: string) {
    super();
    this.#cwd = cwd;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts the process; `run` waits until it is ready. */
  start(): void {
    this.#ready = resolvers();
    this.#ready.promise.catch(() => {});
    this.#isReady = false;
    this.#stderr = "";
    this.#unstoppable = false;
    this.#oomKills = oomEvidence();
    // A process group of its own: a terminal's Ctrl-C does not reach it, and it ends with all that cells have started.
    const main = fileURLToPath(new URL("./child/main.js", import.meta.url));
    const child = spawn(process.execPath, [...FLAGS, main], {
      cwd: this.#cwd,
      env: withCommand(process.env),
      detached: true,
      stdio: ["ignore", "pipe", "pipe", "pipe"],
    });
    this.#child = child;
    const channel = child.stdio[CHANNEL_FD] as Socket;
    this.#channel = channel;
    const reader = new FrameReader<Report>();
    channel.on("data", (piece: Buffer) => {
      for (const report of reader.push(piece)) this.#receive(report);
    });
    channel.on("error", () => {});
    this.#capture(child, "stdout");
    this.#capture(child, "stderr");
    child.on("error", (error) => this.#end(child, null, null, `could not be started: ${error.message}`));
    child.on("exit", (code, signal) => void this.#drained().then(() => this.#end(child, code, signal)));
  }

  /** Runs a compiled cell; resolves when it has ended and all of its output has been emitted. */
  async run(command: RunCommand): Promise<RunResult> {
    let running!: Running;
    const result = new Promise<RunResult>((resolve) => {
      running = { resolve, sent: false, interrupted: false };
      this.#running.set(command.cell, running);
    });
    try {
      await this.#ready.promise;
      // An interrupt may have ended it meanwhile.
      if (!running.interrupted) {
        running.sent = true;
        this.send(command);
        // Reading takes a while in which the cell begins; it has no time yet to use up memory.
        this.#oomKills = oomEvidence();
      }
    } catch (error) {
      running.resolve({ status: "died", reason: (error as Error).message });
    }
    const settled = await result;
    this.#running.delete(command.cell);
    if (![...this.#running.values()].some(({ interrupted }) => interrupted)) clearTimeout(this.#grace);
    return settled;
  }

  send(command: Command): void {
    this.#channel?.write(frame([command]));
  }

  /** Stops all that runs; a process that does not stop within the grace period is ended. */
  interrupt(): void {
    if (this.#closed || this.#child?.pid === undefined) return;
    const all = [...this.#running.values()];
    for (const running of all) {
      running.interrupted = true;
      if (running.sent) continue;
      // The process is still starting: the cell never reaches it.
      const error = { ename: "InterruptedError", evalue: "The cell was interrupted before it ran." };
      const traceback = [`${error.ename}: ${error.evalue}`];
      running.resolve({ status: "error", interrupted: true, error: { ...error, traceback } });
    }
    const sent = all.some((running) => running.sent);
    if (all.length > 0 && !sent) return;
    this.send({ type: "interrupt", meant: [...this.#running.keys()] });
    if (!sent) return;
    clearTimeout(this.#grace);
    this.#grace = setTimeout(() => {
      this.#unstoppable = true;
      this.#signalGroup("SIGKILL");
    }, GRACE_MS);
  }

  /** Ends the process and all that it has started; no new one is made. */
  async stop(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#grace);
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    this.#signalGroup("SIGKILL");
    await gone;
  }

  #capture(child: ChildProcess, name: "stdout" | "stderr"): void {
    const decoder = new StringDecoder("utf8");
    child[name]?.on("data", (piece: Buffer) => {
      this.#rawBytes += piece.length;
      const text = decoder.write(piece);
      if (name === "stderr") this.#stderr = (this.#stderr + text).slice(-TAIL);
      if (text !== "") this.emit("raw", name, text);
    });
  }

  #receive(report: Report): void {
    if (report.type === "ready") {
      this.#isReady = true;
      this.#ready.resolve();
    } else if (report.type === "done") {
      void this.#drained().then(() => {
        const running = this.#running.get(report.cell);
        // The next cell must not reach a process that is about to end.
        if (running && report.outcome.status === "error" && report.outcome.last) running.last = report.outcome;
        else running?.resolve(report.outcome);
      });
    } else this.emit("report", report);
  }

  // What was written to descriptors 1 and 2 before the report left the process lies in their pipes by now; when a
  // whole turn of the event loop has brought nothing more, they are empty.
  async #drained(): Promise<void> {
    for (let quiet = 0; quiet < 2; ) {
      const before = this.#rawBytes;
      await new Promise((resolve) => setImmediate(resolve));
      quiet = this.#rawBytes === before ? quiet + 1 : 0;
    }
  }

  #end(child: ChildProcess, code: number | null, signal: NodeJS.Signals | null, failure?: string): void {
    if (child !== this.#child || this.#closed) return;
    // Children of the dead process must not go on with nobody to stop them.
    this.#signalGroup("SIGKILL");
    const ending = { code, signal, stderr: this.#stderr, unstoppable: this.#unstoppable };
    const reason =
      failure === undefined ? explain({ ...ending, oomKills: this.#newKills() }) : `The executor ${failure}.`;
    clearTimeout(this.#grace);
    const running = [...this.#running.values()];
    this.#child = undefined;
    this.#ready.reject(new Error(reason));
    this.emit("died", reason, running.length > 0);
    for (const { resolve, last } of running) resolve(last ?? { status: "died", reason });
    this.#failedStarts = this.#isReady ? 0 : this.#failedStarts + 1;
    // One that cannot even start is not started in a tight loop; cells that come meanwhile say why.
    if (this.#failedStarts < MAX_FAILED_STARTS) this.start();
    else setTimeout(() => this.#closed || this.start(), RESTART_MS);
  }

  #newKills(): OomKills {
    const { group, machine } = oomEvidence();
    return { group: group - this.#oomKills.group, machine: machine - this.#oomKills.machine };
  }

  #signalGroup(signal: NodeJS.Signals): void {
    const pid = this.#child?.pid;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // Nobody is left in the group.
    }
  }
}

interface PromiseWithResolversLike<T> {
  promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
}

// Promise.withResolvers is not in Node 20.
function resolvers<T>(): PromiseWithResolversLike<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
