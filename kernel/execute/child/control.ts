// The executor's control thread. It owns the channel to the kernel process, so that messages pass while a cell keeps the
// main thread busy, and it stops a main thread that does not listen.
import { Session } from "node:inspector";
import { Socket } from "node:net";
import { parentPort, workerData } from "node:worker_threads";
import { CHANNEL_FD, type Command, FrameReader, frame, type Report } from "../channel.js";
import { BESIDE, FLUSHED, INTERRUPTING, type SharedWords, type ToControl, WRITTEN } from "./shared.js";

// How long library code may take to see the flag before its thread is stopped, and how often that is tried again.
const LISTEN_MS = 150;
const AGAIN_MS = 400;
// Short work that asks not to be stopped is waited for, up to a limit: it may have been stopped before it could say that it is over.
const SHORT_WORK_MS = 600;

const { flag, flow } = workerData as SharedWords;
const main = parentPort!;
const socket = new Socket({ fd: CHANNEL_FD, readable: true, writable: true });
const reader = new FrameReader<Command>();

socket.on("data", (piece: Buffer) => {
  for (const command of reader.push(piece)) {
    if (command.type === "interrupt") interrupt(command);
    else if (command.type === "comm") handOver(command);
    else main.postMessage(command);
  }
});
// Buffers are views of one large frame, which a plain message would copy whole for each of them.
function handOver(command: Extract<Command, { type: "comm" }>): void {
  const buffers = command.event.buffers.map((buffer) => new Uint8Array(buffer));
  const event = { ...command.event, buffers };
  const owned = buffers.map(({ buffer }) => buffer);
  main.postMessage({ ...command, event } satisfies Command, owned);
}
// Without the kernel process nobody can see or stop this one: it ends with all of its children.
const end = (): void => {
  try {
    process.kill(-process.pid, "SIGKILL");
  } catch {
    process.kill(process.pid, "SIGKILL");
  }
};
socket.on("close", end);
socket.on("error", end);

let waiting: Report[] = [];
let bytes = 0;
let scheduled = false;

main.on("message", (message: ToControl) => {
  if ("report" in message) {
    add(message.report);
    bytes += message.bytes;
    // The kernel waits for the end of a cell; all else is gathered for a turn.
    if (message.report.type === "done") write();
    else if (!scheduled) {
      scheduled = true;
      setImmediate(() => scheduled && write());
    }
  } else if ("acknowledge" in message) {
    clearTimeout(ladder);
    // A session that stays makes the process wait for "the debugger" when it exits.
    session?.disconnect();
    session = undefined;
  } else {
    write(() => {
      Atomics.add(flow, FLUSHED, 1);
      Atomics.notify(flow, FLUSHED);
    });
  }
});

// Thousands of lines that arrive in one turn become one report.
function add(report: Report): void {
  const last = waiting.at(-1);
  if (report.type === "stream" && last?.type === "stream" && last.cell === report.cell && last.name === report.name) {
    last.text += report.text;
  } else waiting.push(report);
}

function write(done?: () => void): void {
  scheduled = false;
  const sent = bytes;
  const reports = waiting;
  waiting = [];
  bytes = 0;
  socket.write(reports.length > 0 ? frame(reports) : "", () => {
    Atomics.add(flow, WRITTEN, sent);
    Atomics.notify(flow, WRITTEN);
    done?.();
  });
}

let ladder: NodeJS.Timeout | undefined;
let session: Session | undefined;

// First rung: the flag for native code and polling loops, a message for code that awaits, and a signal for the programs that
// cells have started, in this order: a cell whose program ends by the signal finds the flag up. Second: a main thread that
// has not answered is stopped where it is, again and again until it answers. The kernel process has the last rung.
// The flag stops all native work, so it stays down at first where work of an earlier cell is to go on: then the signal stops the cell.
function interrupt(command: Command): void {
  Atomics.store(flow, INTERRUPTING, 1);
  if (Atomics.load(flow, BESIDE) === 0) raise();
  main.postMessage(command);
  process.kill(-process.pid, "SIGINT");
  clearTimeout(ladder);
  ladder = setTimeout(() => stop(1), LISTEN_MS);
}

function raise(): void {
  Atomics.store(flag, 0, 1);
  Atomics.notify(flag, 0);
}

function stop(attempt: number, waited = 0): void {
  if (Atomics.load(flag, 1) > 0 && waited < SHORT_WORK_MS) {
    ladder = setTimeout(() => stop(attempt, waited + LISTEN_MS), LISTEN_MS);
    return;
  }
  if (attempt > 2) raise();
  if (session === undefined) {
    session = new Session();
    session.connectToMainThread();
  }
  session.post("Runtime.terminateExecution", () => {});
  ladder = setTimeout(() => stop(attempt + 1), AGAIN_MS);
}
