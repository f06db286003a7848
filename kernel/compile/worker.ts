// The thread that holds TypeScript. One request at a time, answered in order.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { parentPort, workerData } from "node:worker_threads";
import { complete } from "../complete/complete.js";
import { isComplete } from "../complete/completeness.js";
import { inspect } from "../complete/inspect.js";
import { CompileFailure, Compiler } from "./compiler.js";
import type { Answer, Call, Notice, Request } from "./messages.js";
import { saveCodeCache } from "./typescript.js";

const port = parentPort!;
const compiler = new Compiler((workerData as { folder: string }).folder);
let cold = true;
let idle: NodeJS.Timeout | undefined;
let answered = 0;

function answer(call: Call): unknown {
  switch (call.type) {
    case "compile":
      return compiler.compile(call.request);
    case "complete":
      return complete(compiler, call.code, call.cursor);
    case "inspect":
      return inspect(compiler, call.code, call.cursor, call.detail);
    case "isComplete":
      return isComplete(call.code);
    case "transpile":
      return compiler.transpile(call.path, call.text);
  }
}

function notice(message: Notice): void {
  if (message.type === "commit") compiler.commit(message.cell);
  else if (message.type === "reset") compiler.reset();
  else if (message.type === "packages") compiler.packagesChanged();
  else for (const { code, cell, cwd } of message.cells) compiler.restore(code, cell, cwd);
}

port.on("message", (message: Request | Notice) => {
  if (!("id" in message)) {
    notice(message);
    return;
  }
  let reply: Answer;
  try {
    reply = { id: message.id, value: answer(message) };
  } catch (error) {
    const { name, message: text, stack } = error as Error;
    const diagnostics = error instanceof CompileFailure ? error.diagnostics : undefined;
    reply = {
      id: message.id,
      error: { name, message: text, ...(stack ? { stack } : {}) },
      ...(diagnostics ? { diagnostics } : {}),
    };
  }
  port.postMessage(reply);
  if (cold) warm();
  else if (++answered % TIDY_EVERY === 0) tidyLater();
});

compiler.warmUp(false);
// The first cell often waits already and needs the language alone; Node's declarations come after it.
setTimeout(warm, 50);

// Old checkers are garbage that V8 would rather keep: collected when nobody waits.
const TIDY_EVERY = 20;
const TIDY_AFTER_MS = 1_000;

function tidyLater(): void {
  clearTimeout(idle);
  idle = setTimeout(() => {
    setFlagsFromString("--expose-gc");
    collect ??= runInNewContext("gc") as () => void;
    collect();
  }, TIDY_AFTER_MS).unref();
}
let collect: (() => void) | undefined;

function warm(): void {
  if (!cold) return;
  cold = false;
  setTimeout(() => {
    compiler.warmUp(true);
    setTimeout(saveCodeCache, 3_000).unref();
    tidyLater();
  }, 5);
}
