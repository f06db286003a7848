import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { explain, oomEvidence } from "../../kernel/execute/crash.js";
import { faults, well } from "./faults.js";
import { fuzz } from "./fuzz.js";
import { soak } from "./soak.js";
import { startKernel, type TestKernel } from "./support.js";

describe("a kernel survives", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel({ TUNEBOOK_EXECUTOR_OPTIONS: "--max-old-space-size=120" });
  });
  after(() => kernel.stop());

  for (const fault of faults({ line: 4_000_000, prints: 50_000, display: 10_000_000 })) {
    it(`${fault.name}, and says so`, async () => {
      await fault.provoke(kernel);
      await well(kernel);
    });
  }

  it("four thousand malformed, forged and replayed messages, none of which is acted upon", async () => {
    assert.deepEqual(await fuzz(kernel, 4_000, 7), { sent: 4_000, acted: 0, missed: 0 });
    await well(kernel);
  });
});

describe("many cells", () => {
  it("leave the number of open files alone, and memory within bounds", async () => {
    const kernel = await startKernel();
    try {
      await soak(kernel, 24, 24);
      const [first, last] = await soak(kernel, 96, 96);
      assert.equal(last!.files, first!.files);
      assert.equal(last!.processes, first!.processes);
      assert.ok(last!.memory - first!.memory < 60, `${last!.memory - first!.memory} MB`);
    } finally {
      await kernel.stop();
    }
  });
});

describe("the end of an executor", () => {
  const ending = { code: null, signal: "SIGKILL" as NodeJS.Signals, stderr: "", unstoppable: false };
  it("is the out-of-memory killer's where its control group has counted, or the machine has", () => {
    assert.match(explain({ ...ending, oomKills: { group: 1, machine: 0 } }), /out-of-memory killer ended the process/);
    assert.match(explain({ ...ending, oomKills: { group: 0, machine: 1 } }), /most likely .*out-of-memory killer/);
    assert.match(explain({ ...ending, oomKills: { group: 0, machine: 0 } }), /was killed \(SIGKILL\)/);
  });

  it("is counted in control groups of both versions", () => {
    const files = new Map([
      ["/proc/self/cgroup", "4:memory:/a/b\n0::/\n"],
      ["/sys/fs/cgroup/memory/a/b/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"],
      ["/proc/vmstat", "pgfault 1\noom_kill 9\n"],
    ]);
    const read = (path: string): string => {
      const text = files.get(path);
      if (text === undefined) throw new Error("ENOENT");
      return text;
    };
    assert.deepEqual(oomEvidence(read), { group: 3, machine: 9 });
    files.set("/proc/self/cgroup", "0::/x\n");
    files.set("/sys/fs/cgroup/x/memory.events", "low 0\noom 1\noom_kill 5\n");
    assert.deepEqual(oomEvidence(read), { group: 5, machine: 9 });
    assert.deepEqual(
      oomEvidence(() => ""),
      { group: 0, machine: 0 },
    );
  });
});
