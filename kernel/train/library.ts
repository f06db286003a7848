// What the command needs of the library. It is found as cells find it, by the package's name: kernel and library never import each other.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

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

interface Library {
  TrainJob: { fromFile(file: string, settings: readonly string[]): Promise<Job> };
}

/** The library that this command belongs to. */
export async function loadLibrary(): Promise<Library> {
  const path = createRequire(import.meta.url).resolve("tunebook");
  return (await import(pathToFileURL(path).href)) as Library;
}
