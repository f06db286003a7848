import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { KernelClient, within } from "./client.js";
import { type ConnectionInfo, newConnection, writeConnectionFile } from "./connection.js";

export interface LaunchOptions {
  /** The notebook's folder; the kernel starts there. */
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** What becomes of the kernel's own log; default "ignore". */
  log?: "inherit" | "ignore";
}

/** A kernel process with a client that is connected to it. */
export interface Launched {
  client: KernelClient;
  process: ChildProcess;
  connection: ConnectionInfo;
  /** Asks the kernel to end, and ends it if it does not. */
  stop(): Promise<void>;
}

/** Starts a kernel of this package and connects to it. */
export async function launch(options: LaunchOptions = {}): Promise<Launched> {
  const connection = await newConnection();
  const folder = mkdtempSync(join(tmpdir(), "tunebook-"));
  const file = join(folder, "connection.json");
  writeConnectionFile(file, connection);
  const main = fileURLToPath(new URL("../main.js", import.meta.url));
  const child = spawn(process.execPath, [main, file], {
    cwd: options.cwd ?? process.cwd(),
    // What a program runs is not what its user has typed.
    env: { TUNEBOOK_HISTORY: "off", ...(options.env ?? process.env), JPY_PARENT_PID: String(process.pid) },
    stdio: ["ignore", "ignore", options.log ?? "ignore"],
  });
  const client = new KernelClient(connection, randomUUID());
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const failed = new Promise<never>((_, reject) => {
    child.once("error", (error) => reject(new Error(`The kernel could not be started: ${error.message}`)));
    child.once("exit", (code, signal) => {
      const error = new Error(`The kernel has ended (${signal ?? `exit code ${code}`}).`);
      client.fail(error);
      reject(error);
    });
  });
  failed.catch(() => {});
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      client.request("control", "shutdown_request", { restart: false }).catch(() => {});
      await within(exited, 5_000, "the kernel's end").catch(async () => {
        child.kill("SIGKILL");
        await exited;
      });
    }
    client.close();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await Promise.race([client.connect(), failed]);
  } catch (error) {
    await stop();
    throw error;
  }
  return { client, process: child, connection, stop };
}
