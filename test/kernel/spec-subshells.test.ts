// JEP 91: subshells. Cells of several shells take turns on one thread.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Answer } from "../../kernel/protocol/client.js";
import type { Json } from "../../kernel/protocol/message.js";
import { execute, of, printed, sequence, sleep, startKernel, type TestKernel, value } from "./support.js";

describe("subshells", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
  });
  after(() => kernel.stop());

  const ask = async (type: string, content: Json = {}): Promise<Json> =>
    (await kernel.client.request("control", type, content, { timeoutMs: 5_000 })).reply.content;
  const create = async (): Promise<string> => String((await ask("create_subshell_request")).subshell_id);
  const within = (subshell: string, code: string, content: Json = {}): Promise<Answer> =>
    kernel.client.execute(code, { timeoutMs: 20_000, extra: { subshell } }, content);

  it("are made, listed and deleted on control", async () => {
    assert.deepEqual(await ask("list_subshell_request"), { status: "ok", subshell_id: [] });
    const [a, b] = [await create(), await create()];
    assert.deepEqual(await ask("list_subshell_request"), { status: "ok", subshell_id: [a, b] });
    assert.deepEqual(await ask("delete_subshell_request", { subshell_id: a }), { status: "ok" });
    const again = await ask("delete_subshell_request", { subshell_id: a });
    assert.equal(again.status, "error");
    assert.deepEqual(await ask("list_subshell_request"), { status: "ok", subshell_id: [b] });
    for (const type of ["execute_request", "complete_request"]) {
      const content = { code: "1", cursor_pos: 1 };
      const { reply } = await kernel.client.request("shell", type, content, { extra: { subshell: a } });
      assert.equal(reply.header.msg_type, type.replace("request", "reply"));
      assert.equal(reply.content.status, "error");
      assert.match(String(reply.content.evalue), /no subshell/);
    }
    await ask("delete_subshell_request", { subshell_id: b });
  });

  it("run cells while one of the main shell awaits; each has its own output, all share variables and count", async () => {
    const shell = await create();
    const main = execute(
      kernel.client,
      "let done = false; console.log('main begins'); while (!done) await new Promise((go) => setTimeout(go, 20)); console.log('main ends');",
    );
    await sleep(400);
    const beside = await within(shell, "console.log('beside'); display('shown'); done = true; 6 * 7");
    assert.equal(beside.reply.content.status, "ok", JSON.stringify(beside.reply.content));
    assert.equal(printed(beside, "stdout"), "beside\n");
    assert.equal(of(beside, "display_data").length, 1);
    assert.deepEqual(sequence(beside).at(-1), "idle");
    const answer = await main;
    assert.equal(printed(answer, "stdout"), "main begins\nmain ends\n");
    assert.equal(beside.reply.content.execution_count, Number(answer.reply.content.execution_count) + 1);
    await ask("delete_subshell_request", { subshell_id: shell });
  });

  it("take comm messages while a cell runs", async () => {
    const shell = await create();
    await execute(
      kernel.client,
      "let pressed = 0; comms.register('button', (comm) => { comm.onMessage(() => { pressed++; }); });",
    );
    const main = execute(kernel.client, "while (pressed < 2) await new Promise((go) => setTimeout(go, 20)); pressed");
    const send = (type: string, content: Json): void =>
      kernel.client.sendRaw("shell", kernel.client.encode(type, content, { subshell: shell }));
    send("comm_open", { comm_id: "b", target_name: "button", data: {} });
    for (let i = 0; i < 2; i++) send("comm_msg", { comm_id: "b", data: {} });
    assert.equal((await main).reply.content.status, "ok");
    await ask("delete_subshell_request", { subshell_id: shell });
  });

  it("abort their own queue alone after an error", async () => {
    const shell = await create();
    const slow = "await new Promise((go) => setTimeout(go, 200));";
    const [failed, aborted, main] = await Promise.all([
      within(shell, `${slow} throw new Error('here')`),
      within(shell, "1"),
      (async () => {
        void execute(kernel.client, slow);
        return execute(kernel.client, "2");
      })(),
    ]);
    assert.equal(failed.reply.content.status, "error");
    assert.equal(aborted.reply.content.status, "aborted");
    assert.equal(main.reply.content.status, "ok");
    await ask("delete_subshell_request", { subshell_id: shell });
  });

  it("are interrupted together with the main shell, and live on", async () => {
    const shell = await create();
    const main = execute(kernel.client, "await new Promise(() => {});");
    await sleep(200);
    const beside = within(shell, "console.log('x'); await new Promise((go) => setTimeout(go, 1e6));");
    await sleep(200);
    await ask("interrupt_request");
    assert.equal((await main).reply.content.ename, "InterruptedError");
    assert.equal((await beside).reply.content.ename, "InterruptedError");
    assert.equal((await within(shell, "1")).reply.content.status, "ok");
    assert.equal(await value(kernel.client, "2"), "2");
  });

  it("end with an executor that dies, in every shell", async () => {
    const shell = await create();
    const main = execute(kernel.client, "await new Promise(() => {});");
    await sleep(200);
    const beside = within(shell, "process.exit(4)");
    assert.match(String((await main).reply.content.evalue), /exit code 4/);
    assert.match(String((await beside).reply.content.evalue), /exit code 4/);
    assert.equal((await within(shell, "1 + 1")).reply.content.status, "ok");
  });
});
