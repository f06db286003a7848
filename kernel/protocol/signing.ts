import { createHmac, timingSafeEqual } from "node:crypto";

const REMEMBERED = 1 << 18;
// So much of a digest tells messages apart; a set of this size stays at some 15 MB.
const REMEMBERED_BYTES = 16;

/** A set that forgets its oldest tenth when it is full. */
class Seen {
  readonly #size: number;
  readonly #keys = new Set<string>();

  constructor(size: number) {
    this.#size = size;
  }

  /** @returns whether the key is new. */
  add(key: string): boolean {
    if (this.#keys.has(key)) return false;
    this.#keys.add(key);
    if (this.#keys.size <= this.#size) return true;
    let excess = this.#size / 10;
    for (const old of this.#keys) {
      if (excess-- <= 0) break;
      this.#keys.delete(old);
    }
    return true;
  }
}

/**
 * Signs and verifies messages by HMAC over the raw frames (header, parent header, metadata, content).
 * A message is accepted once: a replayed one is refused. An empty key turns signing off; replays are still found.
 */
export class Signer {
  readonly #key: string;
  readonly #algorithm: string;
  // Recorded only after verification, so that strangers cannot push real digests out.
  readonly #seen = new Seen(REMEMBERED);

  constructor(key: string, scheme = "hmac-sha256") {
    this.#key = key;
    this.#algorithm = scheme.slice("hmac-".length);
  }

  /** The signature in lower-case hex, "" without a key. */
  sign(frames: readonly Uint8Array[]): string {
    return this.#key === "" ? "" : this.#digest(frames).toString("hex");
  }

  /** Whether `signature` fits the frames as they were received, and was not seen before. */
  verify(signature: Uint8Array, frames: readonly Uint8Array[]): "ok" | "wrong" | "replayed" {
    if (this.#key === "") return this.#once(this.#digest(frames));
    const text = Buffer.from(signature).toString("latin1");
    const expected = this.#digest(frames);
    const given = /^[0-9a-f]+$/.test(text) ? Buffer.from(text, "hex") : Buffer.alloc(0);
    // The lengths are public; the bytes are compared in constant time.
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return "wrong";
    return this.#once(expected);
  }

  #once(digest: Buffer): "ok" | "replayed" {
    return this.#seen.add(digest.toString("latin1", 0, REMEMBERED_BYTES)) ? "ok" : "replayed";
  }

  #digest(frames: readonly Uint8Array[]): Buffer {
    const hmac = createHmac(this.#algorithm, this.#key);
    for (const frame of frames) hmac.update(frame);
    return hmac.digest();
  }
}
