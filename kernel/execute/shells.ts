import { randomUUID } from "node:crypto";
import type { Json, Message } from "../protocol/message.js";
import type { MimeBundle } from "./channel.js";
import { ExecuteQueue, lost, type Parts } from "./queue.js";

/**
 * The main shell and its subshells (JEP 91). Cells of one shell wait for each other; those of several run beside each other on the
 * executor's one thread, taking turns wherever they await.
 */
export class Shells {
  readonly #parts: Parts;
  readonly #main: ExecuteQueue;
  readonly #subshells = new Map<string, ExecuteQueue>();
  /** Also those that were deleted while a cell of theirs runs. */
  readonly #working = new Set<ExecuteQueue>();

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#main = new ExecuteQueue(parts);
    parts.executor.on("died", (reason, running) => {
      // A cell that runs says so itself.
      if (!running) parts.session.notice = `${lost(reason)}\n`;
      for (const comm_id of parts.comms.clear()) parts.sockets.publish("comm_close", { comm_id, data: {} });
      void parts.compiler().then((compiler) => compiler.reset());
    });
  }

  /** A request that runs now, the main shell's first. */
  get active(): Message | undefined {
    return this.#busy()[0]?.active;
  }

  /** The request of a running cell that allows questions to its client's user. */
  asking(cell: string): Message | undefined {
    for (const queue of this.#busy()) {
      const request = queue.asking(cell);
      if (request !== undefined) return request;
    }
    return undefined;
  }

  /** A page for the reply of a running cell. */
  page(cell: string, data: MimeBundle): void {
    for (const queue of this.#busy()) queue.page(cell, data);
  }

  /** Whether the shell that a message names is there; no name stands for the main shell. */
  knows(message: Message): boolean {
    const name = message.header.subshell_id;
    return name === undefined || this.#subshells.has(name);
  }

  /** Queues a message in its shell. */
  submit(message: Message): void {
    const name = message.header.subshell_id;
    const queue = name === undefined ? this.#main : this.#subshells.get(name);
    if (queue === undefined) throw new Error(`There is no subshell ${JSON.stringify(name)}.`);
    this.#working.add(queue);
    queue.submit(message);
  }

  /** Stops every cell that runs: they share a thread, so that none can be stopped safely by itself. */
  interrupt(): void {
    for (const queue of this.#busy()) queue.interrupt();
    this.#parts.executor.interrupt();
  }

  /** Content of `create_subshell_reply`. */
  create(): Json {
    const id = randomUUID();
    this.#subshells.set(id, new ExecuteQueue(this.#parts));
    return { status: "ok", subshell_id: id };
  }

  /** Content of `delete_subshell_reply`: what it runs or holds is still worked off. */
  delete(id: unknown): Json {
    if (typeof id === "string" && this.#subshells.delete(id)) return { status: "ok" };
    return unknownSubshell(id);
  }

  /** Content of `list_subshell_reply`. */
  list(): Json {
    return { status: "ok", subshell_id: [...this.#subshells.keys()] };
  }

  #busy(): ExecuteQueue[] {
    for (const queue of this.#working) if (queue.active === undefined) this.#working.delete(queue);
    return [...this.#working].sort((a, b) => Number(b === this.#main) - Number(a === this.#main));
  }
}

/** The error of a request to a subshell that is not there. */
export function unknownSubshell(id: unknown): Json {
  const evalue = `There is no subshell ${JSON.stringify(id)}: it was deleted, or belongs to a kernel before this one.`;
  return { status: "error", ename: "UnknownSubshell", evalue, traceback: [`UnknownSubshell: ${evalue}`] };
}
