// node scripts/real-preferences.mjs [orpo|dpo]: pairs made from DialogSum, trained on with SmolLM2-135M on the CPU; prints the accuracy on held-out
// pairs before and after. The better answer is a dialogue's summary, the worse one its own opening lines, cut to as many words: what a small
// model copies when it is asked for a summary. orpo must make the better answer the likelier one a token in more than 0.8 of the pairs; dpo, which
// compares with the model without its adapter, must make it likelier than there by more than the worse one, and more often the likelier of the two.
// Models and data are those of ../shared or TUNEBOOK_SHARED.
import { cpuUsage } from "node:process";
import { loadDataset, loadModel } from "../dist/src/index.js";
import { DIALOGSUM, DIALOGSUM_TEST, requireFiles, SMOLLM2, summaryPrompt } from "./shared.mjs";

const LEAST = 0.8;
const options = {
  dpo: { steps: 30, lr: 1e-4, beta: 0.1 },
  orpo: { steps: 24, lr: 5e-4, beta: 1 },
};

/** { prompt, chosen, rejected } of dialogues of up to `longest` characters. */
async function pairs(file, count, longest) {
  const made = [];
  for (const { dialogue, summary, summary1 } of (await loadDataset(file)).toRows()) {
    const better = (summary ?? summary1).trim();
    if (dialogue.length > longest) continue;
    const words = dialogue
      .replaceAll(/#Person\d#:/g, "")
      .split(/\s+/)
      .filter(Boolean);
    const worse = words.slice(0, better.split(/\s+/).length).join(" ");
    made.push({ prompt: summaryPrompt(dialogue), chosen: ` ${better}`, rejected: ` ${worse}` });
    if (made.length === count) break;
  }
  return made;
}

async function main() {
  const method = process.argv[2] ?? "orpo";
  if (!(method in options))
    throw new Error(`the method should be one of ${Object.keys(options).join(", ")}, received ${method}`);
  requireFiles([SMOLLM2, DIALOGSUM, DIALOGSUM_TEST]);
  const started = performance.now();
  const train = await pairs(DIALOGSUM, 200, 600);
  const held = await pairs(DIALOGSUM_TEST, 60, 600);
  const m = await loadModel(SMOLLM2, { progress: false }).addLora({
    rank: 8,
    alpha: 16,
    target: "all-linear",
    seed: 7,
  });
  const measure = () => m.evaluate(held, { metrics: ["preference"], progress: false });
  const before = await measure();
  console.log(
    `before: preference accuracy ${before.preferenceAccuracy.toFixed(3)} on ${held.length} held-out pairs, margin ${before.preferenceMargin.toFixed(3)} nats a token`,
  );
  const run = m.train(train, {
    method,
    ...options[method],
    batch: 4,
    schedule: "cosine",
    warmup: 0.1,
    seed: 1,
    progress: false,
  });
  for await (const s of run) {
    if (s.step % 5 === 0)
      console.log(
        `step ${s.step}: loss ${s.loss.toFixed(4)}, rewards/accuracies ${s["rewards/accuracies"].toFixed(2)}, margins ${s["rewards/margins"].toFixed(3)}, ${Math.round(s.tokensPerSecond)} tokens/s`,
      );
  }
  const after = await measure();
  const seconds = (performance.now() - started) / 1000;
  console.log(
    JSON.stringify({
      method,
      ...options[method],
      pairs: train.length,
      held: held.length,
      before: before.preferenceAccuracy,
      after: after.preferenceAccuracy,
      rewardAccuracy: after.rewardAccuracy,
      seconds: Math.round(seconds),
      processorSeconds: Math.round(cpuUsage().user / 1e6),
    }),
  );
  const reached = method === "orpo" ? after.preferenceAccuracy : after.rewardAccuracy;
  if (!(reached > LEAST && after.preferenceAccuracy > before.preferenceAccuracy)) {
    console.log(
      `not ok: the accuracy is ${reached}, it should be above ${LEAST} and the better answers likelier than before`,
    );
    process.exitCode = 1;
  }
  m.dispose();
}

main().catch((error) => {
  console.error(`real-preferences: ${error.message}`);
  process.exitCode = 1;
});
