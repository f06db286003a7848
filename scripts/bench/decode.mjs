// Generating one token after another (batch 1) and reading a prompt of 500, beside llama.cpp on the same Q4_1 file with the same number of threads.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { SMOLLM2 } from "../shared.mjs";
import { Contender, mebibytes, median, ratio, root, short, takeTurns, threads, warnIfBusy } from "./duel.mjs";
import { bestLimits, limits } from "./limits.mjs";
import { ensureLlamaCpp } from "./llama-cpp.mjs";
import { randomGguf } from "./random-gguf.mjs";
import { blockParameters, SHAPES } from "./shapes.mjs";

const PROMPT = 32;
const LONG = 500;

/** What of tunebook is measured. `asked`: the ratio of decoding that the project wants. */
const OURS = [
  { name: "tunebook, Q4_1 kept packed", options: { dtype: "packed" }, asked: 1, wanted: 1.5 },
  {
    name: "tunebook, NF4, head packed",
    options: { dtype: "packed" },
    quantize: { type: "nf4", doubleQuant: true, compute: "bfloat16" },
    asked: 1,
    wanted: 2,
  },
  { name: "tunebook, bfloat16", options: { dtype: "bfloat16" } },
];

/** Runs every variant whose name contains `filter` in turns with llama.cpp. */
export async function benchDecode({ smoke, rounds, count, filter = "" }) {
  const shape = smoke ? SHAPES.smoke : SHAPES["SmolLM2-135M"];
  const path = smoke ? await randomGguf("smoke", shape) : await modelFile(shape);
  const folder = ensureLlamaCpp();
  const ours = OURS.filter((each) => each.name.toLowerCase().includes(filter.toLowerCase())).map((each) => {
    const request = { source: path, options: each.options, quantize: each.quantize };
    const worker = join(root, "scripts", "bench", "decode-worker.mjs");
    return Object.assign(new Contender(each.name, process.execPath, [worker, JSON.stringify(request)]), each);
  });
  const peer = new Contender("llama.cpp", process.execPath, [
    join(root, "scripts", "bench", "llama-cpp-worker.mjs"),
    folder,
    JSON.stringify({ path, threads, context: 1024 }),
  ]);
  const machine = limits();
  const ids = (n) => Array.from({ length: n }, (_, i) => 100 + ((i * 7919) % (shape.vocab_size - 200)));
  const request = { prompt: ids(PROMPT), count, long: ids(LONG) };
  await takeTurns([...ours, peer, machine], rounds, request);
  report(ours, peer, bestLimits(machine), count, shape);
}

/** The model's own file where there is one, else one of random weights. */
export async function modelFile(shape) {
  if (existsSync(SMOLLM2)) return SMOLLM2;
  console.log(
    `${SMOLLM2} does not exist (TUNEBOOK_SHARED names another folder): random weights of the same shape serve.`,
  );
  return randomGguf("SmolLM2-135M", shape);
}

function report(ours, peer, limit, count, shape) {
  const all = [...ours, peer];
  console.log(
    `\nDecoding, batch 1, ${count} tokens behind ${PROMPT}, and a prompt of ${LONG}: ${threads} threads, ${peer.replies.length} rounds in turns`,
  );
  console.table(
    all.map((side) => {
      const [decode, prefill] = [side.all("decode"), side.all("prefill")];
      return {
        "": side.name,
        "tokens/s, best": short(1 / decode[0]),
        "tokens/s, median": short(1 / median(decode)),
        "weights read, GB/s": side.weightBytes ? short((side.weightBytes * 1e-9) / decode[0]) : "",
        "prompt tokens/s, best": Math.round(LONG / prefill[0]),
        "prompt, median": Math.round(LONG / median(prefill)),
        "peak MiB": mebibytes(side.last.peakBytes),
        threads: side.last.threads,
        "as llama.cpp": side === peer ? "" : `${agreement(side.last.ids, peer.last.ids)} tokens`,
      };
    }),
  );
  for (const side of ours) {
    const wants = side.asked === undefined ? "" : ` (asked: ${side.asked}x, wanted: ${side.wanted}x)`;
    const idle = side.replies.map((reply) => reply.idle).sort((a, b) => a - b)[0];
    console.log(
      `${side.name} beside llama.cpp: decoding ${ratio(side.all("decode"), peer.all("decode"))}${wants}; ` +
        `prompt ${ratio(side.all("prefill"), peer.all("prefill"))} (wanted: 2x); waiting for JavaScript ${(100 * idle).toFixed(1)}%`,
    );
  }
  const prompt = (2 * blockParameters(shape) * LONG * 1e-9) / ours[0].all("prefill")[0];
  console.log(`llama.cpp uses ${peer.features}; tunebook ${ours[0].features}`);
  console.log(`${limit.text}; the prompt's best is ${prompt.toFixed(0)} GFLOP/s`);
  warnIfBusy(all.map((side) => side.all("decode")));
}

const agreement = (a, b) => {
  let n = 0;
  while (n < a.length && a[n] === b[n]) n++;
  return n;
};
