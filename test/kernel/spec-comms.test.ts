// "Custom Messages" of the messaging protocol, and a widget library in small written against the protocol of ipywidgets.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import type { Answer, KernelClient } from "../../kernel/protocol/client.js";
import type { Json, Message } from "../../kernel/protocol/message.js";
import { execute, of, printed, sequence, sleep, startKernel, type TestKernel, value } from "./support.js";

/** Sends a comm message; resolves with all that came on IOPub for it, up to idle. */
function tell(
  client: KernelClient,
  type: "comm_open" | "comm_msg" | "comm_close",
  content: Json,
  buffers: Uint8Array[] = [],
): Promise<{ id: string; iopub: Message[] }> {
  const id = randomUUID();
  const iopub: Message[] = [];
  return new Promise((resolve) => {
    const look = (message: Message): void => {
      if (message.parent.msg_id !== id) return;
      iopub.push(message);
      if (message.content.execution_state !== "idle") return;
      client.off("iopub", look);
      resolve({ id, iopub });
    };
    client.on("iopub", look);
    client.sendRaw("shell", client.encode(type, content, { id, buffers }));
  });
}

const types = (messages: Message[]): unknown[] =>
  messages.map(({ header, content }) => (header.msg_type === "status" ? content.execution_state : header.msg_type));
const comms = (answer: Answer | { iopub: Message[] }): Message[] =>
  answer.iopub.filter(({ header }) => header.msg_type.startsWith("comm_"));

