// Products of one row (a token of decoding) beside plain reading of as many bytes with the same number of threads, in turns: such products are bound by
// memory. Weights of many layers, so that all of them come from memory.
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { busyness, Contender, median, root, short, takeTurns, threads } from "./duel.mjs";
import { blockMatrices, SHAPES } from "./shapes.mjs";

/** The share of the bandwidth that the project wants. */
const WANTED = 0.8;
const KINDS = ["nf4", "q4_1", "q8_0", "int8", "bfloat16"];
/** Llama-3.2-1B's layers; those of SmolLM2-135M are small beside the way to the device. */
const ONE_B = {
  hidden_size: 2048,
  intermediate_size: 8192,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 64,
};

/** Runs the cases whose line contains `filter` ("nf4", "1B q4_1", …). */
export async function benchGemv({ smoke, rounds, filter = "" }) {
  const bytes = (smoke ? 8 : 512) * 2 ** 20;
  const program = compile();
  for (const [name, shape] of smoke
    ? [["smoke", SHAPES.smoke]]
    : [
        ["135M", SHAPES["SmolLM2-135M"]],
        ["1B", ONE_B],
      ]) {
    const rows = [];
    const before = busyness();
    for (const kind of KINDS) {
      if (!`${name} ${kind}`.includes(filter)) continue;
      const request = { kind, matrices: blockMatrices(shape), bytes };
      const ours = new Contender(kind, process.execPath, [
        join(root, "scripts", "bench", "gemv-worker.mjs"),
        JSON.stringify(request),
      ]);
      const probe = new Contender("read", program, [String(threads), String(bytes)]);
      await takeTurns([ours, probe], rounds, { seconds: smoke ? 0.01 : 0.4 });
      const [own, read] = [ours.all("seconds"), probe.all("seconds")];
      const rate = (size, seconds) => (size * 1e-9) / seconds;
      rows.push({
        "": kind,
        "layers, MB": Math.round(ours.bytes * 1e-6),
        "GB/s, best": short(rate(ours.bytes, own[0])),
        median: short(rate(ours.bytes, median(own))),
        "plain reading, best": short(rate(bytes, read[0])),
        "median ": short(rate(bytes, median(read))),
        "ratio, best": short(rate(ours.bytes, own[0]) / rate(bytes, read[0])),
        "ratio, median": short(rate(ours.bytes, median(own)) / rate(bytes, median(read))),
      });
    }
    if (rows.length === 0) continue;
    console.log(
      `\nOne row times the layers of a ${name} shape, ${threads} threads, ${rounds} rounds in turns, load ${before} before, ${busyness()} after (wanted: ${WANTED})`,
    );
    console.table(rows);
  }
}

/** Compiles the probe with the compiler that the build uses. */
function compile() {
  const folder = join(root, "build", "bench");
  mkdirSync(folder, { recursive: true });
  const program = join(folder, "read-probe");
  const [command, ...rest] = (process.env.CXX ?? "c++").split(" ");
  const source = join(root, "scripts", "bench", "read-probe.cc");
  const { status, stderr } = spawnSync(
    command,
    [...rest, "-std=c++17", "-O3", "-march=native", "-pthread", source, "-o", program],
    {
      encoding: "utf8",
    },
  );
  if (status !== 0) throw new Error(`the C++ compiler refused ${source}:\n${stderr}`);
  return program;
}
