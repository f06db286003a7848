// Trains a small model with checkpoints, going on from the newest one where there is one: what kill.ts kills.
import { readdir } from "node:fs/promises";
import { adapted, options, rows } from "./resumable.js";

const [folder, output] = process.argv.slice(2) as [string, string];
const names = await readdir(output).catch(() => [] as string[]);
const resume = names.some((name) => name.startsWith("checkpoint-"));
const model = await adapted(folder);
process.send?.("training");
await model.train(rows, { ...options, steps: 60, output, saveEvery: 5, resume });
model.dispose();
process.send?.("done");
