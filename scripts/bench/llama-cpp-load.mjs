// llama.cpp's side of load.mjs. First argument: where node-llama-cpp is installed; second: { path, mmap }. Each line asks for { repeats } loads.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { openLlama } from "./llama-cpp-open.mjs";

const [folder, text] = process.argv.slice(2);
const { path, mmap } = JSON.parse(text);
readFileSync(path);
const { llama } = await openLlama(folder);
process.stdout.write('{ "ready": true }\n');
for await (const line of createInterface({ input: process.stdin })) {
  const loads = [];
  for (let i = 0; i < JSON.parse(line).repeats; i++) {
    const begun = performance.now();
    const model = await llama.loadModel({ modelPath: path, useMmap: mmap });
    loads.push({ ms: performance.now() - begun });
    await model.dispose();
  }
  process.stdout.write(`${JSON.stringify({ loads, peak: process.resourceUsage().maxRSS * 1024 })}\n`);
}
