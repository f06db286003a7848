import type { StreamDecoder } from "../hub/stream-decoder.js";
import type { SamplingOptions } from "./generate.js";

/** Where generation ends: at ids, or at strings. */
export interface Stops {
  ids: ReadonlySet<number>;
  strings: readonly string[];
}

/** The user's `stop` together with the ids that end a text anyway. */
export function stopsOf(stop: SamplingOptions["stop"], ids: readonly number[]): Stops {
  const given = stop === undefined ? [] : Array.isArray(stop) ? (stop as readonly (string | number)[]) : [stop];
  return {
    ids: new Set([...ids, ...given.filter((s) => typeof s === "number")]),
    strings: given.filter((s): s is string => typeof s === "string" && s !== ""),
  };
}

/** Text from ids up to the first stop string; what could be the beginning of one is held back until the next id decides. */
export class StopText {
  /** Whether a stop string was reached. */
  ended = false;
  readonly #decoder: StreamDecoder;
  readonly #stops: readonly string[];
  #pending = "";

  constructor(decoder: StreamDecoder, stops: readonly string[]) {
    this.#decoder = decoder;
    this.#stops = stops;
  }

  /** Takes the next id; gives the text that is certain now. */
  push(id: number): string {
    return this.#take(this.#decoder.push(id));
  }

  /** The rest, once no id follows. */
  end(): string {
    if (this.ended) return "";
    const text = this.#take(this.#decoder.end());
    return this.ended ? text : text + this.#pending;
  }

  #take(text: string): string {
    this.#pending += text;
    const at = firstOf(this.#pending, this.#stops);
    if (at >= 0) {
      this.ended = true;
      return this.#pending.slice(0, at);
    }
    const hold = Math.max(0, ...this.#stops.map((s) => overlap(this.#pending, s)));
    const ready = this.#pending.slice(0, this.#pending.length - hold);
    this.#pending = this.#pending.slice(ready.length);
    return ready;
  }
}

/** A text up to the first of the strings. */
export function cutAt(text: string, stops: readonly string[]): string {
  const at = firstOf(text, stops);
  return at < 0 ? text : text.slice(0, at);
}

function firstOf(text: string, strings: readonly string[]): number {
  const found = strings.map((s) => text.indexOf(s)).filter((i) => i >= 0);
  return found.length > 0 ? Math.min(...found) : -1;
}

/** Length of the longest end of `text` that begins `stop`. */
function overlap(text: string, stop: string): number {
  for (let n = Math.min(text.length, stop.length - 1); n > 0; n--) if (text.endsWith(stop.slice(0, n))) return n;
  return 0;
}
