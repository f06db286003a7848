import { stripVTControlCharacters } from "node:util";
import type { Json } from "./protocol/message.js";
import type { Published } from "./run-kernel.js";

const MIN_REDRAW_MS = 100;
const QUIET_MS = 10_000;
const MAX_TITLE = 60;

/** Progress of a running notebook: a live line on a terminal, lines at start and end elsewhere. */
export class RunProgress {
  readonly #stream: NodeJS.WriteStream | undefined;
  readonly #live: boolean;
  #title = "";
  #started = 0;
  #latest = "";
  #drawn = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(stream: NodeJS.WriteStream | undefined) {
    this.#stream = stream;
    this.#live = stream?.isTTY === true;
  }

  start(index: number, total: number, source: string): void {
    const first = source.split("\n").find((line) => line.trim() !== "" && !/^\s*(\/\/|\/\*|import\b)/.test(line));
    const title = (first ?? source.split("\n")[0] ?? "").trim();
    this.#title = `[${index}/${total}] ${title.length > MAX_TITLE ? `${title.slice(0, MAX_TITLE - 1)}…` : title}`;
    this.#started = Date.now();
    this.#latest = "";
    this.#timer = setInterval(() => this.#tick(), this.#live ? 1_000 : QUIET_MS);
    this.#draw();
  }

  /** Keeps the last line of what a cell prints, and the text of its progress displays. */
  show(message: Published): void {
    const text = textOf(message);
    if (text === undefined) return;
    const line = stripVTControlCharacters(text)
      .split(/[\r\n]/)
      .findLast((one) => one.trim() !== "");
    if (line === undefined) return;
    this.#latest = line.trim();
    if (Date.now() - this.#drawn >= MIN_REDRAW_MS) this.#draw();
  }

  end(failed: boolean): void {
    clearInterval(this.#timer);
    this.#line(`${this.#title}  ${failed ? "FAILED after " : ""}${seconds(this.#started)} s`, true);
  }

  note(text: string): void {
    this.#line(text, true);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  // Where lines cannot be drawn over, a long cell still says from time to time how far it is.
  #tick(): void {
    if (this.#live) this.#draw();
    else if (this.#latest !== "") this.#line(`  ${seconds(this.#started)} s | ${this.#latest}`, true);
  }

  #draw(): void {
    if (!this.#live) return;
    this.#drawn = Date.now();
    const latest = this.#latest === "" ? "" : ` | ${this.#latest}`;
    this.#line(`${this.#title}  ${seconds(this.#started)} s${latest}`, false);
  }

  #line(text: string, last: boolean): void {
    const stream = this.#stream;
    if (stream === undefined) return;
    if (!this.#live) {
      if (last) stream.write(`${text.slice(0, 160)}\n`);
      return;
    }
    const width = (stream.columns ?? 80) - 1;
    const shown = text.length > width ? `${text.slice(0, width - 1)}…` : text;
    stream.write(`\r\x1b[2K${shown}${last ? "\n" : ""}`);
  }
}

function textOf({ header, content }: Published): string | undefined {
  if (header.msg_type === "stream") return String(content.text);
  if (header.msg_type !== "display_data" && header.msg_type !== "update_display_data") return undefined;
  const plain = (content.data as Json | undefined)?.["text/plain"];
  return typeof plain === "string" ? plain : undefined;
}

function seconds(since: number): string {
  return ((Date.now() - since) / 1_000).toFixed(1);
}
