import type { MimeBundle, Publisher, PublishOptions } from "../../src/display/host.js";

/** A kernel's output side that keeps what it is given. */
export class RecordingHost implements Publisher {
  readonly published: { bundle: MimeBundle; options: PublishOptions; at: number }[] = [];
  readonly held: Promise<unknown>[] = [];
  current: unknown = "cell-1";

  publish(bundle: MimeBundle, options: PublishOptions = {}): void {
    this.published.push({ bundle, options, at: performance.now() });
  }
  clear(): void {}
  cell(): unknown {
    return this.current;
  }
  hold(work: Promise<unknown>): void {
    this.held.push(work);
  }

  get texts(): unknown[] {
    return this.published.map(({ bundle }) => bundle["text/plain"]);
  }
}

const registry = globalThis as unknown as Record<symbol, unknown>;
const key = Symbol.for("tunebook.publish/1");

/** Runs something as if in a kernel's cell. */
export async function inCell<T>(work: (host: RecordingHost) => T | Promise<T>): Promise<T> {
  const host = new RecordingHost();
  const before = registry[key];
  registry[key] = host;
  try {
    return await work(host);
  } finally {
    if (before === undefined) delete registry[key];
    else registry[key] = before;
  }
}

/** Runs something with an interrupt flag as a kernel gives it. */
export function withInterrupt<T>(work: (flag: Int32Array) => T): T {
  const flag = new Int32Array(new SharedArrayBuffer(4));
  const name = Symbol.for("tunebook.interrupt/1");
  const before = registry[name];
  registry[name] = { flag, signal: () => new AbortController().signal };
  try {
    return work(flag);
  } finally {
    if (before === undefined) delete registry[name];
    else registry[name] = before;
  }
}
