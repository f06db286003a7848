// One kernel process under measurement, through the same zeromq client for all of them. It asks nothing of a kernel beyond the protocol:
// what never comes (an idle status, a reply) ends by a time limit and is told as such.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { KernelClient } from "../../dist/kernel/protocol/client.js";
import { newConnection, writeConnectionFile } from "../../dist/kernel/protocol/connection.js";

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Probe {
  /** @param {{ argv(file: string): string[], interrupt: "message" | "signal", cwd?: string, env?: object }} kernel */
  static async start(kernel) {
    const probe = new Probe();
    probe.kernel = kernel;
    probe.folder = mkdtempSync(join(tmpdir(), "tunebook-bench-"));
    const connection = await newConnection();
    const file = join(probe.folder, "connection.json");
    writeConnectionFile(file, connection);
    const [program, ...args] = kernel.argv(file);
    probe.began = performance.now();
    probe.child = spawn(program, args, {
      cwd: kernel.cwd ?? probe.folder,
      stdio: "ignore",
      env: { ...process.env, ...kernel.env },
    });
    probe.exited = new Promise((resolve) => probe.child.once("exit", resolve));
    // zeromq itself would only try again every 100 ms.
    for (const port of [connection.shell_port, connection.iopub_port]) await accepts(port, 20_000);
    probe.client = new KernelClient(connection, randomUUID());
    // Not every kernel greets on IOPub.
    probe.client.connect(20_000).catch(() => {});
    return probe;
  }

  /** Milliseconds from the spawn to the first kernel_info_reply; then waits until IOPub is heard too. */
  async info() {
    const first = await this.ask("kernel_info_request", {}, { idle: false });
    const took = first.at - this.began;
    for (let tries = 0; tries < 100; tries++) {
      if ((await this.ask("kernel_info_request", {}, { limit: 200 })).idle) break;
    }
    return took;
  }

  /**
   * Sends a request and waits for its reply and its idle status.
   * @returns {Promise<{ reply?: object, idle: boolean, at: number, ms: number, iopub: object[] }>} `at`: when the reply came
   */
  ask(type, content, { channel = "shell", idle = true, limit = 20_000, onSent } = {}) {
    return new Promise((resolve) => {
      const found = { reply: undefined, idle: false, at: NaN, ms: NaN, iopub: [] };
      const began = performance.now();
      let id;
      const done = () => {
        clearTimeout(timer);
        this.client.off("reply", onReply);
        this.client.off("iopub", onIopub);
        found.ms = performance.now() - began;
        resolve(found);
      };
      const finished = () => found.reply !== undefined && (found.idle || !idle) && done();
      const onReply = (message) => {
        if (message.parent.msg_id !== id || !message.header.msg_type.endsWith("_reply")) return;
        found.reply = message.content;
        found.at = performance.now();
        finished();
      };
      const onIopub = (message) => {
        if (message.parent.msg_id !== id) return;
        found.iopub.push(message);
        if (message.header.msg_type === "status" && message.content.execution_state === "idle") {
          found.idle = true;
          finished();
        }
      };
      const timer = setTimeout(done, limit);
      this.client.on("reply", onReply);
      this.client.on("iopub", onIopub);
      this.client.request(channel, type, content, { onSent: (sent) => (id = sent) }).catch(() => {});
      onSent?.(id);
    });
  }

  run(code, options) {
    const content = { code, silent: false, store_history: true, user_expressions: {}, allow_stdin: false };
    return this.ask("execute_request", { ...content, stop_on_error: true }, options);
  }

  /** Asks as this kernel's kernelspec says. */
  interrupt() {
    if (this.kernel.interrupt === "signal") this.child.kill("SIGINT");
    else void this.ask("interrupt_request", {}, { channel: "control", idle: false });
  }

  get alive() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Bytes that the kernel's processes have for themselves, shared pages divided by their users. */
  memory() {
    const parents = new Map();
    for (const name of readdirSync("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      const stat = attempt(() => readFileSync(`/proc/${name}/stat`, "utf8"));
      if (stat) parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    }
    const tree = new Set([this.child.pid]);
    for (let before = 0; before !== tree.size; ) {
      before = tree.size;
      for (const [pid, parent] of parents) if (tree.has(parent)) tree.add(pid);
    }
    let kib = 0;
    for (const pid of tree) {
      const rollup = attempt(() => readFileSync(`/proc/${pid}/smaps_rollup`, "utf8")) ?? "";
      kib += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0);
    }
    return kib * 1024;
  }

  async stop() {
    if (this.alive) {
      void this.ask("shutdown_request", { restart: false }, { channel: "control", idle: false, limit: 1_000 });
      await Promise.race([this.exited, sleep(1_500)]);
      if (this.alive) this.child.kill("SIGKILL");
      await this.exited;
    }
    this.client?.close();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

function attempt(body) {
  try {
    return body();
  } catch {
    return undefined; // the process has just ended
  }
}

async function accepts(port, limit) {
  const until = performance.now() + limit;
  while (performance.now() < until) {
    const open = await new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
    if (open) return;
    await sleep(2);
  }
  throw new Error(`nothing listens on port ${port} after ${limit / 1000} s`);
}