describe("comms", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
    const code = [
      "const log: unknown[] = [];",
      "comms.register('echo', (comm, open) => {",
      "  log.push(['open', open.data, open.metadata, open.buffers.map((b) => [...b])]);",
      "  console.log('opened', comm.id);",
      "  comm.onMessage(({ data, buffers }) => {",
      "    console.log('got', JSON.stringify(data));",
      "    if (data.fail) throw new RangeError('in the handler');",
      "    if (data.display) display({ 'text/plain': 'shown' });",
      "    comm.send({ back: data }, { buffers: buffers.map((b) => b.toReversed()), metadata: { n: buffers.length } });",
      "  });",
      "  comm.onClose(({ data }) => log.push(['close', data, comm.closed]));",
      "  comm.send({ ready: true });",
      "});",
    ].join("\n");
    assert.equal((await execute(kernel.client, code)).reply.content.status, "ok");
  });
  after(() => kernel.stop());

  it("are opened by the front end, to a target that a cell has registered", async () => {
    const opened = await tell(kernel.client, "comm_open", { comm_id: "e1", target_name: "echo", data: { a: 1 } }, [
      Buffer.from([1, 2]),
    ]);
    assert.deepEqual(types(opened.iopub), ["busy", "stream", "comm_msg", "idle"]);
    assert.equal(opened.iopub[1]!.content.text, "opened e1\n");
    assert.deepEqual(opened.iopub[2]!.content, { comm_id: "e1", data: { ready: true } });
    assert.equal(await value(kernel.client, "JSON.stringify(log)"), `'[["open",{"a":1},{},[[1,2]]]]'`);
  });

  it("carry JSON and raw bytes both ways; what a handler shows has the message's header as parent", async () => {
    const big = new Uint8Array(300_000).map((_, i) => i % 251);
    const sent = [Buffer.from([1, 2, 3]), Buffer.alloc(0), big];
    const got = await tell(kernel.client, "comm_msg", { comm_id: "e1", data: { x: "ü", display: true } }, sent);
    assert.deepEqual(types(got.iopub), ["busy", "stream", "display_data", "comm_msg", "idle"]);
    const [message] = comms(got);
    assert.deepEqual(message!.content, { comm_id: "e1", data: { back: { x: "ü", display: true } } });
    assert.deepEqual(message!.metadata, { n: 3 });
    assert.deepEqual(
      message!.buffers.map((buffer) => [...buffer]),
      sent.map((buffer) => [...buffer].reverse()),
    );
    for (const one of got.iopub) assert.equal(one.parent.msg_id, got.id);
  });

  it("tell a handler's error under the message and go on", async () => {
    const failed = await tell(kernel.client, "comm_msg", { comm_id: "e1", data: { fail: true } });
    const stderr = failed.iopub.filter(({ content }) => content.name === "stderr");
    assert.match(String(stderr[0]!.content.text), /RangeError: in the handler/);
    assert.deepEqual(types(failed.iopub).at(-1), "idle");
    assert.equal(comms(await tell(kernel.client, "comm_msg", { comm_id: "e1", data: {} })).length, 1);
  });

  it("are told by comm_info, of all targets or of one", async () => {
    const info = async (content: Json): Promise<unknown> =>
      (await kernel.client.request("shell", "comm_info_request", content)).reply.content;
    await execute(kernel.client, "const mine = comms.open('front', { b: 2 }, { id: 'k1' });");
    assert.deepEqual(await info({}), {
      status: "ok",
      comms: { e1: { target_name: "echo" }, k1: { target_name: "front" } },
    });
    assert.deepEqual(await info({ target_name: "front" }), {
      status: "ok",
      comms: { k1: { target_name: "front" } },
    });
    assert.equal(
      await value(kernel.client, "comms.list().map(({ id, target }) => id + target)"),
      "[ 'e1echo', 'k1front' ]",
    );
  });

  it("are closed by either side", async () => {
    const closed = await tell(kernel.client, "comm_close", { comm_id: "e1", data: { bye: 1 } });
    assert.deepEqual(types(closed.iopub), ["busy", "idle"]);
    assert.equal(await value(kernel.client, "JSON.stringify(log.at(-1))"), `'["close",{"bye":1},true]'`);
    const answer = await execute(kernel.client, "mine.close({ c: 3 }); mine.close(); mine.closed");
    assert.deepEqual(
      comms(answer).map(({ header, content }) => [header.msg_type, content]),
      [["comm_close", { comm_id: "k1", data: { c: 3 } }]],
    );
    const info = await kernel.client.request("shell", "comm_info_request");
    assert.deepEqual(info.reply.content.comms, {});
    const late = await execute(kernel.client, "mine.send({})");
    assert.match(String(late.reply.content.evalue), /is closed/);
  });

  it("to an unknown target, or one that fails, are closed again", async () => {
    const unknown = await tell(kernel.client, "comm_open", { comm_id: "u1", target_name: "nobody", data: {} });
    assert.deepEqual(types(unknown.iopub), ["busy", "comm_close", "idle"]);
    assert.equal(comms(unknown)[0]!.content.comm_id, "u1");
    await execute(kernel.client, "comms.register('broken', () => { throw new Error('cannot'); });");
    const broken = await tell(kernel.client, "comm_open", { comm_id: "u2", target_name: "broken", data: {} });
    assert.ok(types(broken.iopub).includes("comm_close"));
    assert.match(String(broken.iopub.find(({ content }) => content.name === "stderr")!.content.text), /Error: cannot/);
    const info = await kernel.client.request("shell", "comm_info_request");
    assert.deepEqual(info.reply.content.comms, {});
    // A message to a comm that is not open is dropped.
    assert.deepEqual(types((await tell(kernel.client, "comm_msg", { comm_id: "u1", data: {} })).iopub), [
      "busy",
      "idle",
    ]);
  });

  it("are handled in order with cells, and not aborted with them", async () => {
    await execute(
      kernel.client,
      "const order: string[] = []; comms.register('order', (comm) => { comm.onMessage(({ data }) => { order.push(data.name); }); });",
    );
    await tell(kernel.client, "comm_open", { comm_id: "o1", target_name: "order", data: {} });
    const slow = execute(kernel.client, "await new Promise((done) => setTimeout(done, 100)); order.push('cell');");
    const first = tell(kernel.client, "comm_msg", { comm_id: "o1", data: { name: "message" } });
    const last = execute(kernel.client, "order.push('last'); order.join()");
    await Promise.all([slow, first, last]);
    assert.equal(await value(kernel.client, "order.splice(0).join()"), "'cell,message,last'");
    const failing = execute(kernel.client, "await new Promise((done) => setTimeout(done, 100)); throw new Error('x')");
    const aborted = execute(kernel.client, "order.push('never')");
    await tell(kernel.client, "comm_msg", { comm_id: "o1", data: { name: "kept" } });
    await failing;
    assert.equal((await aborted).reply.content.status, "aborted");
    assert.equal(await value(kernel.client, "order.join()"), "'kept'");
  });

  it("do not hang the shell on a handler that awaits; an endless handler is interrupted", async () => {
    const code = [
      "comms.register('wait', (comm) => {",
      "  comm.onMessage(async ({ data }) => {",
      "    if (data.loop) { comm.send({ looping: true }); while (true) {} }",
      "    await new Promise((done) => setTimeout(done, 100));",
      "    comm.send({ late: data.n });",
      "  });",
      "});",
    ].join("\n");
    await execute(kernel.client, code);
    await tell(kernel.client, "comm_open", { comm_id: "w1", target_name: "wait", data: {} });
    const late = new Promise<Message>((resolve) => {
      kernel.client.on(
        "iopub",
        (message) => (message.content.data as Json | undefined)?.late === 7 && resolve(message),
      );
    });
    assert.deepEqual(types((await tell(kernel.client, "comm_msg", { comm_id: "w1", data: { n: 7 } })).iopub), [
      "busy",
      "idle",
    ]);
    assert.equal((await late).content.comm_id, "w1");
    const endless = tell(kernel.client, "comm_msg", { comm_id: "w1", data: { loop: true } });
    await sleep(150);
    await kernel.client.request("control", "interrupt_request");
    const { iopub } = await endless;
    assert.match(String(iopub.find(({ content }) => content.name === "stderr")?.content.text), /InterruptedError/);
    assert.equal(await value(kernel.client, "1 + 1"), "2");
  });

  it("refuse what is no JSON and no bytes, naming it", async () => {
    for (const [code, says] of [
      ["comms.open('t', { a: 1n as never })", /data must be JSON/],
      ["comms.open('t', [1] as never)", /data must be an object, got an array/],
      [
        "comms.open('t', {}, { buffers: ['x' as never] })",
        /a buffer must be an ArrayBuffer or a typed array, got string/,
      ],
      ["comms.register('t', 5 as never)", /must be a function/],
    ] as const) {
      assert.match(String((await execute(kernel.client, code)).reply.content.evalue), says);
    }
  });

  it("end with the executor, and the front end is told", async () => {
    await execute(kernel.client, "comms.open('front', {}, { id: 'gone' });");
    const closed = new Promise<Message>((resolve) => {
      kernel.client.on(
        "iopub",
        (m) => m.header.msg_type === "comm_close" && m.content.comm_id === "gone" && resolve(m),
      );
    });
    await execute(kernel.client, "process.exit(1)");
    assert.deepEqual((await closed).parent, {});
    assert.deepEqual((await kernel.client.request("shell", "comm_info_request")).reply.content.comms, {});
  });
});

