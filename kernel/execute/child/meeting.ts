import type { MimeBundle } from "../channel.js";
import { Cell, type DisplayOptions } from "./cell.js";
import type { Comms } from "./comms.js";

/** What the runner offers to the library's global symbols. */
export interface Host {
  /** The cell that the code running now belongs to. */
  readonly origin: Cell | undefined;
  signal(which?: "running"): AbortSignal;
  display(cell: Cell, data: MimeBundle, options: DisplayOptions): void;
  clear(cell: Cell, wait: boolean): void;
  page(cell: Cell, data: MimeBundle): void;
  beside(work: Promise<unknown>, cell?: Cell): void;
}

/** The publisher that libraries find at `Symbol.for("tunebook.publish/1")`. */
export interface Publisher {
  /** Shows a bundle, or updates the display of `id`; under `cell` (a token of `cell()`), else under the running cell. */
  publish(bundle: MimeBundle, options?: DisplayOptions & { cell?: unknown }): void;
  clear(wait?: boolean): void;
  /** Shows a bundle in the front end's pager when the running cell has ended. */
  page(bundle: MimeBundle): void;
  /** A token of the running cell. */
  cell(): unknown;
  /** The cell (the running one by default) counts as running until this work, whose output is its own, has settled. */
  hold(work: Promise<unknown>, cell?: unknown): void;
}

/** The interrupt that libraries find at `Symbol.for("tunebook.interrupt/1")`. */
export interface Interrupt {
  /** On a SharedArrayBuffer; `flag[0]` is 1 from an interrupt to the start of the next cell; `flag[1]` counts up for short work not to be stopped. */
  flag: Int32Array;
  /** Aborted when the cell that the caller belongs to is interrupted; "running": the one that runs now, whoever calls. */
  signal(which?: "running"): AbortSignal;
  /**
   * Calls back after an interrupt: when it has ended a cell by force, so that `finally` blocks may have been skipped,
   * and before the next cell starts.
   *
   * @returns a function that takes the callback away.
   */
  onReset(callback: () => void): () => void;
  /**
   * Says that this work of a cell (the running one by default) goes on after it and heeds the cell's signal: an interrupt of a later cell
   * leaves it alone and the flag down; the interrupt after that, with no cell running, aborts the signal.
   */
  beside(work: Promise<unknown>, cell?: unknown): void;
}

/** Puts both objects where libraries look for them; neither side imports the other. */
export function installMeetingPoints(host: Host, flag: Int32Array, resets: Set<() => void>, comms: Comms): void {
  const publisher: Publisher = {
    publish(bundle, options = {}) {
      const { cell = host.origin, ...rest } = options;
      if (cell instanceof Cell) host.display(cell, bundle, rest);
    },
    clear(wait = false) {
      if (host.origin !== undefined) host.clear(host.origin, wait);
    },
    page(bundle) {
      if (host.origin !== undefined) host.page(host.origin, bundle);
    },
    cell: () => host.origin,
    hold(work, cell = host.origin) {
      if (cell instanceof Cell) cell.hold(work);
    },
  };
  const interrupt: Interrupt = {
    flag,
    signal: (which) => host.signal(which),
    onReset(callback) {
      resets.add(callback);
      return () => resets.delete(callback);
    },
    beside(work, cell = host.origin) {
      if (cell instanceof Cell) host.beside(work, cell);
    },
  };
  for (const [name, value] of [
    ["tunebook.publish/1", publisher],
    ["tunebook.interrupt/1", interrupt],
    ["tunebook.comms/1", comms],
  ] as const) {
    Object.defineProperty(globalThis, Symbol.for(name), { value, configurable: true });
  }
}
