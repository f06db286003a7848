// Times the compile service as the kernel uses it: `node scripts/bench-compile.mjs [CELLS]` after a build. Medians in milliseconds.
import { performance } from "node:perf_hooks";

const began = performance.now();
const { CompileService } = await import("../dist/kernel/compile/service.js");
const cells = Number(process.argv[2] ?? 300);
const cwd = process.cwd();
const service = new CompileService(cwd);
let count = 0;

async function run(code, typecheck = "error") {
  const cell = `cell-${++count}`;
  const start = performance.now();
  await service.compile({ code, cell, typecheck, cwd });
  const took = performance.now() - start;
  service.commit(cell);
  // The executor runs the cell meanwhile.
  await new Promise((resolve) => setTimeout(resolve, 3));
  return took;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

function tell(what, value, unit = "ms") {
  console.log(`${what.padEnd(44)} ${value.toFixed(1).padStart(8)} ${unit}`);
}

async function timed(work) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

await run("1 + 1");
tell("service made → first 1 + 1", performance.now() - began);
await run("console.log(process.pid)");
tell("service made → first cell that needs Node", performance.now() - began);
const memory = process.memoryUsage().rss;

const declaring = [];
for (let i = 0; i < cells; i++) {
  const before = Math.max(0, i - 1);
  declaring.push(
    await run(
      `const x${i} = [1, 2, ${i}].map((v) => v * 2);\nfunction f${i}(a: number) { return a.toFixed(1) + x${before}.length; }\nclass C${i} { x = x${i} }`,
    ),
  );
  if (i + 1 === 100) tell("declaring cell, 80 to 100", median(declaring.slice(-20)));
}
tell(`declaring cell, the last 20 of ${cells}`, median(declaring.slice(-20)));

const declared = process.memoryUsage().rss;
const small = [];
for (let i = 0; i < 60; i++) small.push(await run(`${i} + 1`));
tell("distinct small expression", median(small));
const unchecked = [];
for (let i = 0; i < 60; i++) unchecked.push(await run(`${i} + 2`, "off"));
tell("the same, types off", median(unchecked));

const completions = [];
const inspections = [];
for (let i = 0; i < 40; i++) {
  const code = `const fresh${i} = x${i}.map((v) => v + ${i});\nfresh${i}.`;
  completions.push(await timed(() => service.complete(code, code.length)));
  inspections.push(await timed(() => service.inspect(code, code.length - 2, 0)));
}
tell("completion in code not yet run", median(completions));
tell("inspection", median(inspections));
tell(`memory after the start`, memory / 1e6, "MB");
tell(`memory after ${cells} declaring cells`, declared / 1e6, "MB");
await new Promise((resolve) => setTimeout(resolve, 2_000));
tell(`memory at the end, idle`, process.memoryUsage().rss / 1e6, "MB");
await service.dispose();
