// The thread that holds TypeScript. One request at a time, answered in order.
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
});

compiler.warmUp(false);
// The first cell often waits already and needs the language alone; Node's declarations come after it.
setTimeout(warm, 50);

function warm(): void {
  if (!cold) return;
  cold = false;
  setTimeout(() => {
    compiler.warmUp(true);
    setTimeout(saveCodeCache, 3_000).unref();
  }, 5);
}
