/** Static pictures of figures, drawn in a thread of its own that lives only while it is used. */
import { Worker } from "node:worker_threads";
import type { RenderAnswer, RenderRequest } from "./worker.js";

/** Size of a picture in pixels, and how many device pixels stand for one (2 for print and sharp screens). */
export interface PictureSize {
  width?: number;
  height?: number;
  scale?: number;
}

const idleAfter = 60_000;
const timeLimit = 60_000;
const maxSide = 8192;

interface Job {
  resolve: (result: Uint8Array | string) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

let worker: Worker | undefined;
let idle: NodeJS.Timeout | undefined;
let counter = 0;
const jobs = new Map<number, Job>();

/** Draws a figure. @throws Error where the drawing fails or takes over a minute. */
export function render(request: Omit<RenderRequest, "id">): Promise<Uint8Array | string> {
  const { width, height, scale } = request;
  const side = Math.max(width, height) * scale;
  if (!(width >= 10 && height >= 10 && scale > 0 && side <= maxSide)) {
    const got = `${width} x ${height} at scale ${scale}`;
    return Promise.reject(
      new RangeError(`picture: expected a width and height of 10 to ${maxSide} pixels, got ${got}`),
    );
  }
  clearTimeout(idle);
  worker ??= start();
  const current = worker;
  // A pending picture keeps the process alive; an idle thread must not.
  current.ref();
  counter += 1;
  const id = counter;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => stop(current, new Error("drawing took over a minute")), timeLimit);
    timer.unref();
    jobs.set(id, { resolve, reject, timer });
    current.postMessage({ ...request, id } satisfies RenderRequest);
  });
}

/** Ends the thread; the next picture starts another. */
export async function closeRenderer(): Promise<void> {
  if (worker) await stop(worker, new Error("the renderer was closed"));
}

function start(): Worker {
  const started = new Worker(new URL("./worker.js", import.meta.url), {
    // What the libraries print is of no use to a notebook. It is left unread: a reader would keep the process alive.
    stdout: true,
    stderr: true,
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 1024 },
  });
  started.on("message", (answer: RenderAnswer) => finish(started, answer));
  started.on("error", (error) => stop(started, error instanceof Error ? error : new Error(String(error))));
  started.on("exit", () => stop(started, new Error("the drawing thread ended")));
  return started;
}

function finish(from: Worker, answer: RenderAnswer): void {
  const job = jobs.get(answer.id);
  if (!job) return;
  jobs.delete(answer.id);
  clearTimeout(job.timer);
  if (answer.result === undefined) job.reject(new Error(answer.error ?? "drawing failed"));
  else job.resolve(answer.result);
  if (jobs.size > 0) return;
  from.unref();
  idle = setTimeout(() => stop(from, new Error("idle")), idleAfter);
  idle.unref();
}

async function stop(which: Worker, reason: Error): Promise<void> {
  if (worker !== which) return;
  worker = undefined;
  clearTimeout(idle);
  const waiting = [...jobs.values()];
  jobs.clear();
  for (const job of waiting) {
    clearTimeout(job.timer);
    job.reject(reason);
  }
  await which.terminate();
}
