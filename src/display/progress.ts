/** Progress bars: one display that updates itself in notebooks, one live line on terminals, now and then a line in pipes. */
import { formatDuration, formatNumber, formatPercent, oneLine } from "./format.js";
import { type MimeBundle, newDisplayId, type Publisher, publisher, throwIfInterrupted } from "./host.js";
import { el, type Style } from "./html.js";

/** Things shown beside the bar, such as `{ loss: 2.31 }`. */
export type ProgressExtra = Readonly<Record<string, string | number>>;

export interface ProgressOptions {
  label?: string;
  /** How much there is to do; without it the bar shows counts and rates alone. */
  total?: number | undefined;
  /** What is counted: `"steps"`. Default `"it"`. */
  unit?: string;
  /** How amounts are written, e.g. `formatBytes`. */
  format?: (amount: number) => string;
  /** Default: the kernel's cell, or standard error. */
  stream?: { write(text: string): unknown; isTTY?: boolean; columns?: number };
  /** A cell token taken earlier, where the bar is not made in the cell it belongs to. */
  cell?: unknown;
  /** A clock in milliseconds, for tests. */
  now?: () => number;
}

type State = "running" | "finished" | "failed";

const notebookInterval = 100; // ms: front ends lose messages beyond a rate, 10 a second are safe
const terminalInterval = 100;
const pipeInterval = 5000;
const smoothing = 15_000; // ms over which the rate is averaged

/** A progress bar under the caller's control; {@link progress} is the short way. */
export class ProgressBar {
  readonly label: string;
  total: number | undefined;
  #done = 0;
  #extra: ProgressExtra = {};
  #state: State = "running";
  #note: string | undefined;
  #rate = 0; // per second
  #weight = 0;
  #lastTime: number;
  #lastShown = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #published = false;
  readonly #start: number;
  readonly #unit: string;
  readonly #format: (amount: number) => string;
  readonly #host: Publisher | undefined;
  readonly #cell: unknown;
  readonly #id: string = newDisplayId();
  readonly #stream: NonNullable<ProgressOptions["stream"]>;
  readonly #now: () => number;

  constructor(options: ProgressOptions = {}) {
    this.label = options.label ?? "";
    this.total = options.total;
    this.#unit = options.unit ?? "it";
    this.#format = options.format ?? formatNumber;
    this.#now = options.now ?? (() => performance.now());
    this.#stream = options.stream ?? process.stderr;
    this.#host = options.stream ? undefined : publisher();
    this.#cell = options.cell ?? this.#host?.cell();
    this.#start = this.#lastTime = this.#now();
    // In a pipe the first line comes only when the work turns out to take a while.
    if (!this.#host && !this.#stream.isTTY) this.#lastShown = this.#start;
    else this.#show();
  }

  /** How much is done. */
  get done(): number {
    return this.#done;
  }

  /** Seconds since the bar was made. */
  get elapsed(): number {
    return (this.#now() - this.#start) / 1000;
  }

  /** Amount a second, averaged over about the last 15 seconds. */
  get rate(): number {
    return this.#weight > 0 ? this.#rate / this.#weight : 0;
  }

  /** Sets how much is done; shown at once or, when the last picture is younger than 100 ms, a moment later. */
  update(done: number, extra?: ProgressExtra): void {
    if (this.#state !== "running") return;
    this.#advance(done);
    if (extra) this.#extra = { ...this.#extra, ...extra };
    const wait = this.#lastShown + this.#interval - this.#now();
    if (wait <= 0) this.#show();
    else if (this.#host && !this.#timer) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        if (this.#state === "running") this.#show();
      }, wait);
      this.#timer.unref();
    }
  }

  /** Ends the bar as done; with no text it says how long it took. */
  finish(text?: string): void {
    this.#end("finished", text);
  }

  /** Ends the bar as failed. */
  fail(text: string): void {
    this.#end("failed", text);
  }

  #end(state: State, note: string | undefined): void {
    if (this.#state !== "running") return;
    this.#state = state;
    this.#note = note;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#show();
  }

  get #interval(): number {
    if (this.#host) return notebookInterval;
    return this.#stream.isTTY ? terminalInterval : pipeInterval;
  }

  #advance(done: number): void {
    const now = this.#now();
    const passed = now - this.#lastTime;
    if (passed > 0 && done > this.#done) {
      const keep = Math.exp(-passed / smoothing);
      this.#rate = this.#rate * keep + ((done - this.#done) / passed) * 1000 * (1 - keep);
      this.#weight = this.#weight * keep + (1 - keep);
      this.#lastTime = now;
    }
    this.#done = done;
  }

