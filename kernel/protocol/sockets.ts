import { randomUUID } from "node:crypto";
import { Worker } from "node:worker_threads";
import { Router, XPublisher } from "zeromq";
import { address, type ConnectionInfo } from "./connection.js";
import { BadMessage, decode, encode, type Json, type Message } from "./message.js";
import { Sender } from "./sender.js";
import { Signer } from "./signing.js";

/** The channels on which requests arrive. */
export type RequestChannel = "shell" | "control" | "stdin";

const CHANNELS: readonly RequestChannel[] = ["shell", "control", "stdin"];
const MAX_FRAME_BYTES = 512 * 2 ** 20;

/** The kernel's five sockets: binds them, verifies what arrives, signs and orders what leaves. */
export class KernelSockets {
  readonly #info: ConnectionInfo;
  readonly #session: string;
  readonly #log: (text: string) => void;
  readonly #signer: Signer;
  readonly #routers: Record<RequestChannel, Router>;
  readonly #iopub: XPublisher;
  readonly #senders: Record<RequestChannel | "iopub", Sender>;
  #heartbeat: Worker | undefined;
  #closed = false;

  constructor(info: ConnectionInfo, session: string, log: (text: string) => void) {
    this.#info = info;
    this.#session = session;
    this.#log = log;
    this.#signer = new Signer(info.key, info.signature_scheme);
    // handover: a client that reconnects under its old identity gets the replies.
    const router = (): Router =>
      new Router({ sendHighWaterMark: 0, linger: 1_000, handover: true, maxMessageSize: MAX_FRAME_BYTES });
    this.#routers = { shell: router(), control: router(), stdin: router() };
    this.#iopub = new XPublisher({ sendHighWaterMark: 0, linger: 1_000, verbosity: "allSubs" });
    this.#senders = {
      shell: new Sender(this.#routers.shell, log),
      control: new Sender(this.#routers.control, log),
      stdin: new Sender(this.#routers.stdin, log),
      iopub: new Sender(this.#iopub, log),
    };
  }

  /** Binds all sockets but the heartbeat's. */
  async bind(): Promise<void> {
    await Promise.all([
      ...CHANNELS.map((channel) => this.#routers[channel].bind(address(this.#info, channel))),
      this.#iopub.bind(address(this.#info, "iopub")),
    ]);
  }

  /** Hands each verified request to `handle` from now on. */
  listen(handle: (channel: RequestChannel, message: Message) => void): void {
    for (const channel of CHANNELS) void this.#receive(channel, handle);
    void this.#welcome();
  }

  /** Starts the heartbeat's thread; it is not needed for the first answers. */
  startHeartbeat(): void {
    this.#heartbeat = new Worker(new URL("./heartbeat.js", import.meta.url), {
      workerData: address(this.#info, "hb"),
    });
    this.#heartbeat.on("message", (message: { error?: string }) => {
      if (message.error !== undefined) this.#log(`the heartbeat has failed: ${message.error}`);
    });
    this.#heartbeat.on("error", (error: Error) => this.#log(`the heartbeat has failed: ${error.message}`));
    this.#heartbeat.unref();
  }

  /** Sends a message on a request channel; returns its id. */
  send(channel: RequestChannel, to: Message, type: string, content: Json): string {
    const id = randomUUID();
    const message = { id, type, content, session: this.#session, identities: to.identities, parent: to.rawHeader };
    this.#senders[channel].send(encode(message, this.#signer));
    return id;
  }

  /** Publishes on IOPub; `parent` is the raw header of the request that caused it. */
  publish(
    type: string,
    content: Json,
    parent?: Uint8Array,
    extra: { metadata?: Json; buffers?: Uint8Array[] } = {},
  ): void {
    const identities = [Buffer.from(`kernel.${this.#session}.${type}`)];
    const message = { type, content, session: this.#session, identities, parent, ...extra };
    this.#senders.iopub.send(encode(message, this.#signer));
  }

  /** Resolves when everything published until now has been handed to zeromq. */
  published(): Promise<void> {
    return this.#senders.iopub.flushed();
  }

  /** Sends what is queued and closes all sockets. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all(Object.values(this.#senders).map((sender) => sender.flushed()));
    for (const socket of [...Object.values(this.#routers), this.#iopub]) socket.close();
    const heartbeat = this.#heartbeat;
    if (heartbeat === undefined) return;
    heartbeat.postMessage("close");
    await Promise.race([
      new Promise((resolve) => heartbeat.once("exit", resolve)),
      new Promise((resolve) => setTimeout(resolve, 200)),
    ]);
  }

  async #receive(channel: RequestChannel, handle: (channel: RequestChannel, message: Message) => void): Promise<void> {
    const socket = this.#routers[channel];
    while (!this.#closed) {
      let frames: Uint8Array[];
      try {
        frames = await socket.receive();
      } catch (error) {
        if (!this.#closed) this.#log(`receiving on ${channel} has failed: ${(error as Error).message}`);
        return;
      }
      try {
        handle(channel, this.#checked(decode(frames, this.#signer)));
      } catch (error) {
        const { message, stack } = error as Error;
        // A request that fails must not end the channel.
        if (error instanceof BadMessage) this.#log(`dropped a message on ${channel}: ${message}`);
        else this.#log(`a message on ${channel} was not handled: ${stack}`);
      }
    }
  }

  // What this kernel has signed itself is no request. (A message id may come twice with different frames: jupyter_client's manager and client
  // count for themselves under one session.)
  #checked(message: Message): Message {
    if (message.header.session === this.#session) throw new BadMessage("one of this kernel's own messages");
    return message;
  }

  // JEP 65: every new subscription is greeted, so that a client knows when nothing more can be missed.
  async #welcome(): Promise<void> {
    while (!this.#closed) {
      let frame: Uint8Array | undefined;
      try {
        [frame] = (await this.#iopub.receive()) as Uint8Array[];
      } catch {
        return;
      }
      if (frame?.[0] !== 1) continue;
      const topic = frame.subarray(1);
      const content = { subscription: Buffer.from(topic).toString("utf8") };
      const message = { type: "iopub_welcome", content, session: this.#session, identities: [topic] };
      this.#senders.iopub.send(encode(message, this.#signer));
    }
  }
}
