/**
 * Writes what the embedded model says, greedily, to test/fixtures/embedded-greedy.json, which its test compares with. After a new training:
 *   node dist/notebooks/embedded/golden.js
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { embeddedModel, loadModel } from "../../src/index.js";
import { root } from "./prepare.js";

const questions = [
  "Where does Tobin live?",
  "What does Lena do?",
  "Who owns the Kestrel?",
  "What is a compass?",
  "When is the Boat Race?",
  "What is the opposite of early?",
  "Who is Biscuit?",
  "What happens on Tuesday?",
];

const model = await loadModel(embeddedModel());
const ask = (content: string): Promise<string> => model.chat([{ role: "user", content }], { maxNewTokens: 300 });
const answers: { ask: string; answer: string }[] = [];
for (const question of questions) answers.push({ ask: question, answer: await ask(question) });
const story = await ask("Tell me a story about a storm.");
writeFileSync(join(root, "test/fixtures/embedded-greedy.json"), `${JSON.stringify({ answers, story }, null, 2)}\n`);
for (const { ask: question, answer } of answers) console.log(`${question} ${answer}`);
console.log(`\n${story}`);
model.dispose();
