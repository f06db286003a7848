// npm run faults: kills, crashes, exhausted heaps and floods of output in their full sizes; after each the kernel says
// what has happened and goes on. Needs a build. As root with a writable memory control group (version 1 or 2) it also
// provokes the out-of-memory killer.
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { faults, well } from "../dist/test/kernel/faults.js";
import { execute, startKernel, value } from "../dist/test/kernel/support.js";

const MB = 2 ** 20;
let failed = 0;
async function check(name, body) {
  const began = performance.now();
  try {
    await body();
    console.log(`ok ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed++;
    console.log(
      `not ok ${name}\n    ${String(error.stack ?? error)
        .slice(0, 2000)
        .replaceAll("\n", "\n    ")}`,
    );
  }
}

const kernel = await startKernel({ TUNEBOOK_EXECUTOR_OPTIONS: "--max-old-space-size=900" });
try {
  for (const fault of faults({ line: 100 * MB, prints: 1_000_000, display: 200 * MB })) {
    await check(fault.name, async () => {
      await fault.provoke(kernel);
      await well(kernel);
    });
  }
} finally {
  await kernel.stop();
}

/** A memory control group of its own, or undefined where none can be made. */
function controlGroup() {
  const name = `tunebook-faults-${process.pid}`;
  for (const [folder, limit] of [
    [`/sys/fs/cgroup/memory/${name}`, "memory.limit_in_bytes"],
    [`/sys/fs/cgroup/${name}`, "memory.max"],
  ]) {
    try {
      mkdirSync(folder);
      if (existsSync(`${folder}/${limit}`)) return { folder, limit: `${folder}/${limit}` };
      rmdirSync(folder);
    } catch {}
  }
  return undefined;
}

const group = controlGroup();
if (group === undefined) console.log("skipped: the out-of-memory killer (no control group can be made here)");
else {
  const own = await startKernel();
  try {
    await check("the out-of-memory killer is named", async () => {
      await execute(own.client, "1");
      const executor = Number(await value(own.client, "process.pid"));
      const memory = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${own.process.pid}/status`, "utf8"))[1]) * 1024;
      writeFileSync(group.limit, String(Math.round(memory) + 400 * MB));
      for (const pid of [own.process.pid, executor]) writeFileSync(`${group.folder}/cgroup.procs`, String(pid));
      const code = "const hoard: Buffer[] = []; for (;;) hoard.push(Buffer.alloc(16 * 2 ** 20, 1));";
      const { reply } = await own.client.execute(code, { timeoutMs: 120_000 });
      console.log(`    ${reply.content.evalue}`);
      if (!/out-of-memory killer/.test(String(reply.content.evalue))) throw new Error(JSON.stringify(reply.content));
      await well(own);
    });
  } finally {
    await own.stop();
    rmdirSync(group.folder);
  }
}
process.exitCode = failed > 0 ? 1 : 0;
