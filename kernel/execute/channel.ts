import { deserialize, serialize } from "node:v8";

/** A MIME bundle: text, or JSON for types that end in `json`; binary data is base64 text. */
export type MimeBundle = { [mime: string]: unknown };

/** An error as the executor reports it, already in the cell's own lines. */
export interface ErrorReport {
  ename: string;
  evalue: string;
  traceback: string[];
}

/** Exit code of an executor whose device is lost (see `endsProcess`). */
export const DEVICE_LOST = 87;

/** How a cell ended. */
export type Outcome =
  | { status: "ok"; result?: { data: MimeBundle; metadata: MimeBundle } }
  | { status: "error"; error: ErrorReport; interrupted?: boolean /** The executor ends with it. */; last?: boolean };

/** A message of a comm, from either side. Buffers travel as raw frames. */
export interface CommEvent {
  action: "open" | "msg" | "close";
  /** The comm's id. */
  comm: string;
  /** The target's name, with "open". */
  target?: string;
  data: { [key: string]: unknown };
  metadata: { [key: string]: unknown };
  buffers: Uint8Array[];
}

/** Kernel process → executor. */
export type Command =
  | { type: "run"; cell: string; js: string; map: string; source: string; quiet: boolean; allowStdin: boolean }
  | { type: "comm"; cell: string; event: CommEvent }
  /** `meant`: what ran when it was sent; nothing stands for what goes on beside cells. */
  | { type: "interrupt"; meant: string[] }
  | { type: "transpiled"; id: number; js?: string; map?: string; error?: string }
  | { type: "compiled"; id: number; js?: string; map?: string; error?: ErrorReport }
  | { type: "input"; id: number; value?: string; refused?: "end of input" | "nobody" };

/** Executor → kernel process. */
export type Report =
  | { type: "ready" }
  | { type: "stream"; cell: string; name: "stdout" | "stderr"; text: string }
  | { type: "display"; cell: string; data: MimeBundle; metadata: MimeBundle; id?: string; update: boolean }
  | { type: "page"; cell: string; data: MimeBundle }
  | { type: "clear"; cell: string; wait: boolean }
  | { type: "comm"; cell?: string; event: CommEvent }
  | { type: "done"; cell: string; outcome: Outcome }
  | { type: "transpile"; id: number; file: string; text: string }
  /** Code of a file that a cell runs: compiled as a cell of the notebook. */
  | { type: "compile"; id: number; cell: string; code: string; folder: string }
  /** Packages may have been added or replaced. */
  | { type: "packages" }
  | { type: "input"; id: number; cell: string; prompt: string; password: boolean };

/** The executor's end of the channel: the file descriptor after stdin, stdout and stderr. */
export const CHANNEL_FD = 3;

const HEADER_BYTES = 4;

/** One frame: its length in 4 bytes, then the values in V8's serialisation. */
export function frame(values: readonly unknown[]): Buffer {
  const body = serialize(values);
  const whole = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  whole.writeUInt32LE(body.length, 0);
  body.copy(whole, HEADER_BYTES);
  return whole;
}

/** Puts frames together again from the pieces that a socket delivers. */
export class FrameReader<T> {
  #pieces: Buffer[] = [];
  #bytes = 0;
  #wanted = HEADER_BYTES;

  /** Takes a piece and returns the values of every frame that it completes. */
  push(piece: Buffer): T[] {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    const values: T[] = [];
    while (this.#bytes >= this.#wanted) {
      const all = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
      this.#pieces = [all];
      const length = all.readUInt32LE(0);
      this.#wanted = HEADER_BYTES + length;
      if (all.length < this.#wanted) break;
      for (const value of deserialize(all.subarray(HEADER_BYTES, this.#wanted)) as T[]) values.push(value);
      this.#pieces = [all.subarray(this.#wanted)];
      this.#bytes = all.length - this.#wanted;
      this.#wanted = HEADER_BYTES;
    }
    return values;
  }
}
