import type { Worker } from "node:worker_threads";
import type { Report } from "../channel.js";
import { FLUSHED, OUTPUT_WINDOW, type SharedWords, type ToControl, WRITTEN } from "./shared.js";

const SLICE = 2 ** 20;
// What a message costs beside its text, so that many short lines count too.
const MESSAGE_COST = 256;

/** The main thread's way out: every report is posted at once, so that it passes while the main thread stays busy. */
export class Port {
  readonly #control: Worker;
  readonly #words: SharedWords;
  #posted = 0;

  constructor(control: Worker, words: SharedWords) {
    this.#control = control;
    this.#words = words;
  }

  post(report: Report, bytes = 0): void {
    this.#posted = (this.#posted + bytes) | 0;
    this.#control.postMessage({ report, bytes } satisfies ToControl);
    if (bytes > 0) this.#wait();
  }

  /** Output text, in pieces that no receiver chokes on. */
  stream(cell: string, name: "stdout" | "stderr", text: string): void {
    for (let at = 0; at < text.length; at += SLICE) {
      const piece = text.slice(at, at + SLICE);
      this.post({ type: "stream", cell, name, text: piece }, piece.length + MESSAGE_COST);
    }
  }

  /** Tells the control thread that the main thread is alive and deals with the interrupt. */
  acknowledge(): void {
    this.#control.postMessage({ acknowledge: true } satisfies ToControl);
  }

  /** Blocks until the control thread has written everything, for a process about to end. */
  flush(ms: number): void {
    const before = Atomics.load(this.#words.flow, FLUSHED);
    this.#control.postMessage({ flush: true } satisfies ToControl);
    Atomics.wait(this.#words.flow, FLUSHED, before, ms);
  }

  // A cell that prints faster than the kernel process takes it waits here, so that memory stays bounded and an
  // interrupt finds no long queue before it.
  #wait(): void {
    const { flow } = this.#words;
    for (;;) {
      const written = Atomics.load(flow, WRITTEN);
      if (((this.#posted - written) | 0) <= OUTPUT_WINDOW) return;
      Atomics.wait(flow, WRITTEN, written, 100);
    }
  }
}
