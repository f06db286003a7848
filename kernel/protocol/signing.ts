import { createHmac, timingSafeEqual } from "node:crypto";

const REMEMBERED = 1 << 16;

/**
 * Signs and verifies messages by HMAC over the raw frames (header, parent header, metadata, content).
 * A signature is accepted once: a replayed message is refused. An empty key turns both off.
 */
export class Signer {
  readonly #key: string;
  readonly #algorithm: string;
  readonly #seen = new Set<string>();

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
    if (this.#key === "") return "ok";
    const text = Buffer.from(signature).toString("latin1");
    const expected = this.#digest(frames);
    const given = /^[0-9a-fA-F]+$/.test(text) ? Buffer.from(text, "hex") : Buffer.alloc(0);
    // The lengths are public; the bytes are compared in constant time.
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return "wrong";
    const digest = expected.toString("latin1");
    if (this.#seen.has(digest)) return "replayed";
    this.#remember(digest);
    return "ok";
  }

  #digest(frames: readonly Uint8Array[]): Buffer {
    const hmac = createHmac(this.#algorithm, this.#key);
    for (const frame of frames) hmac.update(frame);
    return hmac.digest();
  }

  // Recorded only after verification, so that strangers cannot push real digests out.
  #remember(digest: string): void {
    this.#seen.add(digest);
    if (this.#seen.size <= REMEMBERED) return;
    let excess = REMEMBERED / 10;
    for (const old of this.#seen) {
      if (excess-- <= 0) break;
      this.#seen.delete(old);
    }
  }
}