// The kernel's half of ipywidgets: a model is a comm to "jupyter.widget", its state is JSON whose binary values travel
// as buffers with their paths beside.
const WIDGETS = `
type State = Record<string, any>;
interface Paths { state: State; paths: (string | number)[][]; buffers: Uint8Array[] }
function split(value: any, path: (string | number)[], out: Paths): any {
  if (ArrayBuffer.isView(value)) {
    out.paths.push(path);
    out.buffers.push(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
    return undefined;
  }
  if (Array.isArray(value)) return value.map((one, i) => split(one, [...path, i], out) ?? null);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, split(one, [...path, key], out)] as const).filter(([, one]) => one !== undefined));
}
function packed(state: State): Paths {
  const out: Paths = { state: {}, paths: [], buffers: [] };
  out.state = split(state, [], out);
  return out;
}
class Model {
  readonly comm: JupyterComm;
  readonly listeners: ((name: string, value: unknown) => void)[] = [];
  constructor(readonly name: string, readonly state: State, id?: string) {
    const full = { _model_module: "@jupyter-widgets/controls", _model_module_version: "2.0.0", _model_name: name + "Model", _view_name: name + "View", ...state };
    const { state: json, paths, buffers } = packed(full);
    this.comm = comms.open("jupyter.widget", { state: json, buffer_paths: paths }, { buffers, metadata: { version: "2.1.0" }, ...(id ? { id } : {}) });
    this.comm.onMessage(({ data, buffers }) => {
      if (data.method === "request_state") this.push(this.state);
      if (data.method !== "update") return;
      const changed: State = data.state;
      (data.buffer_paths as string[][]).forEach((path, i) => {
        const at = path.slice(0, -1).reduce((node: State, key) => node[key], changed);
        at[path.at(-1)!] = buffers[i];
      });
      for (const [key, value] of Object.entries(changed)) this.set(key, value, true);
      this.comm.send({ method: "echo_update", ...(({ state, paths }) => ({ state, buffer_paths: paths }))(packed(changed)) }, { buffers: packed(changed).buffers });
    });
  }
  set(name: string, value: unknown, fromFront = false): void {
    this.state[name] = value;
    if (!fromFront) this.push({ [name]: value });
    for (const listener of this.listeners) listener(name, value);
  }
  push(state: State): void {
    const { state: json, paths, buffers } = packed(state);
    this.comm.send({ method: "update", state: json, buffer_paths: paths }, { buffers });
  }
  [Symbol.for("Jupyter.display")]() {
    return { "application/vnd.jupyter.widget-view+json": { version_major: 2, version_minor: 0, model_id: this.comm.id }, "text/plain": this.name };
  }
}
`;

