/** What a run writes down while it goes on: a file of JSON lines, TensorBoard's events. */
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { ConfigError } from "../../errors.js";
import type { TrainStep } from "../options.js";
import { EventWriter } from "./tensorboard.js";

/** Where a run is logged: a .jsonl file, or one or both of these. Both are appended to when a run is resumed. */
export type LogOption = string | { jsonl?: string; tensorboard?: string };

/** @throws ConfigError for anything else. */
export function logTargets(log: LogOption | undefined): { jsonl?: string; tensorboard?: string } {
  if (log === undefined) return {};
  const targets = typeof log === "string" ? { jsonl: log } : log;
  const unknown = targets === null || typeof targets !== "object" ? [] : Object.keys(targets);
  const wrong = unknown.filter((key) => key !== "jsonl" && key !== "tensorboard");
  const paths = Object.values(targets ?? {});
  if (wrong.length > 0 || paths.length === 0 || paths.some((path) => typeof path !== "string" || path === ""))
    throw new ConfigError(
      `train: log must be the path of a .jsonl file, or { jsonl: "FILE", tensorboard: "FOLDER" }, received ${JSON.stringify(log)}.`,
    );
  return targets;
}

/**
 * The logs of one run. Every `every` steps one line with the mean loss since the line before. A log that cannot be written (a full disk) ends
 * with a warning; the run goes on.
 */
export class RunLog {
  readonly #every: number;
  readonly #events: EventWriter | undefined;
  #lines: number | undefined;
  #losses: number[] = [];
  #failed = false;

  constructor(log: LogOption | undefined, every: number) {
    const { jsonl, tensorboard } = logTargets(log);
    this.#every = every;
    if (jsonl !== undefined) {
      mkdirSync(dirname(jsonl), { recursive: true });
      this.#lines = openSync(jsonl, "a");
    }
    if (tensorboard !== undefined) this.#events = new EventWriter(tensorboard);
  }

  /** The run begins. */
  start(plan: object): void {
    this.#guarded(() => this.#line({ event: "start", time: new Date().toISOString(), ...plan }));
  }

  /** A step was taken. */
  step(step: TrainStep): void {
    this.#losses.push(step.loss);
    if (step.step % this.#every !== 0 && step.validationLoss === undefined) return;
    const loss = this.#losses.reduce((a, b) => a + b, 0) / this.#losses.length;
    this.#losses = [];
    const { memoryParts: _, ...figures } = step;
    this.#guarded(() => {
      this.#line({ event: "step", ...figures, loss });
      // The names that transformers' Trainer gives them.
      this.#events?.scalars(step.step, {
        "train/loss": loss,
        "train/learning_rate": step.lr,
        "train/grad_norm": step.gradNorm,
        "train/epoch": step.epoch,
        "train/tokens_per_second": step.tokensPerSecond,
        "train/memory_bytes": step.memory,
        "eval/loss": step.validationLoss,
      });
    });
  }

  /** The run ended. */
  end(result: object): void {
    this.#guarded(() => this.#line({ event: "end", time: new Date().toISOString(), ...result }));
    this.close();
  }

  /** The run failed. */
  fail(error: unknown): void {
    const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    this.#guarded(() => this.#line({ event: "error", time: new Date().toISOString(), message }));
    this.close();
  }

  close(): void {
    if (this.#lines !== undefined) closeSync(this.#lines);
    this.#lines = undefined;
    this.#events?.close();
  }

  #line(value: object): void {
    if (this.#lines === undefined) return;
    const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
    for (let at = 0; at < bytes.length; ) at += writeSync(this.#lines, bytes, at);
  }

  #guarded(write: () => void): void {
    if (this.#failed) return;
    try {
      write();
    } catch (error) {
      this.#failed = true;
      console.warn(`train: the log ends here, it could not be written: ${(error as Error).message}`);
    }
  }
}
