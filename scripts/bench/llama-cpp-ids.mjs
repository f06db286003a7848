// What llama.cpp makes of ids and texts. First argument: where node-llama-cpp is installed; second: { path, rows, count, texts }. Prints as JSON the greedy
// ids behind each row, the probabilities of all tokens behind its last id, and the ids of each text (without and with special tokens in it).
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, text] = process.argv.slice(2);
const {
  path,
  rows = [],
  count = 0,
  texts = [],
} = JSON.parse(text.startsWith("@") ? readFileSync(text.slice(1), "utf8") : text);
const installed = join(folder, "node_modules", "node-llama-cpp");
const { exports } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
const { getLlama } = await import(pathToFileURL(join(installed, exports["."].import)).href);
const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  maxThreads: 2,
  progressLogs: false,
  logger: (level, message) => {
    if (level === "error" || level === "fatal") process.stderr.write(`${message}\n`);
  },
});
const model = await llama.loadModel({ modelPath: path });
const greedy = [];
const probabilities = [];
if (rows.length > 0) {
  const context = await model.createContext({ contextSize: 256, threads: 2 });
  const sequence = context.getSequence();
  for (const ids of rows) {
    await sequence.clearHistory();
    const out = [];
    const options = { temperature: 0, yieldEogToken: true };
    for await (const { token, probabilities: each } of sequence.evaluateWithMetadata(
      ids,
      { probabilities: true },
      options,
    )) {
      if (out.length === 0) probabilities.push([...each].sort(([a], [b]) => a - b).map(([, p]) => p));
      out.push(token);
      if (out.length === count) break;
    }
    greedy.push(out);
  }
}
const tokens = texts.map((each) => [
  model.tokenize(each, false, "trimLeadingSpace"),
  model.tokenize(each, true, "trimLeadingSpace"),
]);
process.stdout.write(JSON.stringify({ greedy, probabilities, tokens }), () => process.exit(0)); // its threads need not be waited for
