import type { Command, Report } from "../channel.js";

/**
 * The words of memory that the two threads of the executor share, as an Int32Array each.
 * `flag[0]`: 1 = interrupted; it is what the library's native steps poll. `flag[1]`: above 0 while short work is done that would never come to
 * its end if it was stopped, such as a step of a training run beside cells. Libraries know this array.
 * `flow[WRITTEN]`: bytes of output that the control thread has handed on; `flow[FLUSHED]`: flushes that it has done;
 * `flow[INTERRUPTING]`: 1 from an interrupt until the main thread has dealt with it; `flow[BESIDE]`: 1 while a cell runs beside work that
 * an earlier cell has started and that goes on.
 */
export interface SharedWords {
  flag: Int32Array;
  flow: Int32Array;
}

export const WRITTEN = 0;
export const FLUSHED = 1;
export const INTERRUPTING = 2;
export const BESIDE = 3;

/** Main thread → control thread. */
export type ToControl = { report: Report; bytes: number } | { acknowledge: true } | { flush: true };

/** Control thread → main thread; a command, or the news of an interrupt. */
export type ToMain = Command;

/** Output not yet handed on, in bytes, beyond which the printing cell has to wait. */
export const OUTPUT_WINDOW: number = 4 * 2 ** 20;
