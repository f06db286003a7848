// Models and data that are no part of this repository: the folder ../shared, or TUNEBOOK_SHARED.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const shared = process.env.TUNEBOOK_SHARED ?? fileURLToPath(new URL("../../shared", import.meta.url));
export const SMOLLM2 = join(shared, "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
export const DIALOGSUM = join(shared, "data/dialogsum/dialogsum.train.jsonl.gz");
export const DIALOGSUM_TEST = join(shared, "data/dialogsum/dialogsum.test.jsonl");

/** @throws Error naming the first file that is not there, and what to do. */
export function requireFiles(files, remedy = "set TUNEBOOK_SHARED to the folder with models/ and data/") {
  const missing = files.find((file) => !existsSync(file));
  if (missing !== undefined) throw new Error(`${missing} is not there: ${remedy}`);
}

/** What a dialogue of DialogSum is given as, before its summary. */
export const summaryPrompt = (dialogue) => `Summarize the conversation.\n\n${dialogue}\n\nSummary:`;