  get #share(): number | undefined {
    const total = this.total;
    return total !== undefined && total > 0 ? Math.min(1, Math.max(0, this.#done / total)) : undefined;
  }

  /** All but the bar itself, in order: `120/1,000 · 12% · 3.4 it/s · 35.0 s · 4 min 18 s left · loss 2.31`. */
  #parts(): string[] {
    const share = this.#share;
    const total = this.total === undefined ? "" : `/${this.#format(this.total)}`;
    const unit = this.#unit === "" ? "" : ` ${this.#unit}`;
    const parts = [`${this.#format(this.#done)}${total}${unit}`];
    if (share !== undefined) parts.push(formatPercent(share, 0));
    const running = this.#state === "running";
    const rate = running ? this.rate : this.#done / this.elapsed;
    // Below a millisecond, a rate says more about the clock than about the work.
    if (this.#done > 0 && rate > 0 && this.elapsed > 0.001) {
      const slow = rate < 0.995 && this.#format === formatNumber;
      const amount = slow ? formatNumber(1 / rate, 3) : this.#format(rate < 100 ? round3(rate) : Math.round(rate));
      // "3.4 steps/s", but "2.1 s/step".
      parts.push(slow ? `${amount} s/${this.#unit.replace(/s$/, "")}` : `${amount}${unit}/s`);
    }
    parts.push(formatDuration(this.elapsed));
    if (running && share !== undefined && this.rate > 0 && share < 1) {
      const since = (this.#now() - this.#lastTime) / 1000;
      const left = ((this.total ?? 0) - this.#done) / this.rate - since;
      parts.push(`${formatDuration(Math.max(0, left))} left`);
    }
    for (const [name, value] of Object.entries(this.#extra)) {
      parts.push(`${name} ${typeof value === "number" ? formatNumber(value) : value}`);
    }
    if (this.#note !== undefined) parts.push(this.#note);
    return parts.map(oneLine);
  }

  /** The bar as one line of text. */
  toText(width = 24): string {
    const share = this.#share ?? (this.#state === "finished" ? 1 : undefined);
    const bar = share === undefined ? "" : textBar(share, width);
    const sign = this.#state === "failed" ? "✗ " : "";
    const label = this.label === "" ? "" : `${oneLine(this.label)} `;
    return `${sign}${label}${bar === "" ? "" : `${bar} `}${this.#parts().join(" · ")}`;
  }

  #bundle(): MimeBundle {
    const share = this.#share ?? (this.#state === "finished" ? 1 : 0);
    const color = { running: "#3b82c4", finished: "#2f9e63", failed: "#d1495b" }[this.#state];
    const fill: Style = {
      width: `${(share * 100).toFixed(1)}%`,
      height: "100%",
      background: color,
      borderRadius: "3px",
    };
    const html = el(
      "div",
      { style: { display: "flex", gap: "10px", padding: "2px 0", fontVariantNumeric: "tabular-nums" } },
      this.label === ""
        ? null
        : el("span", { style: { fontWeight: "600", whiteSpace: "nowrap" } }, oneLine(this.label)),
      el(
        "div",
        { style: { ...trackStyle, display: this.total === undefined ? "none" : "block" } },
        el("div", { style: fill }),
      ),
      el("span", {}, this.#parts().join(" · ")),
    );
    return { "text/html": html.toString(), "text/plain": this.toText() };
  }

  #show(): void {
    this.#lastShown = this.#now();
    if (this.#host) {
      this.#host.publish(this.#bundle(), { id: this.#id, update: this.#published, cell: this.#cell });
    } else if (this.#stream.isTTY) {
      const end = this.#state === "running" ? "" : "\n";
      // A line that wraps could not be taken back by the next one.
      const text = Array.from(this.toText()).slice(0, (this.#stream.columns ?? 100) - 1);
      this.#stream.write(`\r\u001b[2K${text.join("")}${end}`);
    } else {
      this.#stream.write(`${this.toText()}\n`);
    }
    this.#published = true;
  }
}

const trackStyle: Style = {
  flex: "0 0 180px",
  height: "8px",
  margin: "6px 0 0 0",
  background: "rgba(128,128,128,0.25)",
  borderRadius: "3px",
  overflow: "hidden",
};

const round3 = (value: number): number => Number(value.toPrecision(3));

function textBar(share: number, width: number): string {
  const eighths = Math.round(share * width * 8);
  const full = eighths >> 3;
  const part = " ▏▎▍▌▋▊▉"[eighths & 7]!;
  return `│${("█".repeat(full) + (full < width ? part : "")).padEnd(width)}│`;
}

/**
 * Goes through an iterable with a progress bar. Stops with an InterruptedError when the cell is interrupted.
 *
 * @example
 * for (const row of progress(rows, { label: "reading" })) work(row);
 * for await (const batch of progress(stream, { label: "batches", total: 120 })) await work(batch);
 */
export function progress<T>(items: Iterable<T>, options?: ProgressOptions): Iterable<T>;
export function progress<T>(items: AsyncIterable<T>, options?: ProgressOptions): AsyncIterable<T>;
export function progress<T>(
  items: Iterable<T> | AsyncIterable<T>,
  options: ProgressOptions = {},
): Iterable<T> | AsyncIterable<T> {
  const total = options.total ?? countOf(items);
  const settings = { ...options, total };
  // What can be gone through both ways, as a data set, is gone through item by item.
  return Symbol.iterator in items ? each(items, settings) : eachAsync(items, settings);
}

function* each<T>(items: Iterable<T>, options: ProgressOptions): Generator<T> {
  const work = new Work(options);
  try {
    for (const item of items) {
      work.step();
      yield item;
    }
    work.complete();
  } catch (error) {
    throw work.failed(error);
  } finally {
    work.end();
  }
}

async function* eachAsync<T>(items: AsyncIterable<T>, options: ProgressOptions): AsyncGenerator<T> {
  const work = new Work(options);
  try {
    for await (const item of items) {
      work.step();
      yield item;
    }
    work.complete();
  } catch (error) {
    throw work.failed(error);
  } finally {
    work.end();
  }
}

/** Counts an item as done when the next one is asked for. */
class Work {
  readonly #bar: ProgressBar;
  readonly #label: string;
  #taken = 0;

  constructor(options: ProgressOptions) {
    this.#bar = new ProgressBar(options);
    this.#label = options.label ?? "The loop";
  }

  /** @throws InterruptedError */
  step(): void {
    throwIfInterrupted(this.#label);
    this.#bar.update(this.#taken);
    this.#taken += 1;
  }

  complete(): void {
    this.#bar.update(this.#taken);
    this.#bar.finish();
  }

  /** Shows the error that ends the loop, and gives it back. */
  failed(error: unknown): unknown {
    this.#bar.fail(error instanceof Error ? error.message : String(error));
    return error;
  }

  /** The loop is left: early, if it was not complete. */
  end(): void {
    this.#bar.fail("stopped early");
  }
}

function countOf(items: object): number | undefined {
  const { length, size } = items as { length?: unknown; size?: unknown };
  const count = length ?? size;
  return typeof count === "number" && Number.isInteger(count) && count >= 0 ? count : undefined;
}
