import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { execute, printed, sleep, startKernel, type TestKernel, value } from "./support.js";

describe("an executor that dies", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel({ TUNEBOOK_EXECUTOR_OPTIONS: "--max-old-space-size=120" });
  });
  after(() => kernel.stop());

  const forever = "await new Promise(() => {});";
  const cases: [name: string, code: string, says: RegExp][] = [
    ["killed", `process.kill(process.pid, "SIGKILL"); ${forever}`, /killed \(SIGKILL\)/],
    ["crashed in native code", `process.kill(process.pid, "SIGSEGV"); ${forever}`, /Native code crashed \(SIGSEGV\)/],
    [
      "out of heap",
      "const hoard: object[] = []; for (;;) hoard.push(new Array(1e5).fill({}));",
      /out of JavaScript heap/,
    ],
    ["ended by process.exit", "console.log('last words'); process.exit(3);", /exit code 3/],
  ];
  for (const [name, code, says] of cases) {
    it(`is an error of the running cell when it was ${name}, and the next cell runs`, async () => {
      const answer = await execute(kernel.client, code);
      assert.equal(answer.reply.content.status, "error");
      assert.equal(answer.reply.content.ename, "ExecutorDied");
      assert.match(String(answer.reply.content.evalue), says);
      if (name.includes("exit")) assert.equal(printed(answer, "stdout"), "last words\n");
      assert.equal(await value(kernel.client, "1 + 1"), "2");
    });
  }

  it("between two cells is told by the next one", async () => {
    const pid = await value(kernel.client, "process.pid");
    process.kill(Number(pid), "SIGKILL");
    await sleep(200);
    const answer = await execute(kernel.client, "2 + 2");
    assert.equal(answer.reply.content.status, "ok");
    assert.match(printed(answer, "stderr"), /killed \(SIGKILL\).*variables of earlier cells are lost/);
    assert.equal(printed(await execute(kernel.client, "3"), "stderr"), "");
  });

  it("takes its child processes with it", async () => {
    const code = "const sleeper = require('node:child_process').spawn('sleep', ['60']);\nsleeper.pid";
    const pid = Number(await value(kernel.client, code));
    await execute(kernel.client, "process.exit(0)");
    await sleep(100);
    assert.equal(alive(pid), false);
  });

  it("ends with the kernel process, even when that is killed", async () => {
    const own = await startKernel();
    const pid = Number(await value(own.client, "process.pid"));
    const busy = own.client.execute("while (true) {}").catch(() => {});
    await sleep(150);
    own.process.kill("SIGKILL");
    await busy;
    for (let i = 0; i < 20 && alive(pid); i++) await sleep(50);
    assert.equal(alive(pid), false);
    await own.stop();
  });
});

// A killed process whose parent has gone may stay as a zombie where nobody collects it.
function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
