import { launch } from "./protocol/launch.js";
import type { Json, Message } from "./protocol/message.js";

/** What an IOPub message has for the one who records it. */
export type Published = Pick<Message, "parent" | "content"> & { header: Pick<Message["header"], "msg_type"> };

export interface ExecuteOptions {
  /** Runs without leaving a trace in the history. */
  silent?: boolean;
  /** Called with the message id before anything can have come back. */
  onSent?: (id: string) => void;
}

/** A kernel that a notebook is run on, here or behind a server. */
export interface RunKernel {
  /** Content of the kernel's `kernel_info_reply`. */
  info(): Promise<Json>;
  /** Executes code; resolves with the content of the reply when all of its output has come. */
  execute(code: string, options?: ExecuteOptions): Promise<Json>;
  /** Calls back with everything that the kernel publishes. */
  listen(listener: (message: Published) => void): void;
  /** Asks the kernel to stop what it runs; resolves when it was asked. */
  interrupt(): Promise<void>;
  /** Ends the kernel. */
  stop(): Promise<void>;
}

/** Starts a kernel of this package in a folder. */
export async function localKernel(cwd: string): Promise<RunKernel> {
  const { client, stop } = await launch({ cwd, log: "inherit" });
  return {
    info: async () => (await client.request("shell", "kernel_info_request", {}, { timeoutMs: 20_000 })).reply.content,
    execute: async (code, { silent = false, onSent } = {}) => {
      const answer = await client.execute(code, onSent === undefined ? {} : { onSent }, { silent });
      return answer.reply.content;
    },
    listen: (listener) => void client.on("iopub", listener),
    interrupt: async () => {
      await client.request("control", "interrupt_request").catch(() => {});
    },
    stop,
  };
}
