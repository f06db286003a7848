// "Kernel interrupt" and "Kernel shutdown": by message and by signal, in the foreground first, then what goes on beside.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Answer } from "../../kernel/protocol/client.js";
import { execute, published, sleep, startKernel, type TestKernel, value } from "./support.js";

describe("an interrupt and work beside cells", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
    // A run as the library makes it: it heeds its cell's signal, and says that it goes on.
    const code = [
      "import { setImmediate as turn } from 'node:timers/promises';",
      "interface Host { flag: Int32Array; signal(): AbortSignal; beside(work: Promise<unknown>): void }",
      "const host = Reflect.get(globalThis, Symbol.for('tunebook.interrupt/1')) as Host;",
      "let steps = 0, flagged = 0;",
      "function start(): Promise<string> {",
      "  const signal = host.signal();",
      "  const work = (async () => {",
      "    while (!signal.aborted) {",
      "      steps++;",
      "      if (Atomics.load(host.flag, 0) !== 0) flagged++;",
      "      await turn(undefined, { signal }).catch(() => {});",
      "    }",
      "    return 'stopped';",
      "  })();",
      "  host.beside(work);",
      "  return work;",
      "}",
    ].join("\n");
    assert.equal((await execute(kernel.client, code)).reply.content.status, "ok");
  });
  after(() => kernel.stop());

  const interrupt = (): Promise<Answer> =>
    kernel.client.request("control", "interrupt_request", {}, { timeoutMs: 5_000 });
  const state = async (): Promise<unknown> =>
    await value(kernel.client, "await Promise.race([run, new Promise((go) => setTimeout(() => go('goes on'), 50))])");

  async function interrupted(code: string): Promise<{ answer: Answer; ms: number }> {
    const begun = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const running = execute(kernel.client, `console.log("begun"); ${code}`);
    await begun;
    await sleep(80);
    const started = performance.now();
    await interrupt();
    const answer = await running;
    assert.equal(answer.reply.content.ename, "InterruptedError");
    return { answer, ms: performance.now() - started };
  }

  it("stop the cell that runs and leave the run alone; the second one stops the run", async () => {
    await execute(kernel.client, "const run = start();");
    for (const code of [
      "await new Promise(() => {});",
      "await new Promise((go) => setTimeout(go, 1e6));",
      "while (true) {}",
      "require('node:child_process').execSync('sleep 60');",
    ]) {
      const { answer, ms } = await interrupted(code);
      assert.ok(ms < 1_000, `${code}: ${ms} ms`);
      assert.match(String(answer.reply.content.evalue), /a second interrupt stops it/);
      assert.equal(await state(), "'goes on'", code);
    }
    const before = Number(await value(kernel.client, "steps"));
    await sleep(100);
    assert.ok(Number(await value(kernel.client, "steps")) > before);
    assert.equal(await value(kernel.client, "flagged"), "0");
    await interrupt();
    assert.equal(await state(), "'stopped'");
  });

  it("of the cell that has started the run stops both", async () => {
    const { answer } = await interrupted("var run = start(); await run; await new Promise(() => {});");
    assert.doesNotMatch(String(answer.reply.content.evalue), /second interrupt/);
    assert.equal(await state(), "'stopped'");
  });

  it("come by SIGINT too", async () => {
    const begun = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const running = execute(kernel.client, "console.log('begun'); while (true) {}");
    await begun;
    kernel.process.kill("SIGINT");
    assert.equal((await running).reply.content.ename, "InterruptedError");
    assert.equal(await value(kernel.client, "typeof start"), "'function'");
  });

  it("are answered on control while a cell never yields, as is kernel_info", async () => {
    const begun = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const running = execute(kernel.client, "console.log('begun'); for (;;) {}");
    await begun;
    const { reply } = await kernel.client.request("control", "kernel_info_request", {}, { timeoutMs: 2_000 });
    assert.equal(reply.content.status, "ok");
    assert.equal(await kernel.client.heartbeat(), true);
    await interrupt();
    await running;
  });

  it("shut down a kernel whose cell never yields, with the reply on IOPub and control", async () => {
    const own = await startKernel();
    const begun = published(own.client, ({ header }) => header.msg_type === "stream");
    own.client.execute("console.log('begun'); for (;;) {}").catch(() => {});
    await begun;
    const told = published(own.client, ({ header }) => header.msg_type === "shutdown_reply");
    const ended = new Promise((resolve) => own.process.once("exit", resolve));
    const { reply } = await own.client.request("control", "shutdown_request", { restart: false }, { timeoutMs: 5_000 });
    assert.deepEqual(reply.content, { status: "ok", restart: false });
    assert.deepEqual((await told).content, { status: "ok", restart: false });
    assert.equal(await ended, 0);
    await own.stop();
  });
});
