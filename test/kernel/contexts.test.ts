import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Answer } from "../../kernel/protocol/client.js";
import type { Message } from "../../kernel/protocol/message.js";
import { execute, of, printed, startKernel, type TestKernel } from "./support.js";

// Each line says under which cell it belongs: the cell that calls, wherever the function was written.
describe("output of functions of other cells", () => {
  let kernel: TestKernel;
  const streams: [cell: number, line: string][] = [];
  const counts = new Map<unknown, number>();
  const listen = ({ header, parent, content }: Message): void => {
    if (header.msg_type === "execute_input") counts.set(parent.msg_id, content.execution_count as number);
    if (header.msg_type !== "stream") return;
    for (const line of String(content.text).trimEnd().split("\n")) streams.push([counts.get(parent.msg_id)!, line]);
  };
  const run = async (code: string): Promise<Answer> => {
    const answer = await execute(kernel.client, code);
    assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content));
    return answer;
  };

  before(async () => {
    kernel = await startKernel();
    kernel.client.on("iopub", listen);
    await run(`
      const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
      function say(text: string) { console.log(text); }
      async function later(text: string) { say("before " + text); await sleep(20); say("after " + text); await null; console.log("end " + text); }
      const arrow = async (text: string) => (await sleep(5), say(text));
      class Speaker { async speak(text: string) { await null; console.log(text); } static async one(text: string) { await sleep(1); say(text); } }
      async function* numbers() { for (let i = 0; i < 2; i++) { await sleep(5); console.log("gives " + i); yield i; } }
      async function fails(): Promise<never> { await sleep(5); throw new Error("on purpose"); }
      async function catches() { try { await fails(); } catch { say("caught"); } finally { say("finally"); } }
      function shows() { display("shown"); }
    `);
  });
  after(() => kernel.stop());

  it("belongs to the calling cell: at once, after an await, in every kind of asynchronous function", async () => {
    const answer = await run(`
      say("direct");
      await later("x");
      say("then");
      await arrow("arrow");
      await new Speaker().speak("method");
      await Speaker.one("static");
      for await (const n of numbers()) say("takes " + n);
      say("after the loop");
      await catches();
      await Promise.all([later("a"), later("b")]);
      [1, 2].forEach((n) => say("each " + n));
      setTimeout(() => say("timer"), 5);
      await sleep(20);
      shows();
    `);
    const lines = printed(answer, "stdout").trimEnd().split("\n");
    assert.deepEqual(lines, [
      "direct",
      "before x",
      "after x",
      "end x",
      "then",
      "arrow",
      "method",
      "static",
      "gives 0",
      "takes 0",
      "gives 1",
      "takes 1",
      "after the loop",
      "caught",
      "finally",
      "before a",
      "before b",
      "after a",
      "end a",
      "after b",
      "end b",
      "each 1",
      "each 2",
      "timer",
    ]);
    assert.equal(of(answer, "display_data").length, 1);
  });

  it("stays with the cell that started it when it comes late, while other cells run", async () => {
    const started = await run(`
      let going = true;
      const background = (async () => { while (going) { await sleep(10); say("background"); } })();
      const timer = setInterval(() => say("interval"), 10);
      later("not awaited");
      say("sync after it");
    `);
    const first = started.reply.content.execution_count as number;
    const second = await run(
      `for (let i = 0; i < 10; i++) { await sleep(10); say("foreground"); await null; say("foreground"); }`,
    );
    const count = second.reply.content.execution_count as number;
    await run("going = false; clearInterval(timer); await background;");
    const under = (text: string): Set<number> =>
      new Set(streams.filter(([, line]) => line === text).map(([cell]) => cell));
    assert.deepEqual(under("background"), new Set([first]));
    assert.deepEqual(under("interval"), new Set([first]));
    assert.deepEqual(under("after not awaited"), new Set([first]));
    assert.deepEqual(under("end not awaited"), new Set([first]));
    assert.deepEqual(under("sync after it"), new Set([first]));
    assert.deepEqual(under("foreground"), new Set([count]));
    assert.equal(streams.filter(([, line]) => line === "foreground").length, 20);
    // It really ran beside the second cell.
    const at = streams.findIndex(([, line]) => line === "foreground");
    assert.ok(streams.slice(at).some(([, line]) => line === "background"));
  });

  it("is the writing cell's in callbacks of promises, which nobody accounts for", async () => {
    const answer = await run("Promise.resolve().then(() => console.log('then')); await sleep(5);");
    assert.equal(printed(answer, "stdout"), "then\n");
  });

  it("is right again after an interrupt of a loop in a function of another cell", async () => {
    await run("function spin() { while (true); }\nasync function spinLater() { await null; while (true); }");
    for (const call of ["spin()", "await spinLater()"]) {
      const running = execute(kernel.client, call);
      await new Promise((resolve) => setTimeout(resolve, 300));
      await kernel.client.request("control", "interrupt_request", {});
      assert.equal((await running).reply.content.ename, "InterruptedError");
      const answer = await run("say('on'); await later('again');");
      assert.equal(printed(answer, "stdout"), "on\nbefore again\nafter again\nend again\n");
    }
  });

  it("costs little", async () => {
    const answer = await run(`
      async function step() { await null; }
      const begun = performance.now();
      for (let i = 0; i < 200_000; i++) await step();
      console.log(((performance.now() - begun) / 200_000 * 1e6).toFixed(0));
    `);
    assert.ok(Number(printed(answer, "stdout")) > 0);
  });
});
