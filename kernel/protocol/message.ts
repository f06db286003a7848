import { randomUUID } from "node:crypto";
import type { Signer } from "./signing.js";

/** Version of the messaging protocol that is spoken. */
export const PROTOCOL_VERSION = "5.5";

/** Header of a message; see "Message header" of the Jupyter messaging protocol. */
export interface Header {
  msg_id: string;
  session: string;
  username: string;
  date: string;
  msg_type: string;
  version: string;
  /** The subshell that a request on shell goes to; absent: the main shell. */
  subshell_id?: string;
}

/** A JSON object from outside or on its way there. */
export type Json = { [key: string]: unknown };

/** A message as received, verified and parsed. */
export interface Message {
  /** Routing frames before the delimiter. */
  identities: Uint8Array[];
  header: Header;
  /** The header's bytes as received: they become the parent header of every answer. */
  rawHeader: Uint8Array;
  parent: Json;
  metadata: Json;
  content: Json;
  buffers: Uint8Array[];
}

/** What is needed to send a message. */
export interface Outgoing {
  /** Id of the message; a new one by default. */
  id?: string;
  /** The subshell that it is for. */
  subshell?: string;
  type: string;
  content: Json;
  session: string;
  identities?: readonly Uint8Array[];
  /** Raw header of the request that this answers; absent: `{}`. */
  parent?: Uint8Array | undefined;
  metadata?: Json;
  buffers?: readonly Uint8Array[];
}

const DELIMITER = Buffer.from("<IDS|MSG>");
const EMPTY_OBJECT = Buffer.from("{}");
const MAX_FRAMES = 4_096;
const MAX_JSON_BYTES = 512 * 2 ** 20;
const MAX_NAME = 4_096;

/** Why a message was dropped: it goes to the log, never to the sender. */
export class BadMessage extends Error {}

/** The signed frames of a message. */
export function encode(message: Outgoing, signer: Signer): Uint8Array[] {
  const header: Header = {
    msg_id: message.id ?? randomUUID(),
    session: message.session,
    username: "tunebook",
    date: new Date().toISOString(),
    msg_type: message.type,
    version: PROTOCOL_VERSION,
    ...(message.subshell === undefined ? {} : { subshell_id: message.subshell }),
  };
  const parts = [
    Buffer.from(JSON.stringify(header)),
    message.parent ?? EMPTY_OBJECT,
    message.metadata === undefined ? EMPTY_OBJECT : Buffer.from(JSON.stringify(message.metadata)),
    Buffer.from(JSON.stringify(message.content)),
  ];
  const signature = Buffer.from(signer.sign(parts));
  return [...(message.identities ?? []), DELIMITER, signature, ...parts, ...(message.buffers ?? [])];
}

/**
 * Verifies the signature over the raw frames, and only then parses them.
 *
 * @throws BadMessage with the reason.
 */
export function decode(frames: readonly Uint8Array[], signer: Signer): Message {
  if (frames.length > MAX_FRAMES) throw new BadMessage(`${frames.length} frames; at most ${MAX_FRAMES} are taken`);
  const at = frames.findIndex((frame) => DELIMITER.equals(frame));
  if (at < 0) throw new BadMessage("no <IDS|MSG> delimiter");
  const [signature, header, parent, metadata, content] = frames.slice(at + 1, at + 6);
  if (!signature || !header || !parent || !metadata || !content) throw new BadMessage("fewer than six frames");
  const signed = [header, parent, metadata, content];
  if (signed.reduce((sum, frame) => sum + frame.byteLength, 0) > MAX_JSON_BYTES) throw new BadMessage("too large");
  const verdict = signer.verify(signature, signed);
  if (verdict !== "ok") throw new BadMessage(`${verdict} signature`);
  const parsed = parseObject(header, "header");
  return {
    identities: frames.slice(0, at),
    header: {
      msg_id: name(parsed, "msg_id"),
      msg_type: name(parsed, "msg_type"),
      session: typeof parsed.session === "string" ? parsed.session : "",
      username: typeof parsed.username === "string" ? parsed.username : "",
      date: typeof parsed.date === "string" ? parsed.date : "",
      version: typeof parsed.version === "string" ? parsed.version : "",
      ...(typeof parsed.subshell_id === "string" ? { subshell_id: parsed.subshell_id } : {}),
    },
    // zeromq reuses no memory here, but a copy lets go of the rest of a large message.
    rawHeader: Uint8Array.from(header),
    parent: parseObject(parent, "parent header"),
    metadata: parseObject(metadata, "metadata"),
    content: parseObject(content, "content"),
    buffers: frames.slice(at + 6),
  };
}

function parseObject(frame: Uint8Array, what: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength).toString("utf8"));
  } catch {
    throw new BadMessage(`the ${what} is no JSON`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new BadMessage(`the ${what} is no JSON object`);
  }
  return value as Json;
}

function name(header: Json, key: string): string {
  const value = Object.hasOwn(header, key) ? header[key] : undefined;
  if (typeof value !== "string" || value === "" || value.length > MAX_NAME) throw new BadMessage(`the header's ${key}`);
  return value;
}
