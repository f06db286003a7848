// Opening a GGUF file of 98 MB that is in the page cache: the first load of a process that has imported the library, and the second; the same in cells of the
// kernel; beside llama.cpp, which maps the file and reads it later, when it computes.
import { loadavg } from "node:os";
import { join } from "node:path";
import { modelFile } from "./decode.mjs";
import { Contender, mebibytes, median, root, threads } from "./duel.mjs";
import { Probe } from "./kernel-probe.mjs";
import { ensureLlamaCpp } from "./llama-cpp.mjs";
import { randomGguf } from "./random-gguf.mjs";
import { SHAPES } from "./shapes.mjs";

const KINDS = [
  { name: "float32 (the default)", kind: "float32" },
  { name: "packed", kind: "packed" },
  { name: "NF4", kind: "nf4" },
];

/** @param {{ rounds: number, filter?: string, smoke?: boolean }} options - `filter`: what has a name that contains it */
export async function benchLoad({ rounds, filter = "", smoke = false }) {
  const path = smoke ? await randomGguf("smoke", SHAPES.smoke) : await modelFile(SHAPES["SmolLM2-135M"]);
  const folder = ensureLlamaCpp();
  const ours = (kind) => [join(root, "scripts", "bench", "load-file-worker.mjs"), JSON.stringify({ path, kind })];
  const theirs = (mmap) => [
    join(root, "scripts", "bench", "llama-cpp-load.mjs"),
    folder,
    JSON.stringify({ path, mmap }),
  ];
  const wanted = ({ name }) => name.toLowerCase().includes(filter.toLowerCase());
  const sides = [
    ...KINDS.map(({ name, kind }) => ({ name, args: ours(kind) })),
    { name: "538 MB of new memory alone", args: ours("memory") },
    { name: "llama.cpp, read", args: theirs(false) },
    { name: "llama.cpp, mapped", args: theirs(true) },
  ].filter(wanted);
  for (const side of sides) side.rounds = [];
  const parts = [];
  const cells = [];
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < sides.length; i++) {
      const side = sides[(i + round) % sides.length]; // who comes first changes
      side.rounds.push(await ask(side.name, side.args));
    }
    parts.push((await ask("parts", ours("parts"))).loads);
    if (wanted({ name: "kernel" })) cells.push(await fromKernel(path));
  }
  console.log(`\nLoading ${path}: ${threads} threads, ${rounds} fresh processes each, in turns; ms, best / median`);
  console.table(
    sides.map((side) => ({
      "": side.name,
      "first load": spread(side.rounds, ({ loads }) => loads[0].ms),
      "second load": spread(side.rounds, ({ loads }) => loads[1].ms),
      "processor time": spread(side.rounds, ({ loads }) => (loads[0].user ?? NaN) + loads[0].system),
      "of it system": spread(side.rounds, ({ loads }) => loads[0].system ?? NaN),
      "page faults": spread(side.rounds, ({ loads }) => loads[0].faults ?? NaN),
      "peak MiB": mebibytes(Math.max(...side.rounds.map(({ peak }) => peak))),
    })),
  );
  console.log("The parts of a float32 load, one after another (loadModel lets them overlap)");
  console.table(
    Object.keys(parts[0][0]).map((name) => ({
      "": name,
      "first, ms": spread(parts, ([first]) => first[name].ms),
      "second, ms": spread(parts, ([, second]) => second[name].ms),
      "system, ms": spread(parts, ([first]) => first[name].system),
      "page faults": spread(parts, ([first]) => first[name].faults),
    })),
  );
  if (cells.length > 0)
    console.log(
      `Cells of the kernel, dtype "packed", ms: the first one, which imports tunebook, ${spread(cells, ({ imported }) => imported)}; ` +
        `the first load ${spread(cells, ({ first }) => first)}; the next ${spread(cells, ({ later }) => later)}`,
    );
}

async function ask(name, args) {
  const side = new Contender(name, process.execPath, args);
  try {
    await side.ready();
    const reply = await side.ask({ repeats: 2 });
    console.log(
      `  ${name}: ${reply.loads.map(({ ms }) => (ms === undefined ? "parts" : `${ms.toFixed(0)} ms`)).join(", ")} (load ${loadavg()[0].toFixed(1)})`,
    );
    return reply;
  } finally {
    side.close();
  }
}

// Milliseconds of a kernel's cells, from request to reply.
async function fromKernel(path) {
  const probe = await Probe.start({
    argv: (file) => [process.execPath, join(root, "dist", "kernel", "main.js"), file],
    interrupt: "message",
    cwd: root,
  });
  try {
    await probe.info();
    const load = `await loadModel(${JSON.stringify(path)}, { device: "cpu", dtype: "packed", progress: false })`;
    const run = async (code) => {
      const { reply, ms } = await probe.run(code, { limit: 60_000 });
      if (reply?.status !== "ok") throw new Error(`the cell ended with ${JSON.stringify(reply)}`);
      return ms;
    };
    const imported = await run('import { loadModel } from "tunebook";');
    return { imported, first: await run(`const model = ${load};`), later: await run(`const again = ${load};`) };
  } finally {
    await probe.stop();
  }
}

function spread(rounds, of) {
  const sorted = rounds.map(of).sort((a, b) => a - b);
  return sorted.some(Number.isNaN) ? "" : `${sorted[0].toFixed(0)} / ${median(sorted).toFixed(0)}`;
}
