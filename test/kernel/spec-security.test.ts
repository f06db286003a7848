// "The Wire Protocol": signatures, replays, malformed messages. None is acted upon, and the kernel goes on.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { KernelClient } from "../../kernel/protocol/client.js";
import { decode, encode, type Message } from "../../kernel/protocol/message.js";
import { Signer } from "../../kernel/protocol/signing.js";
import { execute, of, published, sleep, startKernel, type TestKernel, value } from "./support.js";

describe("messages that are not to be trusted", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
    await execute(kernel.client, "let acted = 0;");
  });
  after(() => kernel.stop());

  const request = { code: "acted++", silent: false, store_history: true, allow_stdin: false };
  const acted = async (): Promise<number> => Number(await value(kernel.client, "acted"));

  it("are dropped with another key, another content, no signature, or one in another form", async () => {
    const stranger = new KernelClient({ ...kernel.connection, key: "guessed" }, randomUUID());
    const frames = kernel.client.encode("execute_request", request);
    const changed = (at: number, to: Uint8Array | string): Uint8Array[] =>
      frames.map((frame, i) => (i === at ? Buffer.from(to) : frame));
    const signature = Buffer.from(frames[1]!).toString();
    for (const forged of [
      stranger.encode("execute_request", request),
      changed(5, JSON.stringify({ ...request, code: "acted += 100" })),
      changed(2, Buffer.from(frames[2]!).toString().replace("execute_request", "execute_request ")),
      changed(3, '{"a":1}'),
      changed(4, '{"a":1}'),
      changed(1, ""),
      changed(1, "00".repeat(32)),
      changed(1, signature.slice(0, -2)),
      changed(1, `${signature}00`),
      changed(1, signature.toUpperCase()),
      changed(1, Buffer.from(signature, "hex")),
    ]) {
      kernel.client.sendRaw("shell", forged);
      kernel.client.sendRaw("control", forged);
    }
    stranger.close();
    assert.equal(await acted(), 0);
  });

  it("are dropped without delimiter, with too few frames, or with frames that are no JSON objects", async () => {
    const signer = new Signer(kernel.connection.key);
    const signed = (...parts: string[]): Uint8Array[] => {
      const frames = parts.map((part) => Buffer.from(part));
      return [Buffer.from("<IDS|MSG>"), Buffer.from(signer.sign(frames)), ...frames];
    };
    const header = (extra: object): string =>
      JSON.stringify({ msg_id: randomUUID(), session: "s", msg_type: "execute_request", version: "5.5", ...extra });
    const content = JSON.stringify(request);
    for (const bad of [
      [Buffer.from("x")],
      [Buffer.from("<IDS|MSG>")],
      signed(header({}), "{}", "{}"),
      signed("[]", "{}", "{}", content),
      signed("null", "{}", "{}", content),
      signed("{", "{}", "{}", content),
      signed(header({ msg_id: 5 }), "{}", "{}", content),
      signed(header({ msg_type: "" }), "{}", "{}", content),
      signed(header({}), "[]", "{}", content),
      signed(header({}), "{}", "7", content),
      signed(header({}), "{}", "{}", "[1]"),
      signed(header({ msg_type: "toString" }), "{}", "{}", content),
      signed(header({ msg_type: "__proto__" }), "{}", "{}", content),
      [...Array.from({ length: 5_000 }, () => Buffer.from("x")), ...signed(header({}), "{}", "{}", content)],
    ]) {
      kernel.client.sendRaw("shell", bad);
      kernel.client.sendRaw("stdin", bad);
    }
    assert.equal(await acted(), 0);
    assert.equal(await kernel.client.heartbeat(), true);
  });

  it("count once: a replayed message is dropped, on every channel", async () => {
    const frames = kernel.client.encode("execute_request", { ...request, code: "acted = acted + 1; 'ran'" });
    const ran = published(kernel.client, ({ header }) => header.msg_type === "execute_result");
    kernel.client.sendRaw("shell", frames);
    await ran;
    for (const channel of ["shell", "control", "stdin"] as const) kernel.client.sendRaw(channel, frames);
    assert.equal(await acted(), 1);
  });

  it("are dropped where the kernel has signed them itself", async () => {
    await execute(kernel.client, "comms.register('t', () => { acted = 50; });");
    const answer = await execute(kernel.client, "comms.open('t', {}, { id: 'mirror' });");
    const open = of(answer, "comm_open")[0]!;
    const own = encode(
      { type: "comm_open", content: { ...open.content, comm_id: "m2" }, session: open.header.session },
      new Signer(kernel.connection.key),
    );
    kernel.client.sendRaw("shell", own);
    assert.equal(await acted(), 1);
  });

  it("are answered with an error where a field has the wrong type, each with a status", async () => {
    for (const [type, content] of [
      ["execute_request", { code: 5 }],
      ["complete_request", { code: null, cursor_pos: 0 }],
      ["inspect_request", {}],
      ["is_complete_request", { code: [] }],
    ] as const) {
      const { reply } = await kernel.client.request("shell", type, content, { timeoutMs: 20_000 });
      assert.equal(reply.content.status, "error", type);
      assert.equal(reply.header.msg_type, type.replace("request", "reply"));
      for (const key of ["ename", "evalue", "traceback"]) assert.ok(key in reply.content, key);
    }
  });

  it("are survived where nobody knows the type, with busy and idle around it", async () => {
    const states: unknown[] = [];
    const id = randomUUID();
    const look = ({ parent, content }: Message): void => {
      if (parent.msg_id === id) states.push(content.execution_state);
    };
    kernel.client.on("iopub", look);
    kernel.client.sendRaw("shell", kernel.client.encode("no_such_request", {}, { id }));
    await sleep(200);
    kernel.client.off("iopub", look);
    assert.deepEqual(states, ["busy", "idle"]);
  });

  it("asks for a debugger are refused politely", async () => {
    const content = { type: "request", seq: 3, command: "initialize", arguments: {} };
    const { reply } = await kernel.client.request("control", "debug_request", content, { timeoutMs: 5_000 });
    assert.equal(reply.header.msg_type, "debug_reply");
    const { request_seq, command, success, message } = reply.content;
    assert.deepEqual([request_seq, command, success], [3, "initialize", false]);
    assert.match(String(message), /no debugger/);
  });

  it("without a key are not signed, but still count once", () => {
    const unsigned = new Signer("");
    const frames = encode({ type: "kernel_info_request", content: {}, session: "a" }, unsigned);
    assert.equal(decode(frames, unsigned).header.msg_type, "kernel_info_request");
    assert.throws(() => decode(frames, unsigned), /replayed signature/);
  });
});
