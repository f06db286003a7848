// The executor: runs cells on its main thread. It starts the control thread first, which owns the channel.
import { Writable } from "node:stream";
import { Worker } from "node:worker_threads";
import { cleanMessage } from "../../compile/scope.js";
import type { Command } from "../channel.js";
import { Traces } from "./errors.js";
import { Port } from "./port.js";
import { Runner } from "./runner.js";
import { BESIDE, FLUSHED, INTERRUPTING, type SharedWords, WRITTEN } from "./shared.js";
import { installFetch, installTimers } from "./timers.js";

const words: SharedWords = {
  flag: new Int32Array(new SharedArrayBuffer(8)),
  flow: new Int32Array(new SharedArrayBuffer(4 * (Math.max(WRITTEN, FLUSHED, INTERRUPTING, BESIDE) + 1))),
};
const control = new Worker(new URL("./control.js", import.meta.url), { workerData: words });
const port = new Port(control, words);
const traces = new Traces();
const runner = new Runner(port, words, traces);

// Everything that libraries print through process.stdout goes to the running cell. The real streams stay untouched:
// opening them would make the descriptors non-blocking, and native code would lose output.
for (const name of ["stdout", "stderr"] as const) {
  const stream = new Writable({
    decodeStrings: false,
    write(chunk: string | Uint8Array, _encoding, done) {
      runner.print(name, typeof chunk === "string" ? chunk : Buffer.from(chunk).toString("utf8"));
      done();
    },
  });
  Object.defineProperty(stream, "fd", { value: name === "stdout" ? 1 : 2 });
  Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream });
}

traces.install(cleanMessage);
installTimers(() => runner.owner());
installFetch(() => runner.owner());

process.on("uncaughtException", (error) => runner.uncaught(error, "Uncaught"));
process.on("unhandledRejection", (error) => runner.uncaught(error, "Unhandled rejection"));
// A terminal's Ctrl-C and an interrupt reach the programs that cells have started, but not the executor itself.
process.on("SIGINT", () => {});
process.on("exit", () => port.flush(1_000));

control.on("message", (command: Command) => runner.handle(command));
control.on("error", (error) => {
  throw error;
});
port.post({ type: "ready" });
