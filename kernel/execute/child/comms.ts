import { randomUUID } from "node:crypto";
import type { CommEvent } from "../channel.js";
import type { Cell } from "./cell.js";

type Json = { [key: string]: unknown };

/** What came with a message. */
export interface CommMessage {
  data: Json;
  metadata: Json;
  /** Raw bytes, in the order of the message's frames. */
  buffers: Uint8Array[];
}

/** What goes along with a message. */
export interface CommOptions {
  metadata?: Json;
  /** Sent as raw frames; they are copied at once. */
  buffers?: readonly (ArrayBufferView | ArrayBuffer | SharedArrayBuffer)[];
}

type MessageHandler = (message: CommMessage) => unknown;

/** The executor's end of one comm. */
export interface Comm {
  readonly id: string;
  readonly target: string;
  readonly closed: boolean;
  /** Sends a message to the front end; `data` must be JSON. */
  send(data?: object, options?: CommOptions): void;
  /** Closes the comm; the front end is told. */
  close(data?: object, options?: CommOptions): void;
  /** Calls back for every message of the front end; returns a function that ends it. */
  onMessage(handler: MessageHandler): () => void;
  /** Calls back when the front end closes the comm. */
  onClose(handler: MessageHandler): () => void;
}

/** What cells and libraries open comms with. */
export interface Comms {
  /** Takes the comms that front ends open to this target; returns a function that ends it. */
  register(target: string, opened: (comm: Comm, open: CommMessage) => unknown): () => void;
  /** Opens a comm to a target of the front end. */
  open(target: string, data?: object, options?: CommOptions & { id?: string }): Comm;
  /** The comms that are open. */
  list(): Comm[];
}

/** Puts a message on its way; `opener` is the cell that it belongs to if none runs. */
export type Post = (event: CommEvent, opener: Cell | undefined) => void;

/** All comms of the executor. Handlers run one message at a time; what they throw is the message's error. */
export class CommManager {
  readonly #post: Post;
  readonly #targets = new Map<string, (comm: Comm, open: CommMessage) => unknown>();
  readonly #comms = new Map<string, LiveComm>();

  constructor(post: Post) {
    this.#post = post;
  }

  /** The comms as one cell sees them, or a library (no cell). */
  of(cell?: Cell): Comms {
    return {
      register: (target, opened) => {
        if (typeof target !== "string" || target === "") {
          throw new TypeError('comms.register(target, opened): the target must be a name, like "my.widget".');
        }
        if (typeof opened !== "function") {
          throw new TypeError(
            "comms.register(target, opened): `opened` must be a function; it gets the comm and what it was opened with.",
          );
        }
        this.#targets.set(target, opened);
        return () => {
          if (this.#targets.get(target) === opened) this.#targets.delete(target);
        };
      },
      open: (target, data, options = {}) => {
        const id = options.id ?? randomUUID();
        if (this.#comms.has(id)) throw new Error(`comms.open: a comm with the id ${id} is open already.`);
        const comm = this.#live(id, String(target), cell);
        comm.post("open", data, options);
        this.#comms.set(id, comm);
        return comm;
      },
      list: () => [...this.#comms.values()],
    };
  }

  /** Hands a front end's message to its handlers; returns what they return. */
  receive(event: CommEvent): unknown {
    const { comm: id, data, metadata, buffers } = event;
    const message = { data, metadata, buffers };
    if (event.action === "open") return this.#opened(id, event.target ?? "", message);
    const comm = this.#comms.get(id);
    if (event.action === "close") comm?.end();
    return comm?.handle(event.action === "close" ? "close" : "msg", message);
  }

  // A front end learns from the closing that nobody takes its comm, or that taking it has failed.
  #opened(id: string, target: string, open: CommMessage): unknown {
    const comm = this.#live(id, target, undefined);
    const opened = this.#targets.get(target);
    if (opened === undefined) {
      comm.close();
      return undefined;
    }
    this.#comms.set(id, comm);
    const failed = (error: unknown): never => {
      comm.close();
      throw error;
    };
    try {
      const made = opened(comm, open);
      return made instanceof Promise ? made.catch(failed) : made;
    } catch (error) {
      return failed(error);
    }
  }

  #live(id: string, target: string, opener: Cell | undefined): LiveComm {
    return new LiveComm(
      id,
      target,
      (event) => this.#post(event, opener),
      () => this.#comms.delete(id),
    );
  }
}

class LiveComm implements Comm {
  readonly id: string;
  readonly target: string;
  closed = false;
  readonly #send: (event: CommEvent) => void;
  readonly #ended: () => void;
  readonly #handlers: { msg: Set<MessageHandler>; close: Set<MessageHandler> } = { msg: new Set(), close: new Set() };

  constructor(id: string, target: string, send: (event: CommEvent) => void, ended: () => void) {
    this.id = id;
    this.target = target;
    this.#send = send;
    this.#ended = ended;
  }

  send(data?: object, options?: CommOptions): void {
    if (this.closed) throw new Error(`The comm ${this.id} (${this.target}) is closed: open a new one.`);
    this.post("msg", data, options);
  }

  close(data?: object, options?: CommOptions): void {
    if (this.closed) return;
    this.post("close", data, options);
    this.end();
  }

  onMessage(handler: MessageHandler): () => void {
    this.#handlers.msg.add(handler);
    return () => this.#handlers.msg.delete(handler);
  }

  onClose(handler: MessageHandler): () => void {
    this.#handlers.close.add(handler);
    return () => this.#handlers.close.delete(handler);
  }

  /** Sends without looking whether the comm is open. */
  post(action: CommEvent["action"], data: object = {}, { metadata = {}, buffers = [] }: CommOptions = {}): void {
    this.#send({
      action,
      comm: this.id,
      ...(action === "open" ? { target: this.target } : {}),
      data: plain(data, "data"),
      metadata: plain(metadata, "metadata"),
      buffers: buffers.map(bytes),
    });
  }

  /** No message comes or goes any more. */
  end(): void {
    this.closed = true;
    this.#ended();
  }

  handle(kind: "msg" | "close", message: CommMessage): unknown {
    const made = [...this.#handlers[kind]].map((handler) => handler(message));
    return made.some((one) => one instanceof Promise) ? Promise.all(made) : undefined;
  }
}

function plain(value: object, what: string): Json {
  let copy: unknown;
  try {
    copy = JSON.parse(JSON.stringify(value));
  } catch (error) {
    throw new TypeError(`comm: ${what} must be JSON (binary parts go into buffers): ${(error as Error).message}`);
  }
  if (typeof copy !== "object" || copy === null || Array.isArray(copy)) {
    throw new TypeError(`comm: ${what} must be an object, got ${Array.isArray(value) ? "an array" : typeof value}.`);
  }
  return copy as Json;
}

// A copy: what the caller does with its memory afterwards is its own business.
function bytes(buffer: ArrayBufferView | ArrayBuffer | SharedArrayBuffer): Uint8Array {
  if (ArrayBuffer.isView(buffer)) {
    return new Uint8Array(new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength));
  }
  if (buffer instanceof ArrayBuffer || buffer instanceof SharedArrayBuffer) {
    return new Uint8Array(new Uint8Array(buffer));
  }
  throw new TypeError(`comm: a buffer must be an ArrayBuffer or a typed array, got ${typeof buffer}.`);
}
