import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Message } from "../../kernel/protocol/message.js";
import { execute, of, published, sequence, sleep, startKernel, type TestKernel, value } from "./support.js";

describe("the kernel, message by message", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
  });
  after(() => kernel.stop());

  it("answers kernel_info on shell and on control", async () => {
    for (const channel of ["shell", "control"] as const) {
      const answer = await kernel.client.request(channel, "kernel_info_request", {}, { timeoutMs: 5_000 });
      const { content } = answer.reply;
      assert.equal(answer.reply.header.msg_type, "kernel_info_reply");
      assert.equal(content.status, "ok");
      assert.equal(content.protocol_version, "5.5");
      assert.deepEqual(content.supported_features, ["kernel subshells"]);
      const language = content.language_info as Record<string, string>;
      assert.equal(language.name, "typescript");
      assert.equal(language.file_extension, ".ts");
      assert.equal(language.nbconvert_exporter, "script");
      assert.deepEqual(sequence(answer), ["busy", "idle"]);
    }
  });

  it("publishes busy, input, result and idle in order, with the request's header as parent", async () => {
    const answer = await execute(kernel.client, "40 + 2");
    assert.deepEqual(sequence(answer), ["busy", "execute_input", "execute_result", "idle"]);
    assert.equal((of(answer, "execute_result")[0]!.content.data as Record<string, string>)["text/plain"], "42");
    for (const message of [...answer.iopub, answer.reply]) {
      assert.equal(message.parent.session, kernel.client.session);
      assert.equal(message.header.version, "5.5");
      assert.notEqual(message.header.session, kernel.client.session);
    }
    const ids = answer.iopub.map(({ header }) => header.msg_id);
    assert.equal(new Set(ids).size, ids.length);
  });

  it("raises the execution count with store_history alone", async () => {
    const first = await execute(kernel.client, "1");
    const count = first.reply.content.execution_count as number;
    assert.equal(of(first, "execute_input")[0]!.content.execution_count, count);
    assert.equal(of(first, "execute_result")[0]!.content.execution_count, count);
    const unstored = await execute(kernel.client, "2", { store_history: false });
    assert.equal(unstored.reply.content.execution_count, count);
    const silent = await execute(kernel.client, "3", { silent: true, store_history: true });
    assert.equal(silent.reply.content.execution_count, count);
    const next = await execute(kernel.client, "4");
    assert.equal(next.reply.content.execution_count, count + 1);
  });

  it("shows nothing of a silent request, not even its error", async () => {
    const answer = await execute(kernel.client, "console.log('hidden'); display(1); process.stdout.write('x'); 5", {
      silent: true,
    });
    assert.deepEqual(sequence(answer), ["busy", "idle"]);
    assert.equal(answer.reply.content.status, "ok");
    const failed = await execute(kernel.client, "throw new Error('hidden')", { silent: true });
    assert.deepEqual(sequence(failed), ["busy", "idle"]);
    assert.equal(failed.reply.content.status, "error");
    assert.equal(failed.reply.content.evalue, "hidden");
  });

  it("evaluates user expressions after success, each by itself", async () => {
    const answer = await execute(kernel.client, "let quantity = 6;", {
      user_expressions: { double: "quantity * 2", wrong: "null!.x", printed: "console.log('no'), 1" },
    });
    const results = answer.reply.content.user_expressions as Record<string, Record<string, unknown>>;
    assert.deepEqual(results.double, { status: "ok", data: { "text/plain": "12" }, metadata: {} });
    assert.equal(results.wrong!.status, "error");
    assert.equal(results.wrong!.ename, "TypeError");
    assert.deepEqual(sequence(answer), ["busy", "execute_input", "idle"]);
    const failed = await execute(kernel.client, "throw new Error('x')", { user_expressions: { one: "1" } });
    assert.equal(failed.reply.content.user_expressions, undefined);
  });

  it("aborts the execute requests that wait behind an error, and nothing else", async () => {
    const slow = "await new Promise((resolve) => setTimeout(resolve, 50)); throw new Error('stop')";
    const answers = await Promise.all([
      execute(kernel.client, slow),
      execute(kernel.client, "1"),
      kernel.client.request("shell", "comm_info_request"),
      execute(kernel.client, "2"),
    ]);
    assert.deepEqual(
      answers.map(({ reply }) => reply.content.status),
      ["error", "aborted", "ok", "aborted"],
    );
    assert.deepEqual(sequence(answers[1]), ["busy", "idle"]);
    assert.equal(await value(kernel.client, "3"), "3");
    const tolerant = await Promise.all([
      execute(kernel.client, "throw new Error('go on')", { stop_on_error: false }),
      execute(kernel.client, "4"),
    ]);
    assert.equal(tolerant[1].reply.content.status, "ok");
  });

  it("answers other requests while a cell runs, and still counts as busy", async () => {
    const states: string[] = [];
    const note = ({ header, content }: Message): void => {
      if (header.msg_type === "status") states.push(String(content.execution_state));
    };
    const running = execute(kernel.client, "await new Promise((resolve) => setTimeout(resolve, 2_000))");
    let ended = false;
    void running.then(() => {
      ended = true;
    });
    await sleep(150);
    kernel.client.on("iopub", note);
    const answer = await kernel.client.request("shell", "kernel_info_request", {}, { timeoutMs: 5_000 });
    assert.ok(!ended, "the answer waited for the cell");
    assert.equal(answer.reply.content.status, "ok");
    await sleep(50);
    kernel.client.off("iopub", note);
    assert.equal(states.at(-1), "busy");
    await running;
  });

  it("drops messages with a wrong signature, and replayed ones", async () => {
    const content = { code: "globalThis.forged = true", silent: false, store_history: true, allow_stdin: false };
    const frames = kernel.client.encode("execute_request", content);
    const forged = [...frames];
    forged[5] = Buffer.from(JSON.stringify({ ...content, code: "globalThis.forged = 'other'" }));
    kernel.client.sendRaw("shell", forged);
    const unsigned = [...frames];
    unsigned[1] = Buffer.alloc(0);
    kernel.client.sendRaw("shell", unsigned);
    kernel.client.sendRaw("shell", [Buffer.from("<IDS|MSG>"), Buffer.from("zz")]);
    kernel.client.sendRaw("shell", [Buffer.from("nothing")]);
    assert.equal(await value(kernel.client, "'forged' in globalThis"), "false");

    const counted = kernel.client.encode("execute_request", {
      ...content,
      code: "globalThis.times = (Reflect.get(globalThis, 'times') ?? 0) + 1",
    });
    const done = published(kernel.client, ({ header }) => header.msg_type === "execute_result");
    kernel.client.sendRaw("shell", counted);
    await done;
    kernel.client.sendRaw("shell", counted);
    assert.equal(await value(kernel.client, "Reflect.get(globalThis, 'times')"), "1");
  });

  it("closes a comm that nobody takes, and knows of none", async () => {
    const closed = published(kernel.client, ({ header }) => header.msg_type === "comm_close");
    const opening = kernel.client.encode("comm_open", { comm_id: "c1", target_name: "unknown", data: {} });
    kernel.client.sendRaw("shell", opening);
    assert.equal((await closed).content.comm_id, "c1");
    const info = await kernel.client.request("shell", "comm_info_request");
    assert.deepEqual(info.reply.content, { status: "ok", comms: {} });
  });

  it("remembers what was executed", async () => {
    await execute(kernel.client, "const remembered = 1;");
    await execute(kernel.client, "remembered + 1");
    const ask = async (content: Record<string, unknown>): Promise<unknown[][]> =>
      (await kernel.client.request("shell", "history_request", content)).reply.content.history as unknown[][];
    const tail = await ask({ hist_access_type: "tail", n: 2, output: true, raw: true });
    assert.deepEqual(
      tail.map((entry) => entry[2]),
      [
        ["const remembered = 1;", null],
        ["remembered + 1", "2"],
      ],
    );
    const found = await ask({ hist_access_type: "search", pattern: "const rem*", n: 1, output: false, raw: true });
    assert.equal(found[0]![2], "const remembered = 1;");
    const line = tail[0]![1] as number;
    const range = await ask({ hist_access_type: "range", session: 0, start: line, stop: line + 1, output: false });
    assert.equal(range.length, 1);
  });

  it("tells whether code is complete", async () => {
    const ask = async (code: string): Promise<unknown> =>
      (await kernel.client.request("shell", "is_complete_request", { code })).reply.content.status;
    assert.equal(await ask("const a = 1"), "complete");
    assert.equal(await ask("function f() {"), "incomplete");
  });

  it("completes at cursors that count code points", async () => {
    const code = "const 𝒳 = '😀'; Math.sqr";
    const codePoints = [...code].length;
    const { content } = (
      await kernel.client.request("shell", "complete_request", { code, cursor_pos: codePoints }, { timeoutMs: 10_000 })
    ).reply;
    assert.ok((content.matches as string[]).includes("sqrt"));
    assert.equal(content.cursor_start, codePoints - 3);
    assert.equal(content.cursor_end, codePoints);
  });

  it("asks the front end's user, unless that is not allowed", async () => {
    const asked = new Promise<Message>((resolve) => {
      kernel.client.on("reply", (message, channel) => channel === "stdin" && resolve(message));
    });
    const running = execute(kernel.client, "await input('name? ')", { allow_stdin: true });
    const question = await asked;
    assert.equal(question.header.msg_type, "input_request");
    assert.deepEqual(question.content, { prompt: "name? ", password: false });
    kernel.client.sendRaw("stdin", kernel.client.encode("input_reply", { value: "Ada", status: "ok" }));
    const answer = await running;
    assert.equal((of(answer, "execute_result")[0]!.content.data as Record<string, string>)["text/plain"], "'Ada'");
    const refused = await execute(kernel.client, "await input('name? ')");
    assert.equal(refused.reply.content.status, "error");
  });

  it("beats its heart", async () => {
    assert.equal(await kernel.client.heartbeat(), true);
  });

  it("answers a shutdown request with its restart flag, and ends", async () => {
    const ended = new Promise((resolve) => kernel.process.once("exit", resolve));
    const answer = await kernel.client.request("control", "shutdown_request", { restart: true }, { timeoutMs: 5_000 });
    assert.deepEqual(answer.reply.content, { status: "ok", restart: true });
    assert.equal(await ended, 0);
  });
});
