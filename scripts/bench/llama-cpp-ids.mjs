// What llama.cpp makes of ids and texts. First argument: where node-llama-cpp is installed; second: a file with a list of { path, rows, count, texts }. Prints as
// JSON, for each, the greedy ids behind each row, the probabilities of all tokens behind its last id, and the ids of each text (without and with special tokens).
import { readFileSync } from "node:fs";
import { openLlama } from "./llama-cpp-open.mjs";

const [folder, requests] = process.argv.slice(2);
const { llama } = await openLlama(folder, {
  logger: (level, message) => {
    if (level === "error" || level === "fatal") process.stderr.write(`${message}\n`);
  },
});

async function answer({ path, rows = [], count = 0, texts = [] }) {
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
      const steps = sequence.evaluateWithMetadata(ids, { probabilities: true }, options);
      for await (const { token, probabilities: each } of steps) {
        if (out.length === 0) probabilities.push([...each].sort(([a], [b]) => a - b).map(([, p]) => p));
        out.push(token);
        if (out.length === count) break;
      }
      greedy.push(out);
    }
  }
  return {
    greedy,
    probabilities,
    tokens: texts.map((text) => [model.tokenize(text, false), model.tokenize(text, true)]),
  };
}

const answers = [];
for (const request of JSON.parse(readFileSync(requests, "utf8"))) answers.push(await answer(request));
process.stdout.write(JSON.stringify(answers), () => process.exit(0)); // its threads need not be waited for
