import { setTimeout as sleep } from "node:timers/promises";
import type { Completeness, Completion, Inspection } from "../compile/types.js";
import { Comms } from "../execute/comms.js";
import { type Shells, unknownSubshell } from "../execute/shells.js";
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
  shells: Shells;
  comms: Comms;
  history: History;
  editor(): Promise<Editor>;
  /** Called after a shutdown has been answered. */
  shutdown(): void;
  /** An answer of a front end's user. */
  answered(message: Message): void;
  log(text: string): void;
}

type Answer = [type: string, content: Json];

// jupyter_console waits a second for each line, and never asks again after one that came too late: while TypeScript is still being loaded on a busy
// machine, "unknown" lets it ask for more lines.
const LINE_MS = 800;

async function withinLine<T>(known: Promise<T>): Promise<T | { status: "unknown" }> {
  const late = new AbortController();
  try {
    return await Promise.race([
      known,
      sleep(LINE_MS, { status: "unknown" as const }, { signal: late.signal, ref: false }).catch(() => known),
    ]);
  } finally {
    late.abort();
  }
}

/** Answers requests. Cells and comms wait for each other; everything else is answered at once, also while a cell runs. */
export class Dispatcher {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly handle = (channel: RequestChannel, message: Message): void => {
    const type = message.header.msg_type;
    if (channel === "stdin") {
      if (type === "input_reply") this.#parts.answered(message);
      return;
    }
    const { shells } = this.#parts;
    const queued = channel === "shell" && (type === "execute_request" || Comms.has(type));
    if (queued && shells.knows(message)) shells.submit(message);
    else void this.#answer(channel, message);
  };

  async #answer(channel: "shell" | "control", message: Message): Promise<void> {
    const { sockets, shells, log } = this.#parts;
    const type = message.header.msg_type;
    sockets.publish("status", { execution_state: "busy" }, message.rawHeader);
    try {
      const lost = channel === "shell" && !shells.knows(message) && /_request$/.test(type);
      const answer: Answer | undefined = lost
        ? [type.replace(/_request$/, "_reply"), unknownSubshell(message.header.subshell_id)]
        : channel === "control" || !CONTROL_ONLY.has(type)
          ? await this.#reply(type, message)
          : undefined;
      if (answer !== undefined) sockets.send(channel, message, ...answer);
    } catch (error) {
      const { name, message: text, stack } = error as Error;
      log(`${type} has failed: ${stack}`);
      const content = { status: "error", ename: name, evalue: text, traceback: [`${name}: ${text}`] };
      sockets.send(channel, message, type.replace(/_request$/, "_reply"), content);
    }
    sockets.publish("status", { execution_state: "idle" }, message.rawHeader);
    // Front ends show the last state they hear of; a cell that still runs makes the kernel busy.
    const { active } = shells;
    if (active !== undefined && type !== "shutdown_request") {
      sockets.publish("status", { execution_state: "busy" }, active.rawHeader);
    }
    if (type === "shutdown_request") this.#parts.shutdown();
  }

  async #reply(type: string, message: Message): Promise<Answer | undefined> {
    const { sockets, shells, comms, history, log } = this.#parts;
    const content = message.content;
    switch (type) {
      case "kernel_info_request":
        return ["kernel_info_reply", kernelInfo()];
      case "complete_request":
        return ["complete_reply", await this.#complete(content)];
      case "inspect_request":
        return ["inspect_reply", await this.#inspect(content)];
      case "is_complete_request": {
        const code = text(content, "code");
        const known = this.#parts.editor().then((editor) => editor.isComplete(code));
        return ["is_complete_reply", { ...(await withinLine(known)) }];
      }
      case "history_request":
        return ["history_reply", await history.answer(content)];
      case "comm_info_request":
        return ["comm_info_reply", comms.info(content.target_name)];
      case "interrupt_request":
        shells.interrupt();
        return ["interrupt_reply", { status: "ok" }];
      case "create_subshell_request":
        return ["create_subshell_reply", shells.create()];
      case "delete_subshell_request":
        return ["delete_subshell_reply", shells.delete(content.subshell_id)];
      case "list_subshell_request":
        return ["list_subshell_reply", shells.list()];
      case "debug_request":
        return ["debug_reply", noDebugger(content)];
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

// Requests that only the control channel carries: they must not wait behind what they are to act on.
const CONTROL_ONLY = new Set([
  "create_subshell_request",
  "delete_subshell_request",
  "list_subshell_request",
  "debug_request",
]);

// The protocol's debugging is that of the Debug Adapter Protocol, whose refusals look like this.
function noDebugger({ seq, command }: Json): Json {
  const message = "This kernel has no debugger (kernel_info says so).";
  const answer = { type: "response", request_seq: seq ?? 0, command: command ?? "", success: false, message };
  return { status: "error", ename: "NotSupported", evalue: message, traceback: [message], seq: 0, ...answer };
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
