// What llama.cpp says, greedily. First argument: where node-llama-cpp is installed; second: { path, prompts, count }. Prints the texts as JSON.
import { openLlama } from "./llama-cpp-open.mjs";

const [folder, text] = process.argv.slice(2);
const { path, prompts, count } = JSON.parse(text);
const { llama } = await openLlama(folder);
const model = await llama.loadModel({ modelPath: path });
const context = await model.createContext({ contextSize: 256, threads: 2 });
const sequence = context.getSequence();
const texts = [];
for (const prompt of prompts) {
  await sequence.clearHistory();
  const ids = model.tokenize(prompt, true);
  const out = [];
  for await (const id of sequence.evaluate(ids, { temperature: 0 })) {
    out.push(id);
    if (out.length === count) break;
  }
  texts.push(model.detokenize(out, false, ids));
}
process.stdout.write(JSON.stringify(texts), () => process.exit(0)); // its threads need not be waited for
