// The kernel beside tslab, Deno and ipykernel: a fresh process of each a round, in turns, the same client and the same cells.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { bin } from "../venv.mjs";
import { root } from "./duel.mjs";
import { Probe, sleep } from "./kernel-probe.mjs";

const TSLAB = "1.0.22";
const DENO = "2.9.8";
const LINES = 20_000;
const peers = join(root, ".cache", "kernel-peers");
const tslab = join(peers, "tslab", "node_modules", "tslab", "bin", "tslab");
const deno = join(peers, "deno", "bin", process.platform === "win32" ? "deno.exe" : "deno");

const typescript = {
  one: "1 + 1",
  small: (i) => `${i} + 1`,
  declare: (i, before) =>
    `const x${i} = [1, 2, ${i}].map((v) => v * 2);\nfunction f${i}(a: number) { return a.toFixed(1) + x${before}.length; }\nclass C${i} { x = x${i} }`,
  complete: (i) => `const fresh${i} = [1, 2, ${i}].map((v) => v + 1);\nfresh${i}.`,
  completed: "map",
  lines: `for (let i = 0; i < ${LINES}; i++) console.log("line " + i);`,
  keep: "var kept = 41;",
  kept: "kept",
  loop: "while (true) {}",
  wait: "await new Promise(() => {});",
};
const python = {
  ...typescript,
  declare: (i, before) =>
    `x${i} = [v * 2 for v in [1, 2, ${i}]]\ndef f${i}(a: float): return f"{a:.1f}" + str(len(x${before}))\nclass C${i}: x = x${i}`,
  complete: (i) => `fresh${i} = [v + 1 for v in [1, 2, ${i}]]\nfresh${i}.`,
  completed: "append",
  lines: `for i in range(${LINES}): print("line", i)`,
  keep: "import asyncio\nkept = 41",
  loop: "while True: pass",
  wait: "await asyncio.get_running_loop().create_future()",
};

const KERNELS = [
  {
    name: "tunebook",
    argv: (file) => [process.execPath, join(root, "dist", "kernel", "main.js"), file],
    interrupt: "message",
    cells: typescript,
  },
  {
    name: "tslab",
    argv: (file) => [process.execPath, tslab, "kernel", "--config-path", file],
    interrupt: "signal",
    cwd: join(peers, "tslab"), // where it finds Node's types
    cells: typescript,
  },
  {
    name: "Deno",
    argv: (file) => [deno, "jupyter", "--kernel", "--conn", file],
    interrupt: "signal",
    cells: typescript,
    env: { DENO_NO_UPDATE_CHECK: "1" },
  },
  {
    name: "ipykernel",
    argv: (file) => [bin("python"), "-m", "ipykernel_launcher", "-f", file],
    interrupt: "signal",
    cells: python,
  },
];

/** Fetches the peers into `.cache`; nothing is done when they are there. */
export function preparePeers() {
  if (!existsSync(tslab)) {
    mkdirSync(join(peers, "tslab"), { recursive: true });
    writeFileSync(join(peers, "tslab", "package.json"), '{ "private": true }\n');
    install("npm", ["install", "--no-audit", "--no-fund", `tslab@${TSLAB}`], join(peers, "tslab"));
  }
  if (!existsSync(deno)) {
    install(bin("python"), ["-m", "venv", join(peers, "deno")], root);
    install(join(peers, "deno", "bin", "pip"), ["install", "-q", `deno==${DENO}`], root);
  }
}

