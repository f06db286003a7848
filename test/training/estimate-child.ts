// Run by estimate.test.ts with little memory: a batch that does not fit, then the one that the error's advice names.
import { fileURLToPath } from "node:url";
import { loadModel } from "../../src/index.js";
import { stats } from "../../src/tensor/native.js";

const embedded = fileURLToPath(new URL("../../../notebooks/embedded/model", import.meta.url));
const model = await loadModel(embedded, { device: "cpu", progress: false }).addLora({ rank: 8, target: "all-linear" });
const rows = Array.from({ length: 64 }, () => ({ text: "The boats of the village lie at the quay. ".repeat(30) }));
const train = { steps: 3, progress: false, maxLength: 256, shuffle: false } as const;
const before = stats().liveBytes;
let message = "";
try {
  await model.train(rows, { ...train, batch: 64 });
} catch (error) {
  message = (error as Error).message;
}
const after = stats().liveBytes;
const batch = Number(/(\d+) with "full"/.exec(message)?.[1]);
const { history } = await model.train(rows, { ...train, batch, checkpointing: "full" });
const losses = history.toRows().map((row) => row.loss as number);
process.stdout.write(JSON.stringify({ message, before, after, batch, losses }));
