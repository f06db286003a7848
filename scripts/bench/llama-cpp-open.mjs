// llama.cpp without its own output on the terminal, as node-llama-cpp installed in a folder has it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** @returns node-llama-cpp's version, and llama.cpp on so many threads of the CPU; `logger` is given its messages by level. */
export async function openLlama(folder, { threads = 2, logger = () => {} } = {}) {
  const installed = join(folder, "node_modules", "node-llama-cpp");
  const { version, exports } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  const { getLlama } = await import(pathToFileURL(join(installed, exports["."].import)).href);
  const llama = await getLlama({
    gpu: false,
    build: "never",
    skipDownload: true,
    maxThreads: threads,
    progressLogs: false,
    logger,
  });
  return { version, llama };
}
