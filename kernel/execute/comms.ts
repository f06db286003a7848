import type { Json, Message } from "../protocol/message.js";
import type { CommEvent } from "./channel.js";

const ACTIONS: { readonly [type: string]: CommEvent["action"] } = {
  comm_open: "open",
  comm_msg: "msg",
  comm_close: "close",
};

/** The comms that are open between front ends and the executor, as the kernel process sees them pass. */
export class Comms {
  readonly #open = new Map<string, string>();

  /** Whether messages of this type belong here. */
  static has(type: string): boolean {
    return Object.hasOwn(ACTIONS, type);
  }

  /** Content of `comm_info_reply`; with a target's name the comms of that target alone. */
  info(target: unknown): Json {
    const comms: [string, Json][] = [];
    for (const [id, name] of this.#open) {
      if (typeof target !== "string" || target === "" || target === name) comms.push([id, { target_name: name }]);
    }
    return { status: "ok", comms: Object.fromEntries(comms) };
  }

  /** Notes what passes, from either side. */
  note({ action, comm, target = "" }: CommEvent): void {
    if (action === "open") this.#open.set(comm, target);
    else if (action === "close") this.#open.delete(comm);
  }

  /**
   * A front end's message, checked.
   *
   * @returns what is wrong with it where it cannot be handed on.
   */
  read(message: Message): CommEvent | string {
    const action = ACTIONS[message.header.msg_type]!;
    const { comm_id: comm, target_name: target, data } = message.content;
    if (typeof comm !== "string" || comm === "") return "comm_id must be a string";
    if (action === "open" && typeof target !== "string") return "target_name must be a string";
    if (action === "open" && this.#open.has(comm)) return `a comm ${comm} is open already`;
    if (action !== "open" && !this.#open.has(comm)) return `no comm ${comm} is open`;
    const { metadata, buffers } = message;
    const plain = typeof data === "object" && data !== null && !Array.isArray(data) ? (data as Json) : {};
    return { action, comm, data: plain, metadata, buffers, ...(action === "open" ? { target: String(target) } : {}) };
  }

  /** Forgets all comms, because the executor that held them has ended; returns their ids. */
  clear(): string[] {
    const ids = [...this.#open.keys()];
    this.#open.clear();
    return ids;
  }
}
