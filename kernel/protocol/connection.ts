import { createHash, getHashes, randomBytes, randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";

/** The contents of a Jupyter connection file, checked. */
export interface ConnectionInfo {
  transport: "tcp" | "ipc";
  ip: string;
  shell_port: number;
  control_port: number;
  iopub_port: number;
  stdin_port: number;
  hb_port: number;
  /** HMAC key; empty means that messages are not signed. */
  key: string;
  /** `hmac-` and a digest that Node's crypto knows, `hmac-sha256` by default. */
  signature_scheme: string;
  kernel_name?: string;
}

/** The five channels, named as in the connection file. */
export type ChannelName = "shell" | "control" | "iopub" | "stdin" | "hb";

const CHANNELS: readonly ChannelName[] = ["shell", "control", "iopub", "stdin", "hb"];

/**
 * Reads and checks a connection file.
 *
 * @throws Error naming the file and the field that is wrong.
 */
export function readConnectionFile(path: string): ConnectionInfo {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new Error(`The connection file ${path} cannot be read: ${(error as Error).message}`);
  }
  return checkConnection(parsed, path);
}

/** Checks a parsed connection file; `from` names it in errors. */
export function checkConnection(value: unknown, from = "connection file"): ConnectionInfo {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error(`${from}: expected a JSON object, got ${Array.isArray(value) ? "an array" : typeof value}.`);
  }
  const fields = new Map<string, unknown>(Object.entries(value));
  const transport = fields.get("transport") ?? "tcp";
  if (transport !== "tcp" && transport !== "ipc") {
    throw new Error(`${from}: "transport" must be "tcp" or "ipc", got ${JSON.stringify(transport)}.`);
  }
  const ip = fields.get("ip") ?? "127.0.0.1";
  if (typeof ip !== "string" || ip === "" || /[\s\0]/.test(ip)) {
    throw new Error(`${from}: "ip" must be an address or a path, got ${JSON.stringify(ip)}.`);
  }
  const port = (name: ChannelName): number => {
    const number = fields.get(`${name}_port`);
    if (typeof number !== "number" || !Number.isInteger(number) || number < 1 || number > 65_535) {
      throw new Error(`${from}: "${name}_port" must be an integer from 1 to 65535, got ${JSON.stringify(number)}.`);
    }
    return number;
  };
  const key = fields.get("key") ?? "";
  if (typeof key !== "string") throw new Error(`${from}: "key" must be a string.`);
  const scheme = fields.get("signature_scheme") ?? "hmac-sha256";
  if (typeof scheme !== "string" || !/^hmac-[a-z0-9-]+$/.test(scheme) || !getHashes().includes(scheme.slice(5))) {
    throw new Error(`${from}: "signature_scheme" must be hmac-sha256 or the like, got ${JSON.stringify(scheme)}.`);
  }
  if (key === "" && transport === "tcp" && process.env.TUNEBOOK_ALLOW_UNSIGNED !== "1") {
    throw new Error(
      `${from}: "key" is empty, so anyone who reaches ${ip} could run code here. Give a key, or set TUNEBOOK_ALLOW_UNSIGNED=1.`,
    );
  }
  const name = fields.get("kernel_name");
  return {
    transport,
    ip,
    shell_port: port("shell"),
    control_port: port("control"),
    iopub_port: port("iopub"),
    stdin_port: port("stdin"),
    hb_port: port("hb"),
    key,
    signature_scheme: scheme,
    ...(typeof name === "string" ? { kernel_name: name } : {}),
  };
}

/** The zeromq address of one channel. */
export function address(info: ConnectionInfo, channel: ChannelName): string {
  const port = info[`${channel}_port`];
  return info.transport === "tcp" ? `tcp://${info.ip}:${port}` : `ipc://${info.ip}-${port}`;
}

/** A fresh local connection on five free ports, with a random key. */
export async function newConnection(): Promise<ConnectionInfo> {
  const ports = await freePorts(CHANNELS.length);
  return checkConnection({
    transport: "tcp",
    ip: "127.0.0.1",
    ...Object.fromEntries(CHANNELS.map((name, i) => [`${name}_port`, ports[i]])),
    key: createHash("sha256").update(randomUUID()).update(randomBytes(32)).digest("hex"),
    signature_scheme: "hmac-sha256",
    kernel_name: "tunebook",
  });
}

/** Writes a connection file that only its owner can read; an existing file is an error. */
export function writeConnectionFile(path: string, info: ConnectionInfo): void {
  writeFileSync(path, JSON.stringify(info, null, 2), { mode: 0o600, flag: "wx" });
}

// All are held open together, so that no port is handed out twice.
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once("error", reject);
          server.listen(0, "127.0.0.1", () => {
            const bound = server.address();
            resolve(typeof bound === "object" && bound !== null ? bound.port : 0);
          });
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