describe("a widget library on comms", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
    assert.equal((await execute(kernel.client, WIDGETS)).reply.content.status, "ok");
  });
  after(() => kernel.stop());

  it("opens a model whose binary state travels as buffers, and shows its view", async () => {
    const code =
      "const image = new Model('Image', { format: 'png', value: Uint8Array.of(1, 2, 3), deep: { list: [new Float32Array([1.5]), 'x'] } }, 'm1');\nimage";
    const answer = await execute(kernel.client, code);
    assert.deepEqual(sequence(answer), ["busy", "execute_input", "comm_open", "execute_result", "idle"]);
    const [open] = comms(answer);
    assert.equal(open!.content.target_name, "jupyter.widget");
    assert.deepEqual(open!.metadata, { version: "2.1.0" });
    const data = open!.content.data as { state: Json; buffer_paths: unknown };
    assert.deepEqual(data.buffer_paths, [["value"], ["deep", "list", 0]]);
    assert.equal("value" in data.state, false);
    assert.equal(data.state._model_name, "ImageModel");
    assert.deepEqual([...open!.buffers[0]!], [1, 2, 3]);
    assert.equal(open!.buffers[1]!.byteLength, 4);
    const bundle = of(answer, "execute_result")[0]!.content.data as Json;
    const view = bundle["application/vnd.jupyter.widget-view+json"];
    assert.deepEqual(view, { version_major: 2, version_minor: 0, model_id: "m1" });
  });

  it("takes changes of the front end, tells its listeners, and sends its own", async () => {
    await execute(
      kernel.client,
      "const seen: unknown[] = []; const slider = new Model('IntSlider', { value: 1 }, 'm2'); slider.listeners.push((name, value) => { seen.push([name, value]); console.log(name, value); image.set('width', value); });",
    );
    const update = { method: "update", state: { value: 42 }, buffer_paths: [] };
    const moved = await tell(kernel.client, "comm_msg", { comm_id: "m2", data: update });
    assert.equal(printed(moved as never, "stdout"), "value 42\n");
    const [width, echo] = comms(moved);
    assert.equal(width!.content.comm_id, "m1");
    assert.deepEqual(width!.content.data, { method: "update", state: { width: 42 }, buffer_paths: [] });
    assert.deepEqual(echo!.content.data, { method: "echo_update", state: { value: 42 }, buffer_paths: [] });
    assert.equal(await value(kernel.client, "JSON.stringify(seen)"), `'[["value",42]]'`);
    const upload = { method: "update", state: {}, buffer_paths: [["value"]] };
    const uploaded = await tell(kernel.client, "comm_msg", { comm_id: "m1", data: upload }, [Buffer.from([9, 8])]);
    assert.deepEqual([...comms(uploaded)[0]!.buffers[0]!], [9, 8]);
    assert.equal(await value(kernel.client, "[...image.state.value]"), "[ 9, 8 ]");
  });

  it("gives its state to a front end that comes later, by the control target", async () => {
    const code = [
      "comms.register('jupyter.widget.control', (comm) => {",
      "  comm.onMessage(({ data }) => {",
      "    if (data.method !== 'request_states') return;",
      "    const models = { m1: image, m2: slider };",
      "    const { state, paths, buffers } = packed(Object.fromEntries(Object.entries(models).map(([id, one]) => [id, { state: one.state }])));",
      "    comm.send({ method: 'update_states', states: state, buffer_paths: paths }, { buffers });",
      "  });",
      "});",
    ].join("\n");
    await execute(kernel.client, code);
    const control = { comm_id: "c1", target_name: "jupyter.widget.control", data: { widgets: null } };
    await tell(kernel.client, "comm_open", control);
    const answer = await tell(kernel.client, "comm_msg", { comm_id: "c1", data: { method: "request_states" } });
    const [states] = comms(answer);
    const data = states!.content.data as { states: Json; buffer_paths: unknown };
    assert.deepEqual(Object.keys(data.states), ["m1", "m2"]);
    assert.deepEqual(data.buffer_paths, [
      ["m1", "state", "value"],
      ["m1", "state", "deep", "list", 0],
    ]);
    assert.deepEqual([...states!.buffers[0]!], [9, 8]);
  });
});
