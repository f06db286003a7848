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
let asked = 0;

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
  asked = performance.now();
  let reply: Answer;
  try {
    reply = { id: message.id, value: answer(message) };
  } catch (error) {
    const { name, message: text, stack } = error as Error;
    const diagnostics = error instanceof CompileFailure ? error.diagnostics : undefined;
    if (diagnostics === undefined) compiler.project.renew();
    reply = {
      id: message.id,
      error: { name, message: text, ...(stack ? { stack } : {}) },
      ...(diagnostics ? { diagnostics } : {}),
    };
  }
  port.postMessage(reply);
  if (cold) warm();
  else tidyLater();
});

compiler.warmUp(false);
// The first cell often waits already and needs the language alone; Node's declarations come after it.
setTimeout(warm, 50);

// Old checkers are garbage that V8 would rather keep: collected when nobody has asked for a while.
const TIDY_AFTER_MS = 1_000;

function tidyLater(): void {
  clearTimeout(idle);
  idle = setTimeout(() => {
    compiler.refresh();
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
    practise(0);
  }, 5);
}

// V8 interprets a function until it has run often: a hundredth cell takes a third of the time of a fifth. So cells are compiled for
// practice while nobody asks for anything, one at a time, about half a second of work in all.
const PRACTICE_CELLS = 40;
const PRACTICE_AFTER_MS = 100;
const practice: ((i: number) => void)[] = [
  (i) => compiler.practise(`${i} + 1`),
  (i) =>
    compiler.practise(
      `const a = [1, ${i}].map((v) => v * 2);\nfunction f(b: number) { return b.toFixed(1) + a.length; }`,
    ),
  (i) =>
    compiler.practise(
      `class C<T> { x = ${i}; get y(): T | undefined { return undefined; } }\nawait Promise.all([new C()])`,
    ),
  (i) => void complete(compiler, `const c = [1, ${i}].map((v) => v + 1);\nc.`, 100),
];

function practise(done: number): void {
  if (done === PRACTICE_CELLS) {
    tidyLater();
    return;
  }
  const quiet = performance.now() - asked >= PRACTICE_AFTER_MS;
  if (quiet) {
    // Programs and checkers are practised too, though most cells share one.
    if (done % 3 === 0) compiler.project.renew();
    practice[done % practice.length]!(done);
  }
  setTimeout(practise, quiet ? 2 : PRACTICE_AFTER_MS, quiet ? done + 1 : done).unref();
}
