/** `display(value)`: shows a value in the running cell, or on the terminal in plain Node. */
import { rawBundle, toBundle, toText } from "./bundle.js";
import { defineDisplay, type MimeBundle, newDisplayId, type Publisher, publisher } from "./host.js";

/** What {@link display} returns. */
export interface DisplayHandle {
  /** The display's id: `display(other, { id })` replaces what it shows. */
  readonly id: string;
  /** Shows another value in the same place. */
  update(value: unknown): void;
  /** Settles when all that was handed over so far is published (charts take a moment to be drawn). */
  readonly done: Promise<void>;
}

export interface DisplayOptions {
  /** An id of your own: a second `display` with it updates the first one's output. */
  id?: string;
  /** The value is a MIME bundle of your own making, shown as it is. */
  raw?: boolean;
}

const shown = new Set<string>();

class Raw {
  readonly bundle: MimeBundle;

  constructor(bundle: MimeBundle) {
    this.bundle = bundle;
  }
}
defineDisplay(
  Raw,
  (raw) => raw.bundle,
  (raw) => String(raw.bundle["text/plain"]),
);

class Handle implements DisplayHandle {
  readonly id: string;
  done: Promise<void> = Promise.resolve();
  readonly #host: Publisher | undefined;
  readonly #cell: unknown;
  #lastText: string | undefined;

  constructor(id: string) {
    this.id = id;
    this.#host = publisher();
    this.#cell = this.#host?.cell();
  }

  update(value: unknown): void {
    if (!this.#host) {
      this.#print(value);
      return;
    }
    const bundle = toBundle(value);
    if (!(bundle instanceof Promise)) {
      // A picture still being drawn must not arrive after, and over, this newer value.
      this.#version += 1;
      this.#publish(bundle);
      return;
    }
    const version = ++this.#version;
    const drawn = bundle.then((ready) => {
      if (version === this.#version) this.#publish(ready);
    });
    this.done = Promise.all([this.done, drawn]).then(() => undefined);
    this.#host.hold?.(this.done, this.#cell);
  }
  #version = 0;

  #publish(bundle: MimeBundle): void {
    const update = shown.has(this.id);
    shown.add(this.id);
    this.#host?.publish(bundle, { id: this.id, update, cell: this.#cell });
  }

  #print(value: unknown): void {
    const text = toText(value, process.stdout.isTTY && process.stdout.hasColors());
    if (text === this.#lastText) return;
    this.#lastText = text;
    process.stdout.write(text.endsWith("\n") ? text : `${text}\n`);
  }
}

/**
 * Shows a value: an object with a `Symbol.for("Jupyter.display")` method by its bundle, image bytes as an image, a MIME
 * bundle with `raw`, all else as text.
 *
 * @example
 * const handle = display("loading");
 * handle.update("ready");
 */
export function display(value: unknown, options: DisplayOptions = {}): DisplayHandle {
  const handle = new Handle(options.id ?? newDisplayId());
  handle.update(options.raw ? new Raw(rawBundle(value)) : value);
  return handle;
}
