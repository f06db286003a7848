// "Messages on the IOPub (PUB/SUB) channel" and cursors: updates, late output, parents, positions in code points.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Json, Message } from "../../kernel/protocol/message.js";
import { execute, of, printed, sequence, sleep, startKernel, type TestKernel } from "./support.js";

describe("output by the messaging protocol", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
  });
  after(() => kernel.stop());

  it("updates a display from a later cell by its id", async () => {
    const first = await execute(kernel.client, "display({ 'text/plain': 'one' }, { id: 'd1' });");
    assert.deepEqual(of(first, "display_data")[0]!.content, {
      data: { "text/plain": "one" },
      metadata: {},
      transient: { display_id: "d1" },
    });
    const second = await execute(
      kernel.client,
      "display({ 'text/plain': 'two' }, { id: 'd1', update: true, metadata: { 'text/plain': { a: 1 } } });",
    );
    assert.deepEqual(sequence(second), ["busy", "execute_input", "update_display_data", "idle"]);
    assert.deepEqual(of(second, "update_display_data")[0]!.content, {
      data: { "text/plain": "two" },
      metadata: { "text/plain": { a: 1 } },
      transient: { display_id: "d1" },
    });
  });

  it("hands pages over with the reply of their cell", async () => {
    const code =
      "(Reflect.get(globalThis, Symbol.for('tunebook.publish/1')) as { page(data: object): void }).page({ 'text/plain': 'help' });";
    const { reply } = await execute(kernel.client, code);
    assert.deepEqual(reply.content.payload, [{ source: "page", data: { "text/plain": "help" }, start: 0 }]);
    assert.deepEqual((await execute(kernel.client, "1")).reply.content.payload, []);
  });

  it("shows late output of several cells each under its own, while others run", async () => {
    const parents = new Map<string, Set<unknown>>();
    const look = ({ header, parent, content }: Message): void => {
      if (header.msg_type !== "stream") return;
      for (const name of String(content.text).match(/cell \d/g) ?? []) {
        parents.set(name, (parents.get(name) ?? new Set()).add(parent.msg_id));
      }
    };
    kernel.client.on("iopub", look);
    const ids: unknown[] = [];
    for (let i = 0; i < 4; i++) {
      const code = `let left${i} = 8; const timer${i} = setInterval(() => { console.log("cell ${i}"); if (--left${i} === 0) clearInterval(timer${i}); }, 40);`;
      ids.push((await execute(kernel.client, code)).reply.parent.msg_id);
    }
    await execute(kernel.client, "for (let i = 0; i < 10; i++) { await new Promise((go) => setTimeout(go, 30)); }");
    await sleep(300);
    kernel.client.off("iopub", look);
    assert.deepEqual(
      [...parents].sort().map(([, set]) => [...set]),
      ids.map((id) => [id]),
    );
  });

  it("copies the request's header into every message verbatim, unknown fields too", async () => {
    const frames = kernel.client.encode("execute_request", { code: "console.log(1); 2", silent: false });
    const header = JSON.parse(Buffer.from(frames[2]!).toString()) as Json;
    const seen: Message[] = [];
    const look = (message: Message): void => {
      if (message.parent.msg_id === header.msg_id) seen.push(message);
    };
    kernel.client.on("iopub", look);
    kernel.client.sendRaw("shell", frames);
    for (let i = 0; i < 100 && seen.at(-1)?.content.execution_state !== "idle"; i++) await sleep(20);
    kernel.client.off("iopub", look);
    assert.equal(seen.length, 5);
    for (const message of seen) assert.deepEqual(message.parent, header);
  });

  it("says busy and idle around every request on shell and control", async () => {
    for (const [channel, type, content] of [
      ["shell", "kernel_info_request", {}],
      ["shell", "comm_info_request", {}],
      ["shell", "history_request", { hist_access_type: "tail", n: 1 }],
      ["shell", "is_complete_request", { code: "1" }],
      ["shell", "complete_request", { code: "Mat", cursor_pos: 3 }],
      ["shell", "inspect_request", { code: "Math", cursor_pos: 2 }],
      ["control", "kernel_info_request", {}],
      ["control", "interrupt_request", {}],
      ["control", "list_subshell_request", {}],
      ["control", "debug_request", {}],
    ] as const) {
      const answer = await kernel.client.request(channel, type, content, { timeoutMs: 20_000 });
      assert.deepEqual(sequence(answer), ["busy", "idle"], type);
      assert.ok("status" in answer.reply.content, type);
    }
  });

  it("counts cursors in code points, also where it inspects", async () => {
    const code = "const 𝒳𝒴 = '😀😀'; 𝒳𝒴.length; Math.max(1)";
    const cursor_pos = [...code.slice(0, code.indexOf("max") + 1)].length;
    const { reply } = await kernel.client.request("shell", "inspect_request", { code, cursor_pos, detail_level: 0 });
    assert.equal(reply.content.found, true);
    assert.match(String((reply.content.data as Json)["text/plain"]), /max\(/);
    const text = "'😀'.toUpperC";
    const completed = await kernel.client.request("shell", "complete_request", {
      code: text,
      cursor_pos: [...text].length,
    });
    assert.deepEqual(
      [completed.reply.content.cursor_start, completed.reply.content.cursor_end],
      [[...text].length - "toUpperC".length, [...text].length],
    );
  });

  it("keeps each user expression's own success or error, and none with a failed cell", async () => {
    const answer = await execute(kernel.client, "const q = 3;", {
      user_expressions: {
        good: "q + 1",
        throws: "(() => { throw new RangeError('r'); })()",
        syntax: "1 +",
        rich: "({ a: q })",
      },
    });
    const found = answer.reply.content.user_expressions as Record<string, Json>;
    assert.deepEqual(
      Object.entries(found).map(([name, { status, ename }]) => [name, status, ename]),
      [
        ["good", "ok", undefined],
        ["throws", "error", "RangeError"],
        ["syntax", "error", "SyntaxError"],
        ["rich", "ok", undefined],
      ],
    );
    assert.deepEqual(found.rich!.data, { "text/plain": "{ a: 3 }" });
  });

  it("prints a million lines and a line of megabytes without losing a byte", async () => {
    const many = await execute(kernel.client, "for (let i = 0; i < 100_000; i++) console.log(i);");
    const text = printed(many, "stdout");
    assert.equal(text.length, 588_890);
    assert.ok(text.startsWith("0\n1\n2\n") && text.endsWith("\n99999\n"));
    const long = await execute(kernel.client, "console.log('x'.repeat(8_000_000));");
    assert.equal(printed(long, "stdout").length, 8_000_001);
    const shown = await execute(kernel.client, "display({ 'text/plain': 'y'.repeat(8_000_000) });");
    const [display] = of(shown, "display_data");
    assert.equal(String((display!.content.data as Json)["text/plain"]).length, 8_000_000);
  });
});
