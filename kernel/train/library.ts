// What the command needs of the library.

/** A run under way. */
export interface Run {
  /** Whether it has ended. */
  readonly over: boolean;
  stop(): void;
}

/** A checked job. */
export interface Job {
  readonly config: { readonly train?: { readonly output?: string } };
  plan(): Promise<string>;
  run(options: { signal: AbortSignal; onRun(run: Run): void; say(text: string): void }): Promise<{
    training: { ended: string; steps: number; checkpoint: { folder: string; step: number } | undefined };
  }>;
}

export interface Library {
  TrainJob: { fromFile(file: string, settings: readonly string[]): Promise<Job> };
}