function install(program, args, cwd) {
  const { status } = spawnSync(program, args, { cwd, stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) throw new Error(`"${program} ${args.join(" ")}" ended with code ${status}`);
}

/** @param {{ rounds: number, filter?: string, smoke?: boolean }} options - `filter`: kernels whose name contains it */
export async function benchKernel({ rounds, filter = "", smoke = false }) {
  const kernels = KERNELS.filter(({ name }) => name.toLowerCase().includes(filter.toLowerCase()));
  const size = smoke ? { small: 5, declare: 10, long: 0 } : { small: 40, declare: 200, long: 1_000 };
  const samples = new Map(kernels.map(({ name }) => [name, []]));
  for (let round = 0; round < (smoke ? 1 : rounds); round++) {
    // Who comes first changes, so that a drift of the machine meets each of them.
    for (let i = 0; i < kernels.length; i++) {
      const kernel = kernels[(i + round) % kernels.length];
      console.log(`round ${round + 1}: ${kernel.name} (load ${loadavg()[0].toFixed(1)})`);
      const found = await measure(kernel, size);
      samples.get(kernel.name).push(found);
      console.log(
        Object.entries(found)
          .map(([name, value]) => `  ${name}: ${shown(value)}`)
          .join("\n"),
      );
    }
  }
  const rows = new Map(kernels.map(({ name }) => [name, middle(samples.get(name))]));
  for (const kernel of kernels) {
    const row = rows.get(kernel.name);
    if (size.long > 0 && kernel.name === "tunebook") Object.assign(row, await long(kernel, size.long));
    row["outputs lost by nbclient, of 200"] = lostByNbclient(kernel, smoke ? 20 : 200);
  }
  const measures = [...new Set([...rows.values()].flatMap((row) => Object.keys(row)))];
  const table = measures.map((name) => [name, ...kernels.map((kernel) => shown(rows.get(kernel.name)[name]))]);
  console.log(`\nMedians of ${smoke ? 1 : rounds} rounds; tslab ${TSLAB}, Deno ${DENO}, Node ${process.versions.node}`);
  console.log(markdown(["", ...kernels.map(({ name }) => name)], table));
}

async function measure(kernel, size) {
  const { cells } = kernel;
  const probe = await Probe.start(kernel);
  const found = {};
  try {
    found["spawn → kernel_info, ms"] = await probe.info();
    found["spawn → first 1 + 1, ms"] = (await probe.run(cells.one)).at - probe.began;
    await sleep(2_000); // what goes on behind the first reply ends
    found["memory after start, MB"] = probe.memory() / 1e6;
    found["small expression, ms"] = median(await times(size.small, (i) => probe.run(cells.small(i))));
    if (kernel.name === "tunebook") {
      await probe.run("%typecheck off");
      found["the same, %typecheck off, ms"] = median(await times(size.small, (i) => probe.run(cells.small(i + 500))));
      await probe.run("%typecheck error");
    }
    const completions = await times(size.small, async (i) => {
      const code = cells.complete(i);
      const answer = await probe.ask("complete_request", { code, cursor_pos: code.length });
      if (!answer.reply?.matches?.some((match) => match.endsWith(cells.completed))) found["completion is typed"] = "no";
      return answer;
    });
    found["completion, ms"] = median(completions);
    found["completion is typed"] ??= "yes";
    const declaring = await times(size.declare, (i) => probe.run(cells.declare(i, Math.max(0, i - 1))));
    found[`declaring cell, last 20 of ${size.declare}, ms`] = median(declaring.slice(-20));
    await sleep(2_500);
    found[`memory after ${size.declare} declaring cells, MB`] = probe.memory() / 1e6;
    await lines(probe, cells, found);
  } finally {
    await probe.stop();
  }
  Object.assign(found, await interrupts(kernel));
  return found;
}

async function times(count, body) {
  const found = [];
  for (let i = 0; i < count; i++) {
    const { ms, reply } = await body(i);
    if (reply?.status !== "ok") throw new Error(`a cell has failed: ${JSON.stringify(reply)}`);
    found.push(ms);
    await sleep(3); // a front end that sends the next cell
  }
  return found;
}

async function lines(probe, cells, found) {
  const seen = { lines: 0, messages: 0 };
  let id;
  const count = (message) => {
    if (message.header.msg_type !== "stream" || message.parent.msg_id !== id) return;
    seen.messages++;
    seen.lines += message.content.text.split("\n").length - 1;
  };
  probe.client.on("iopub", count);
  const answer = await probe.run(cells.lines, { limit: 10_000, onSent: (sent) => (id = sent) });
  found["20,000 lines: before idle"] = answer.idle ? seen.lines : `never idle, ${seen.lines}`;
  await sleep(2_000);
  probe.client.off("iopub", count);
  found["20,000 lines: lost"] = LINES - seen.lines;
  found["20,000 lines: messages"] = seen.messages;
  found["20,000 lines: seconds"] = answer.ms / 1_000;
}

/** Each in a process of its own: what the other measures leave behind in a kernel is not the interrupt's fault. */
async function interrupts(kernel) {
  const { cells } = kernel;
  const found = {};
  const cases = { "interrupt, while (true) {}, ms": cells.loop, "interrupt, endless await, ms": cells.wait };
  for (const [name, code] of Object.entries(cases)) {
    const probe = await Probe.start(kernel);
    try {
      await probe.info();
      await probe.run(cells.keep);
      await sleep(1_500); // a kernel that still loads behind its first reply has not begun to run the loop when it is interrupted
      const running = probe.run(code, { limit: 5_000 });
      await sleep(500);
      const began = performance.now();
      probe.interrupt();
      const { reply, at } = await running;
      await sleep(500); // tslab turns away what comes within 200 ms of an error
      const state = probe.alive && reply ? await probe.run(cells.kept, { limit: 3_000 }) : undefined;
      const kept = state?.reply?.status === "ok"; // the name is still known
      if (!probe.alive) found[name] = "process dies";
      else if (reply === undefined) found[name] = "not stopped";
      else if (at < began) found[name] = "ends at once";
      else found[name] = kept ? at - began : "stops, state lost";
    } finally {
      await probe.stop();
    }
  }
  return found;
}

/** Cell 1,000 beside cell 100, in one kernel. */
async function long(kernel, count) {
  const probe = await Probe.start(kernel);
  try {
    await probe.info();
    await probe.run(kernel.cells.one);
    const took = await times(count, (i) => probe.run(kernel.cells.declare(i, Math.max(0, i - 1))));
    const hundredth = median(took.slice(90, 110));
    const last = median(took.slice(-20));
    return {
      "declaring cell 100, ms": hundredth,
      "declaring cell 1,000, ms": last,
      "cell 1,000 / cell 100": last / hundredth,
    };
  } finally {
    await probe.stop();
  }
}

/** Runs a notebook of small cells through nbclient, by a kernelspec made for it. */
function lostByNbclient(kernel, count) {
  const folder = mkdtempSync(join(tmpdir(), "tunebook-bench-"));
  try {
    const spec = join(folder, "kernels", "bench");
    mkdirSync(spec, { recursive: true });
    const language = kernel.cells === python ? "python" : "typescript";
    const argv = kernel.argv("{connection_file}");
    const value = { argv, display_name: "bench", language, interrupt_mode: kernel.interrupt, env: kernel.env ?? {} };
    writeFileSync(join(spec, "kernel.json"), JSON.stringify(value));
    const result = join(folder, "lost.json");
    const script = join(root, "scripts", "bench", "kernel-nbclient.py");
    const env = { ...process.env, JUPYTER_PATH: folder };
    spawnSync(bin("python"), [script, result, String(count), language], { env, timeout: 120_000, stdio: "ignore" });
    return existsSync(result) ? JSON.parse(readFileSync(result, "utf8")).lost : "does not end";
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

/** Each measure's median over the rounds; words where any round has them. */
function middle(rounds) {
  const names = [...new Set(rounds.flatMap((each) => Object.keys(each)))];
  return Object.fromEntries(
    names.map((name) => {
      const values = rounds.map((each) => each[name]).filter((value) => value !== undefined);
      return [name, values.find((value) => typeof value === "string") ?? median(values)];
    }),
  );
}

function shown(value) {
  if (typeof value !== "number") return value ?? "-";
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(value < 10 ? 2 : 1);
}

function markdown(head, rows) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}
