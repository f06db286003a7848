// tunebook's side of batch.mjs: { source, options, quantize? }; a request is {batch, prompt: tokens, count: steps}, the reply the seconds of a step.
import { createInterface } from "node:readline";
import { cacheCapacity, Decoder } from "../../dist/src/evaluation/decode.js";
import { cacheFor, samplingSettings } from "../../dist/src/evaluation/generate.js";
import { loadModel } from "../../dist/src/plan.js";
import { profile, stats } from "../../dist/src/tensor/native.js";
import { noGrad } from "../../dist/src/tensor/record.js";
import { scope } from "../../dist/src/tensor/scope.js";
import { clock } from "./clock.mjs";

const { source, options, quantize } = JSON.parse(process.argv[2]);
const plan = loadModel(source, { ...options, progress: false });
const model = (await (quantize ? plan.quantize(quantize) : plan)).module;
model.train(false);
const reply = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
/** Steps before the clock runs: the first ones are recorded. */
const SETTLING = 6;

async function decode({ batch, prompt, count, parts }) {
  const settings = samplingSettings({ maxNewTokens: count });
  const total = prompt + SETTLING + count;
  const cache = cacheFor(model, batch, cacheCapacity(total, total), settings);
  const decoder = new Decoder(model, cache, settings, total);
  try {
    const ids = Int32Array.from(
      { length: batch * prompt },
      (_, i) => 100 + ((i * 7919) % (model.config.vocabSize - 200)),
    );
    const begin = Int32Array.from({ length: batch }, (_, s) => s * prompt);
    const length = new Int32Array(batch).fill(prompt);
    scope(() => noGrad(() => model.hidden(cache.rows(ids, begin, length), cache)));
    const rows = Array.from({ length: batch }, (_, s) => ({
      region: s,
      position: prompt,
      id: 100 + s,
      seed: 0,
      offset: 0,
      seen: [],
    }));
    let done = 0;
    let begun = 0;
    let before = {};
    for await (const _ of decoder.steps(rows, SETTLING + count)) {
      if (++done !== SETTLING) continue;
      before = profile();
      begun = clock();
    }
    const seconds = (clock() - begun) / (done - SETTLING);
    const after = profile();
    const spent = Object.entries(after).map(([name, { seconds }]) => [
      name,
      (seconds - (before[name]?.seconds ?? 0)) / (done - SETTLING),
    ]);
    return {
      seconds,
      ...(parts ? { parts: Object.fromEntries(spent.filter(([, s]) => s > 0).sort((a, b) => b[1] - a[1])) } : {}),
    };
  } finally {
    decoder.dispose();
    cache.dispose();
  }
}

reply({ ready: true, threads: stats().threads });
for await (const line of createInterface({ input: process.stdin })) reply(await decode(JSON.parse(line)));
