import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FrameReader, frame } from "../../kernel/execute/channel.js";
import { explain } from "../../kernel/execute/crash.js";
import { OutputPublisher } from "../../kernel/execute/output.js";
import type { NotebookCell } from "../../kernel/notebook.js";
import { OutputRecorder } from "../../kernel/outputs.js";
import { checkConnection } from "../../kernel/protocol/connection.js";
import { decode, encode, type Json, type Message } from "../../kernel/protocol/message.js";
import { Signer } from "../../kernel/protocol/signing.js";
import { toCodePoints, toUtf16 } from "../../kernel/protocol/text.js";

describe("messages", () => {
  const signer = new Signer("secret");
  const frames = (content: Json): Uint8Array[] => encode({ type: "x", content, session: "s" }, signer);

  it("survive the way, with identities and buffers", () => {
    const identities = [Buffer.from("a"), Buffer.from("b")];
    const buffers = [Buffer.from([0, 255])];
    const sent = encode({ type: "x", content: { a: 1 }, session: "s", identities, buffers }, signer);
    const message = decode(sent, new Signer("secret"));
    assert.deepEqual(message.content, { a: 1 });
    assert.deepEqual(message.identities, identities);
    assert.deepEqual(message.buffers, buffers);
    assert.deepEqual(message.parent, {});
  });

  it("are refused when signed by another key, changed, replayed, or no JSON", () => {
    const reader = new Signer("secret");
    assert.throws(() => decode(frames({}), new Signer("other")), /wrong signature/);
    const changed = frames({ a: 1 });
    changed[5] = Buffer.from('{"a":2}');
    assert.throws(() => decode(changed, reader), /wrong signature/);
    const twice = frames({ a: 1 });
    decode(twice, reader);
    assert.throws(() => decode(twice, reader), /replayed signature/);
    const noJson = [Buffer.from("{"), Buffer.from("{}"), Buffer.from("{}"), Buffer.from("{}")];
    const signed = [Buffer.from("<IDS|MSG>"), Buffer.from(signer.sign(noJson)), ...noJson];
    assert.throws(() => decode(signed, reader), /header is no JSON/);
    assert.throws(() => decode([Buffer.from("x")], reader), /delimiter/);
  });

  it("count cursors in code points", () => {
    const text = "a😀b";
    assert.deepEqual(
      [0, 1, 2, 3, 9].map((at) => toUtf16(text, at)),
      [0, 1, 3, 4, 4],
    );
    assert.deepEqual(
      [0, 1, 3, 4].map((at) => toCodePoints(text, at)),
      [0, 1, 2, 3],
    );
  });
});

describe("connection files", () => {
  const good = { ip: "127.0.0.1", shell_port: 1, control_port: 2, iopub_port: 3, stdin_port: 4, hb_port: 5, key: "k" };

  it("are checked field by field", () => {
    assert.equal(checkConnection(good).transport, "tcp");
    assert.throws(() => checkConnection({ ...good, shell_port: 70_000 }), /"shell_port" must be an integer/);
    assert.throws(() => checkConnection({ ...good, transport: "udp" }), /"transport"/);
    assert.throws(() => checkConnection({ ...good, signature_scheme: "md5" }), /"signature_scheme"/);
    assert.throws(() => checkConnection({ ...good, key: "" }), /"key" is empty/);
    assert.equal(checkConnection({ ...good, key: "", transport: "ipc" }).key, "");
    assert.throws(() => checkConnection([]), /an array/);
  });
});

describe("the executor's channel", () => {
  it("puts frames together from any pieces", () => {
    const whole = Buffer.concat([frame([{ a: 1 }, "two"]), frame([3])]);
    for (const size of [1, 3, 7, whole.length]) {
      const reader = new FrameReader<unknown>();
      const values: unknown[] = [];
      for (let at = 0; at < whole.length; at += size) values.push(...reader.push(whole.subarray(at, at + size)));
      assert.deepEqual(values, [{ a: 1 }, "two", 3]);
    }
  });

  it("explains endings from the evidence", () => {
    const base = { code: null, signal: null, stderr: "", oomKills: { group: 0, machine: 0 }, unstoppable: false };
    assert.match(explain({ ...base, signal: "SIGKILL", oomKills: { group: 1, machine: 1 } }), /out-of-memory killer/);
    assert.match(explain({ ...base, signal: "SIGABRT", stderr: "JavaScript heap out of memory" }), /JavaScript heap/);
    assert.match(explain({ ...base, code: 7 }), /exit code 7/);
  });
});

describe("output", () => {
  it("is gathered, split by stream, and published before anything else", () => {
    const published: [string, Json][] = [];
    const output = new OutputPublisher((type, content) => published.push([type, content]));
    output.begin("cell-1", Buffer.from("{}"));
    for (let i = 0; i < 100; i++) {
      output.stream("stdout", `o${i} `);
      output.stream("stderr", `e${i} `);
    }
    output.show({ type: "clear", cell: "cell-1", wait: true });
    assert.deepEqual(
      published.map(([type]) => type),
      ["stream", "stream", "clear_output"],
    );
    assert.equal(String(published[0]![1].text).split(" ").length, 101);
  });

  it("becomes outputs of a notebook: streams joined, updates applied, clearing obeyed", () => {
    const recorder = new OutputRecorder();
    const cell = (): NotebookCell => ({ cell_type: "code", id: "a", metadata: {}, source: "", outputs: [] });
    const send = (to: NotebookCell, type: string, content: Json): void =>
      recorder.record(to, { header: { msg_type: type }, content } as Message);
    const [first, second] = [cell(), cell()];
    send(first, "stream", { name: "stdout", text: "a\n1%\r" });
    send(first, "stream", { name: "stdout", text: "2%\nb" });
    send(first, "display_data", { data: { "text/plain": "0" }, metadata: {}, transient: { display_id: "d" } });
    send(second, "update_display_data", { data: { "text/plain": "9" }, metadata: {}, transient: { display_id: "d" } });
    assert.deepEqual(first.outputs, [
      { output_type: "stream", name: "stdout", text: "a\n2%\nb" },
      { output_type: "display_data", data: { "text/plain": "9" }, metadata: {} },
    ]);
    assert.deepEqual(second.outputs, []);
    send(first, "clear_output", { wait: true });
    assert.equal(first.outputs!.length, 2);
    send(first, "stream", { name: "stdout", text: "new" });
    assert.deepEqual(first.outputs, [{ output_type: "stream", name: "stdout", text: "new" }]);
  });
});
