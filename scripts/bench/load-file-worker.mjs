// One process that loads a GGUF file: node load-file-worker.mjs '{ "path": …, "kind": "float32" | "packed" | "nf4" | "parts" | "memory" }'. Says that it is ready when the
// library has been imported; asked { repeats }, it answers with the milliseconds of each load from the first on.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { GgufFile } from "../../dist/src/hub/gguf.js";
import { ggufConfig } from "../../dist/src/hub/gguf-config.js";
import { ggufTokenizer } from "../../dist/src/hub/gguf-tokenizer.js";
import { GgufWeights } from "../../dist/src/hub/gguf-weights.js";
import { loadModel } from "../../dist/src/index.js";
import { loadWeights } from "../../dist/src/models/load.js";
import { createModel } from "../../dist/src/models/registry.js";
import { fill } from "../../dist/src/tensor/calls.js";
import { settle } from "../../dist/src/tensor/native.js";
import { empty } from "../../dist/src/tensor/tensor.js";

const { path, kind } = JSON.parse(process.argv[2]);
readFileSync(path); // into the page cache; first loads are of a file that is warm, in a process that is not
const reply = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

/** Runs something, with the milliseconds that it took and of them those of the system (page faults, reading), and page faults. */
async function timed(run) {
  const before = process.resourceUsage();
  const begun = performance.now();
  const value = await run();
  const ms = performance.now() - begun;
  const after = process.resourceUsage();
  const system = (after.systemCPUTime - before.systemCPUTime) / 1000;
  const user = (after.userCPUTime - before.userCPUTime) / 1000;
  return { value, ms, system, user, faults: after.minorPageFault - before.minorPageFault };
}

async function whole() {
  // What the weights of a float32 load take, written once: how long the machine takes to give that much memory.
  if (kind === "memory") {
    const memory = empty([134_515_008], "float32", "cpu");
    fill(memory.handle, memory.size, 0);
    await settle();
    return memory;
  }
  const plan = loadModel(path, { device: "cpu", progress: false, ...(kind === "packed" && { dtype: "packed" }) });
  const model = await (kind === "nf4" ? plan.quantize({ type: "nf4" }) : plan);
  await settle();
  return model;
}

/** The parts of a float32 load, one after another; within `loadModel` they overlap. */
async function parts() {
  const found = {};
  const part = async (name, run) => {
    const { value, ...rest } = await timed(run);
    found[name] = rest;
    return value;
  };
  const file = await part("header", () => GgufFile.open(path));
  const tokenizer = await part("tokenizer", () => ggufTokenizer(file));
  await part("chat template", () => tokenizer.stopIds);
  const config = await ggufConfig(file);
  const model = await part("modules", () => createModel(config));
  const spare = model.config.tied ? ["lm_head.weight"] : [];
  await part("weights", async () => {
    await loadWeights(model, new GgufWeights(file, config), spare);
    await settle();
  });
  model.dispose();
  await file.close();
  return found;
}

reply({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const { repeats } = JSON.parse(line);
  const loads = [];
  for (let i = 0; i < repeats; i++) {
    if (kind === "parts") {
      loads.push(await parts());
      continue;
    }
    const { value, ...rest } = await timed(whole);
    loads.push(rest);
    value.dispose();
  }
  const peak = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? 0) * 1024;
  reply({ loads, peak });
}
