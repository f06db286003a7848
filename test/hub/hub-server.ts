/** A hub on this machine for tests: one repository, and the faults that a real one may have. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What the server holds and how it misbehaves. */
export interface FakeHub {
  files: Map<string, { bytes: Buffer; lfs: boolean }>;
  commit: string;
  /** Requests as "METHOD path [range]". */
  log: string[];
  /** Tokens that came, per request. */
  tokens: (string | undefined)[];
  /** Requests for files are closed after so many bytes, one entry a request; undefined: whole. */
  cuts: (number | undefined)[];
  /** Every answer is this refusal. */
  refusal: { status: number; code?: string } | undefined;
  /** Ranges are not known. */
  noRanges: boolean;
  /** Files are sent from this address instead. */
  redirect: string | undefined;
  /** Bytes that are sent in place of a file's. */
  wrong: Map<string, Buffer>;
  /** Further entries of the listing. */
  extra: object[];
  url: string;
  close(): Promise<void>;
}

/** Starts a hub that holds `files` of "org/small" on a free port of 127.0.0.1. */
export async function startHub(files: Readonly<Record<string, { bytes: Buffer; lfs?: boolean }>>): Promise<FakeHub> {
  const hub: FakeHub = {
    files: new Map(Object.entries(files).map(([name, { bytes, lfs = false }]) => [name, { bytes, lfs }])),
    commit: "0123456789abcdef0123456789abcdef01234567",
    log: [],
    tokens: [],
    cuts: [],
    refusal: undefined,
    noRanges: false,
    redirect: undefined,
    wrong: new Map(),
    extra: [],
    url: "",
    close: async () => {},
  };
  const server: Server = createServer((request, response) => answer(hub, request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  hub.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  hub.close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(() => resolve()));
  };
  return hub;
}

function answer(hub: FakeHub, request: IncomingMessage, response: ServerResponse): void {
  const { pathname } = new URL(request.url!, "http://x");
  hub.log.push(`${request.method} ${pathname}${request.headers.range ? ` ${request.headers.range}` : ""}`);
  hub.tokens.push(request.headers.authorization);
  if (hub.refusal) {
    response.writeHead(hub.refusal.status, hub.refusal.code ? { "X-Error-Code": hub.refusal.code } : {});
    return void response.end("no");
  }
  const info = /^\/api\/(models|datasets)\/org\/small\/(revision|tree)\//.exec(pathname)?.[2];
  if (info !== undefined) {
    const value = info === "tree" ? [...listing(hub), ...hub.extra] : { _id: "1", id: "org/small", sha: hub.commit };
    response.writeHead(200, { "Content-Type": "application/json" });
    return void response.end(JSON.stringify(value));
  }
  const path = /\/org\/small\/resolve\/[0-9a-f]{40}\/(.+)$/.exec(pathname)?.[1];
  const file = path === undefined ? undefined : hub.files.get(decodeURIComponent(path));
  if (file === undefined) {
    response.writeHead(404, { "X-Error-Code": "RepoNotFound" });
    return void response.end();
  }
  if (hub.redirect) {
    response.writeHead(302, { Location: hub.redirect + pathname });
    return void response.end();
  }
  sendFile(hub, hub.wrong.get(path!) ?? file.bytes, request, response);
}

function listing(hub: FakeHub): object[] {
  return [...hub.files].map(([path, { bytes, lfs }]) => {
    const oid = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
    const sha = createHash("sha256").update(bytes).digest("hex");
    const large = lfs ? { lfs: { oid: sha, size: bytes.length, pointerSize: 130 } } : {};
    return { type: "file", path, size: bytes.length, oid, ...large };
  });
}

function sendFile(hub: FakeHub, bytes: Buffer, request: IncomingMessage, response: ServerResponse): void {
  const begin = hub.noRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const rest = bytes.subarray(begin);
  const range = begin > 0 ? { "Content-Range": `bytes ${begin}-${bytes.length - 1}/${bytes.length}` } : {};
  response.writeHead(begin > 0 ? 206 : 200, { "Content-Length": rest.length, ...range });
  const cut = hub.cuts.shift();
  if (cut === undefined) return void response.end(rest);
  response.write(rest.subarray(0, cut), () => setTimeout(() => response.destroy(), 20));
}
