/** A display that is redrawn while work goes on: throttled, coalesced, and the newest state always arrives. */
import { toBundle, toText } from "./bundle.js";
import { newDisplayId, type Publisher, publisher, toItsEnd } from "./host.js";

const STUCK_MS = 10_000;

export interface LiveOptions {
  /** Shortest time between two pictures, in milliseconds. Default 400. */
  interval?: number;
  /** Share of the time that drawing may take (0.1): a picture that takes 0.3 s is drawn every 3 s at most. */
  share?: number;
  /** A cell token taken earlier, where the display was not made in the cell it belongs to. */
  cell?: unknown;
}

/**
 * @example
 * const live = new LiveDisplay();
 * for await (const step of run) live.show(() => plot.line(history, { x: "step", y: "loss" }));
 * await live.finish();
 */
export class LiveDisplay {
  readonly id: string = newDisplayId();
  readonly #host: Publisher | undefined;
  readonly #cell: unknown;
  readonly #interval: number;
  readonly #share: number;
  #make: (() => unknown) | undefined;
  #latest: (() => unknown) | undefined;
  #drawing: Promise<void> | undefined;
  #begun = 0;
  #timer: NodeJS.Timeout | undefined;
  #earliest = 0;
  #due = 0;
  #published = false;
  #finished = false;

  constructor(options: LiveOptions = {}) {
    this.#host = publisher();
    this.#cell = options.cell ?? this.#host?.cell();
    this.#interval = options.interval ?? 400;
    this.#share = options.share ?? 0.1;
  }

  /** Shows what `make` returns, now or as soon as the next picture is due; only the newest `make` is called. */
  show(make: () => unknown): void {
    if (this.#finished) return;
    this.#make = this.#latest = make;
    if (this.#host) this.#schedule();
  }

  /**
   * Draws the newest state (or `make`, if given) and settles when it is published. Call it once, at the end, also after a
   * failure. On a terminal, where nothing was drawn so far, the text is printed.
   */
  async finish(make?: () => unknown): Promise<void> {
    if (this.#finished) return;
    this.#finished = true;
    clearTimeout(this.#timer);
    const last = make ?? this.#latest;
    if (!this.#host) {
      if (last) process.stdout.write(`${toText(last())}\n`);
      return;
    }
    await Promise.race([this.#drawing, new Promise((resolve) => setTimeout(resolve, STUCK_MS).unref())]);
    if (make || this.#make) {
      this.#make = last;
      await this.#draw();
    }
  }

  #schedule(): void {
    const now = performance.now();
    // A drawing that an interrupt has stopped never ends.
    if (this.#drawing && now < this.#begun + STUCK_MS) return;
    // The interrupt of a cell takes away timers that were set while it ran, this one with them.
    if (this.#timer && now < this.#due + 100) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const wait = this.#earliest - now;
    if (wait <= 0) {
      this.#start();
      return;
    }
    this.#due = now + wait;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#start();
    }, wait);
    this.#timer.unref();
  }

  #start(): void {
    this.#begun = performance.now();
    const drawing = this.#draw().finally(() => {
      if (this.#drawing !== drawing) return;
      this.#drawing = undefined;
      if (this.#make && !this.#finished) this.#schedule();
    });
    this.#drawing = drawing;
    this.#host?.hold?.(this.#drawing, this.#cell);
  }

  async #draw(): Promise<void> {
    const make = this.#make;
    if (!make) return;
    this.#make = undefined;
    const begun = performance.now();
    let bundle: Awaited<ReturnType<typeof toBundle>>;
    try {
      bundle = await toBundle(toItsEnd(make));
    } catch (error) {
      bundle = { "text/plain": `[drawing failed: ${error instanceof Error ? error.message : String(error)}]` };
    }
    const now = performance.now();
    this.#earliest = now + Math.max(this.#interval, (now - begun) * (1 / this.#share - 1));
    this.#host?.publish(bundle, { id: this.id, update: this.#published, cell: this.#cell });
    this.#published = true;
  }
}
