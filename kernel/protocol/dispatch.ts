import type { Completeness, Completion, Inspection } from "../compile/types.js";
import type { ExecuteQueue } from "../execute/queue.js";
import type { History } from "./history.js";
import { kernelInfo } from "./info.js";
import type { Json, Message } from "./message.js";
import type { KernelSockets, RequestChannel } from "./sockets.js";
import { toCodePoints, toUtf16 } from "./text.js";

/** The part of the compile service that editing needs. */
export interface Editor {
  complete(code: string, cursor: number): Promise<Completion>;
  inspect(code: string, cursor: number, detail: 0 | 1): Promise<Inspection>;
  isComplete(code: string): Promise<Completeness>;
}

interface Parts {
  sockets: KernelSockets;
  queue: ExecuteQueue;
  history: History;
  editor(): Promise<Editor>;
  /** Called after a shutdown has been answered. */
  shutdown(): void;
  /** An answer of the front end's user. */
  answered(value: string): void;
  log(text: string): void;
}

type Answer = [type: string, content: Json];

/** Answers requests. Cells wait for each other; everything else is answered at once, also while a cell runs. */
export class Dispatcher {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly handle = (channel: RequestChannel, message: Message): void => {
    const type = message.header.msg_type;
    if (channel === "stdin") {
      if (type === "input_reply") this.#parts.answered(String(message.content.value ?? ""));
      return;
    }
    if (type === "execute_request" && channel === "shell") this.#parts.queue.submit(message);
    else void this.#answer(channel, message);
  };

  async #answer(channel: "shell" | "control", message: Message): Promise<void> {
    const { sockets, queue, log } = this.#parts;
    const type = message.header.msg_type;
    sockets.publish("status", { execution_state: "busy" }, message.rawHeader);
    try {
      const answer = await this.#reply(type, message);
      if (answer !== undefined) sockets.send(channel, message, ...answer);
    } catch (error) {
      const { name, message: text, stack } = error as Error;
      log(`${type} has failed: ${stack}`);
      const content = { status: "error", ename: name, evalue: text, traceback: [`${name}: ${text}`] };
      sockets.send(channel, message, type.replace(/_request$/, "_reply"), content);
    }
    sockets.publish("status", { execution_state: "idle" }, message.rawHeader);
    // Front ends show the last state they hear of; a cell that still runs makes the kernel busy.
    if (queue.active !== undefined && type !== "shutdown_request") {
      sockets.publish("status", { execution_state: "busy" }, queue.active.rawHeader);
    }
    if (type === "shutdown_request") this.#parts.shutdown();
  }

  async #reply(type: string, message: Message): Promise<Answer | undefined> {
    const { sockets, queue, history, log } = this.#parts;
    const content = message.content;
    switch (type) {
      case "kernel_info_request":
        return ["kernel_info_reply", kernelInfo()];
      case "complete_request":
        return ["complete_reply", await this.#complete(content)];
      case "inspect_request":
        return ["inspect_reply", await this.#inspect(content)];
      case "is_complete_request": {
        const editor = await this.#parts.editor();
        return ["is_complete_reply", { ...(await editor.isComplete(text(content, "code"))) }];
      }
      case "history_request":
        return ["history_reply", history.answer(content)];
      case "comm_info_request":
        return ["comm_info_reply", { status: "ok", comms: {} }];
      case "comm_open":
        // No target is known yet, so every comm is closed again.
        sockets.publish("comm_close", { comm_id: String(content.comm_id ?? ""), data: {} }, message.rawHeader);
        return undefined;
      case "comm_msg":
      case "comm_close":
        return undefined;
      case "interrupt_request":
        queue.interrupt();
        return ["interrupt_reply", { status: "ok" }];
      case "shutdown_request": {
        const reply = { status: "ok", restart: content.restart === true };
        sockets.publish("shutdown_reply", reply, message.rawHeader);
        return ["shutdown_reply", reply];
      }
      default:
        log(`unknown request ${JSON.stringify(type)}`);
        return undefined;
    }
  }

  async #complete(content: Json): Promise<Json> {
    const code = text(content, "code");
    const editor = await this.#parts.editor();
    const { matches, start, end, metadata } = await editor.complete(code, toUtf16(code, cursor(content, code)));
    const typed = metadata._jupyter_types_experimental.map((one) => ({
      ...one,
      start: toCodePoints(code, one.start),
      end: toCodePoints(code, one.end),
    }));
    return {
      status: "ok",
      matches,
      cursor_start: toCodePoints(code, start),
      cursor_end: toCodePoints(code, end),
      metadata: { ...metadata, _jupyter_types_experimental: typed },
    };
  }

  async #inspect(content: Json): Promise<Json> {
    const code = text(content, "code");
    const editor = await this.#parts.editor();
    const detail = content.detail_level === 1 ? 1 : 0;
    const { found, data } = await editor.inspect(code, toUtf16(code, cursor(content, code)), detail);
    return { status: "ok", found, data, metadata: {} };
  }
}

function text(content: Json, key: string): string {
  const value = content[key];
  if (typeof value !== "string") throw new TypeError(`"${key}" must be a string, got ${typeof value}.`);
  return value;
}

function cursor(content: Json, code: string): number {
  const value = content.cursor_pos;
  return typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : code.length;
}
