// Decoding of several sequences at once beside one alone, tunebook against itself in turns: a step of 8 should bring at least four times the tokens.
import { join } from "node:path";
import { modelFile } from "./decode.mjs";
import { busyness, Contender, median, root, short, threads } from "./duel.mjs";
import { randomGguf } from "./random-gguf.mjs";
import { SHAPES } from "./shapes.mjs";

const WANTED = 4;
const BATCHES = [1, 2, 4, 8, 16];
const OURS = [
  { name: "Q4_1 kept packed", options: { dtype: "packed" } },
  {
    name: "NF4, head packed",
    options: { dtype: "packed" },
    quantize: { type: "nf4", doubleQuant: true, compute: "bfloat16" },
  },
  { name: "bfloat16", options: { dtype: "bfloat16" } },
];

/** Runs the variants whose name contains `filter`. `count`: steps a round. */
export async function benchBatch({ smoke, rounds, count, filter = "" }) {
  const shape = smoke ? SHAPES.smoke : SHAPES["SmolLM2-135M"];
  const source = smoke ? await randomGguf("smoke", shape) : await modelFile(shape);
  const before = busyness();
  const rows = [];
  for (const each of OURS) {
    if (!each.name.toLowerCase().includes(filter.toLowerCase())) continue;
    const worker = join(root, "scripts", "bench", "batch-worker.mjs");
    const side = new Contender(each.name, process.execPath, [worker, JSON.stringify({ ...each, source })]);
    const seconds = new Map(BATCHES.map((batch) => [batch, []]));
    try {
      await side.ready();
      await side.ask({ batch: 8, prompt: 32, count });
      for (let round = 0; round < rounds; round++) {
        for (const batch of round % 2 === 0 ? BATCHES : [...BATCHES].reverse()) {
          seconds.get(batch).push((await side.ask({ batch, prompt: 32, count })).seconds);
        }
      }
    } finally {
      side.close();
    }
    for (const list of seconds.values()) list.sort((a, b) => a - b);
    const alone = seconds.get(1);
    for (const [batch, list] of seconds) {
      rows.push({
        "": each.name,
        batch,
        "ms a step, best": short(list[0] * 1000),
        median: short(median(list) * 1000),
        "tokens/s of all, best": short(batch / list[0]),
        "beside batch 1, best": short((batch * alone[0]) / list[0]),
        "by medians": short((batch * median(alone)) / median(list)),
      });
    }
  }
  if (rows.length === 0) return;
  console.log(
    `\nDecoding several sequences behind 32 tokens each, ${threads} threads, ${rounds} rounds in turns, load ${before} before, ${busyness()} after (wanted of 8: ${WANTED}x)`,
  );
  console.table(rows);
}
