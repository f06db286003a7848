// tunebook's side of decode.mjs: { source, options, quantize? }.
import { createInterface } from "node:readline";
import { generateIds, samplingSettings } from "../../dist/src/evaluation/generate.js";
import { loadModel } from "../../dist/src/plan.js";
import { stats } from "../../dist/src/tensor/native.js";

const { source, options, quantize } = JSON.parse(process.argv[2]);
const plan = loadModel(source, { ...options, progress: false });
const model = await (quantize ? plan.quantize(quantize) : plan);
const reply = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

/** Seconds to the first token, and of each token after it. */
async function generate(prompt, count) {
  const ids = [];
  const settings = samplingSettings({ maxNewTokens: count + 1 });
  const begun = performance.now();
  let first = begun;
  let busy = 0;
  for await (const id of generateIds(model.module, prompt, settings, new Set())) {
    ids.push(id);
    if (ids.length > 1) continue;
    first = performance.now();
    busy = stats().busySeconds;
  }
  const seconds = (performance.now() - first) / 1000;
  // What the device did not work is what JavaScript and the way there and back kept it waiting.
  const idle = Math.max(0, 1 - (stats().busySeconds - busy) / seconds);
  return { first: (first - begun) / 1000, each: seconds / count, ids, idle };
}

// What a token reads: every weight once. Of an untied embedding it reads one row only.
const embedding = model.config.tied ? 0 : model.module.headWeight().bytes;
reply({
  ready: true,
  weightBytes: model.memory().weights - embedding,
  threads: stats().threads,
  features: stats().isa,
});
for await (const line of createInterface({ input: process.stdin })) {
  const { prompt, count, long } = JSON.parse(line);
  const decoded = await generate(prompt, count);
  const prefilled = await generate(long, 1);
  reply({
    decode: decoded.each,
    prefill: prefilled.first,
    ids: decoded.ids,
    idle: decoded.idle,
    threads: stats().threads,
    peakBytes: process.resourceUsage().maxRSS * 1024,
  });
}
