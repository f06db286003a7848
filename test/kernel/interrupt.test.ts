import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, it } from "node:test";
import type { Answer } from "../../kernel/protocol/client.js";
import { execute, published, sleep, startKernel, type TestKernel, value } from "./support.js";

describe("interrupts", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel({ TUNEBOOK_INTERRUPT_GRACE_MS: "1500" });
    await execute(kernel.client, "let state = 0;");
  });
  after(() => kernel.stop());

  async function interrupted(code: string): Promise<{ answer: Answer; ms: number }> {
    const begun = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const running = execute(kernel.client, `console.log("begun"); ${code}`);
    await begun;
    await sleep(50);
    const started = performance.now();
    await kernel.client.request("control", "interrupt_request", {}, { timeoutMs: 5_000 });
    const answer = await running;
    return { answer, ms: performance.now() - started };
  }

  const cases: [name: string, code: string][] = [
    ["an endless loop", "while (true) {}"],
    ["a loop after an await", "await null; while (true) {}"],
    ["a loop of awaits that never leaves the microtasks", "while (true) await null;"],
    ["an await for ever", "await new Promise(() => {});"],
    ["an awaited timer", "await new Promise((resolve) => setTimeout(resolve, 1e6));"],
    ["an awaited promised timer", "await (await import('node:timers/promises')).setTimeout(1e6);"],
    ["a loop of timers", "for (;;) await new Promise((resolve) => setTimeout(resolve, 5));"],
    ["a loop inside a timer", "setTimeout(() => { while (true) {} }, 10); await new Promise(() => {});"],
    ["a loop inside an immediate", "setImmediate(() => { while (true) {} }); await new Promise(() => {});"],
    ["a program that is waited for", "require('node:child_process').execSync('sleep 60');"],
    ["a loop that prints", "for (;;) console.log('x'.repeat(100));"],
  ];
  for (const [index, [name, code]] of cases.entries()) {
    it(`stop ${name} within a second and keep variables`, async () => {
      const { answer, ms } = await interrupted(`state = ${index + 1}; ${code}`);
      assert.equal(answer.reply.content.status, "error");
      assert.equal(answer.reply.content.ename, "InterruptedError");
      assert.ok(ms < 1_000, `${ms} ms`);
      assert.equal(await value(kernel.client, "state"), String(index + 1));
    });
  }

  it("stop a fetch", async () => {
    const server = createServer(() => {}).listen(0, "127.0.0.1");
    try {
      await new Promise((resolve) => server.once("listening", resolve));
      const { port } = server.address() as AddressInfo;
      const { answer, ms } = await interrupted(`state = 20; await fetch("http://127.0.0.1:${port}/");`);
      assert.equal(answer.reply.content.ename, "InterruptedError");
      assert.ok(ms < 1_000, `${ms} ms`);
      assert.equal(await value(kernel.client, "state"), "20");
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it("reach libraries through the flag and the signal", async () => {
    const code = [
      "interface Interrupt { flag: Int32Array; signal(): AbortSignal }",
      "const interrupt = Reflect.get(globalThis, Symbol.for('tunebook.interrupt/1')) as Interrupt;",
      "let aborted = false;",
      "interrupt.signal().addEventListener('abort', () => { aborted = true; });",
      "let polls = 0;",
      "while (Atomics.load(interrupt.flag, 0) === 0) polls++;",
      "const seen = interrupt.flag[0];",
      "await new Promise((resolve) => setTimeout(resolve, 1));",
    ].join("\n");
    const { answer, ms } = await interrupted(code);
    assert.equal(answer.reply.content.ename, "InterruptedError");
    assert.ok(ms < 1_000, `${ms} ms`);
    assert.equal(await value(kernel.client, "[seen, aborted, polls > 0, interrupt.flag[0]]"), "[ 1, true, true, 0 ]");
  });

  it("run the finally blocks of code that awaits what listens", async () => {
    const code =
      "let cleaned = false; try { await (await import('node:timers/promises')).setTimeout(1e6); } finally { cleaned = true; }";
    await interrupted(code);
    assert.equal(await value(kernel.client, "cleaned"), "true");
  });

  it("do nothing to an idle kernel", async () => {
    await kernel.client.request("control", "interrupt_request");
    assert.equal(await value(kernel.client, "state"), "20");
  });

  it("stop a cell that is still being compiled", async () => {
    const names = Array.from({ length: 300 }, (_, i) => `const wide${i} = { a: ${i}, b: [${i}, "x"] as const };`);
    const taken = published(kernel.client, ({ header }) => header.msg_type === "execute_input");
    const running = execute(kernel.client, `${names.join("\n")}\nstate = 98;`);
    await taken;
    await kernel.client.request("control", "interrupt_request");
    assert.equal((await running).reply.content.ename, "InterruptedError");
    assert.equal(await value(kernel.client, "state"), "20");
  });

  it("abort the cells that wait", async () => {
    const begun = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const running = execute(kernel.client, "console.log('begun'); while (true) {}");
    const waiting = execute(kernel.client, "state = 99");
    await begun;
    await kernel.client.request("control", "interrupt_request");
    assert.equal((await running).reply.content.status, "error");
    assert.equal((await waiting).reply.content.status, "aborted");
    assert.equal(await value(kernel.client, "state"), "20");
  });

  it("restart the executor when nothing else helps, and say so", async () => {
    const code =
      "process.on('SIGINT', () => {}); require('node:child_process').execFileSync('sh', ['-c', 'trap \"\" INT; sleep 20']);";
    const begun = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const running = execute(kernel.client, `console.log("begun"); ${code}`);
    await begun;
    await sleep(100);
    await kernel.client.request("control", "interrupt_request");
    const { content } = (await running).reply;
    assert.equal(content.ename, "ExecutorDied");
    assert.match(String(content.evalue), /did not stop .* variables of earlier cells are lost/);
    assert.equal(await value(kernel.client, "1 + 1"), "2");
  });
});
