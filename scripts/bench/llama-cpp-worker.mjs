// llama.cpp's side of decode.mjs. First argument: where node-llama-cpp is installed; second: { path, threads, context }.
import { createInterface } from "node:readline";
import { openLlama } from "./llama-cpp-open.mjs";

const [folder, text] = process.argv.slice(2);
const { path, threads, context } = JSON.parse(text);
const { version, llama } = await openLlama(folder, { threads });
const model = await llama.loadModel({ modelPath: path });
const session = await model.createContext({ contextSize: context, batchSize: 512, threads, flashAttention: true });
const sequence = session.getSequence();
const reply = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

/** Seconds to the first token, and of each token after it. */
async function generate(prompt, count) {
  await sequence.clearHistory();
  const ids = [];
  const begun = performance.now();
  let first = begun;
  for await (const id of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    ids.push(id);
    if (ids.length === 1) first = performance.now();
    if (ids.length > count) break;
  }
  return { first: (first - begun) / 1000, each: (performance.now() - first) / 1000 / count, ids };
}

// Which of its builds it has loaded, and what that one uses.
const features = llama.systemInfo
  .split("|")
  .filter((part) => /AVX|VNNI|FMA/.test(part) && part.includes("= 1"))
  .map((part) => part.replace(/^.*?([A-Z0-9_]+) = 1.*$/, "$1").trim());
reply({
  ready: true,
  name: `llama.cpp (node-llama-cpp ${version})`,
  features: features.join(" "),
  threads: session.currentThreads,
});
for await (const line of createInterface({ input: process.stdin })) {
  const { prompt, count, long } = JSON.parse(line);
  const decoded = await generate(prompt, count);
  const prefilled = await generate(long, 1);
  reply({
    decode: decoded.each,
    prefill: prefilled.first,
    ids: decoded.ids,
    threads: session.currentThreads,
    peakBytes: process.resourceUsage().maxRSS * 1024,
  });
}
