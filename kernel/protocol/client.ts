import { EventEmitter } from "node:events";
import { Dealer, Request, Subscriber } from "zeromq";
import { address, type ConnectionInfo } from "./connection.js";
import { decode, encode, type Json, type Message, type Outgoing } from "./message.js";
import { Sender } from "./sender.js";
import { Signer } from "./signing.js";

/** Everything that came of one request. */
export interface Answer {
  /** The reply on shell or control. */
  reply: Message;
  /** What came on IOPub with the request as parent, up to idle. */
  iopub: Message[];
}

export interface RequestOptions {
  /** Called with the message id before anything can have come back. */
  onSent?: (id: string) => void;
  /** Rejects when reply and idle have not come in so many milliseconds. */
  timeoutMs?: number;
  /** What the message has beside its content. */
  extra?: Extra;
}

/** What a message may have beside its type and content. */
export type Extra = Pick<Outgoing, "id" | "subshell" | "parent" | "metadata" | "buffers">;

interface Waiting {
  id: string;
  reply?: Message;
  iopub: Message[];
  idle: boolean;
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

interface Events {
  /** Every message on IOPub. */
  iopub: [Message];
  /** A reply or an input request. */
  reply: [Message, "shell" | "control" | "stdin"];
}

/** A client of a kernel over zeromq: what `tunebook run` drives kernels with. */
export class KernelClient extends EventEmitter<Events> {
  readonly session: string;
  readonly #info: ConnectionInfo;
  readonly #signer: Signer;
  readonly #shell: Dealer;
  readonly #control: Dealer;
  readonly #stdin: Dealer;
  readonly #iopub: Subscriber = new Subscriber({ receiveHighWaterMark: 0 });
  readonly #senders: Record<"shell" | "control" | "stdin", Sender>;
  readonly #waiting = new Map<string, Waiting>();
  #welcome: (() => void) | undefined;
  #closed = false;

  constructor(info: ConnectionInfo, session: string) {
    super();
    this.session = session;
    this.#info = info;
    this.#signer = new Signer(info.key, info.signature_scheme);
    const dealer = (): Dealer =>
      new Dealer({ routingId: session, linger: 0, sendHighWaterMark: 0, receiveHighWaterMark: 0 });
    this.#shell = dealer();
    this.#control = dealer();
    this.#stdin = dealer();
    const ignore = (): void => {};
    this.#senders = {
      shell: new Sender(this.#shell, ignore),
      control: new Sender(this.#control, ignore),
      stdin: new Sender(this.#stdin, ignore),
    };
  }

  /** Connects and waits for the kernel's welcome on IOPub, so that nothing it publishes is missed. */
  async connect(timeoutMs = 20_000): Promise<void> {
    const welcome = new Promise<void>((resolve) => {
      this.#welcome = resolve;
    });
    this.#shell.connect(address(this.#info, "shell"));
    this.#control.connect(address(this.#info, "control"));
    this.#stdin.connect(address(this.#info, "stdin"));
    this.#iopub.connect(address(this.#info, "iopub"));
    this.#iopub.subscribe();
    void this.#receive("shell", this.#shell);
    void this.#receive("control", this.#control);
    void this.#receive("stdin", this.#stdin);
    void this.#receive("iopub", this.#iopub);
    await within(welcome, timeoutMs, "the kernel's welcome on IOPub");
  }

  /** Sends a request and resolves when its reply and its idle status have both come. */
  request(
    channel: "shell" | "control",
    type: string,
    content: Json = {},
    options: RequestOptions = {},
  ): Promise<Answer> {
    const frames = this.encode(type, content, options.extra);
    const id = (JSON.parse(Buffer.from(frames[2]!).toString()) as { msg_id: string }).msg_id;
    const answer = new Promise<Answer>((resolve, reject) => {
      this.#waiting.set(id, { id, iopub: [], idle: false, resolve, reject });
    });
    options.onSent?.(id);
    this.#senders[channel].send(frames);
    if (options.timeoutMs === undefined) return answer;
    return within(answer, options.timeoutMs, `the answer to ${type}`).finally(() => this.#waiting.delete(id));
  }

  /** Executes code as a front end's cell does; `content` overrides fields of the request. */
  execute(code: string, options: RequestOptions = {}, content: Json = {}): Promise<Answer> {
    const defaults = { silent: false, store_history: true, user_expressions: {}, allow_stdin: false };
    return this.request("shell", "execute_request", { code, ...defaults, ...content }, options);
  }

  /** A signed message: delimiter, signature, header, parent, metadata, content, buffers. */
  encode(type: string, content: Json, extra: Extra = {}): Uint8Array[] {
    return encode({ ...extra, type, content, session: this.session }, this.#signer);
  }

  /** Sends frames as they are. */
  sendRaw(channel: "shell" | "control" | "stdin", frames: Uint8Array[]): void {
    this.#senders[channel].send(frames);
  }

  /** Whether the heartbeat answers within the time. */
  async heartbeat(timeoutMs = 1_000): Promise<boolean> {
    const socket = new Request({ linger: 0, receiveTimeout: timeoutMs });
    try {
      socket.connect(address(this.#info, "hb"));
      await socket.send("ping");
      const [echo] = await socket.receive();
      return echo?.toString() === "ping";
    } catch {
      return false;
    } finally {
      socket.close();
    }
  }

  /** Rejects all that waits, for instance because the kernel has ended. */
  fail(error: Error): void {
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.fail(new Error("The client was closed."));
    for (const socket of [this.#shell, this.#control, this.#stdin, this.#iopub]) socket.close();
  }

  async #receive(channel: "shell" | "control" | "stdin" | "iopub", socket: Dealer | Subscriber): Promise<void> {
    while (!this.#closed) {
      let frames: Uint8Array[];
      try {
        frames = (await socket.receive()) as Uint8Array[];
      } catch {
        return;
      }
      const message = decode(frames, this.#signer);
      if (channel === "iopub") this.#published(message);
      else {
        this.emit("reply", message, channel);
        if (channel !== "stdin") this.#settle(message, (waiting) => (waiting.reply = message));
      }
    }
  }

  #published(message: Message): void {
    if (message.header.msg_type === "iopub_welcome") this.#welcome?.();
    this.emit("iopub", message);
    this.#settle(message, (waiting) => {
      waiting.iopub.push(message);
      if (message.header.msg_type === "status" && message.content.execution_state === "idle") waiting.idle = true;
    });
  }

  #settle(message: Message, note: (waiting: Waiting) => void): void {
    const waiting = this.#waiting.get(String(message.parent.msg_id ?? ""));
    if (waiting === undefined) return;
    note(waiting);
    if (waiting.reply === undefined || !waiting.idle) return;
    this.#waiting.delete(waiting.id);
    waiting.resolve({ reply: waiting.reply, iopub: waiting.iopub });
  }
}

/** Rejects when a promise takes longer than so many milliseconds. */
export async function within<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`No answer within ${ms / 1_000} s: waited for ${what}.`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
