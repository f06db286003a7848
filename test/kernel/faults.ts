// What must not bring a kernel down, in a size that the caller chooses. `npm run faults` uses the full ones.
import assert from "node:assert/strict";
import type { Json, Message } from "../../kernel/protocol/message.js";
import { of, printed, published, sleep, type TestKernel } from "./support.js";

/** How much is printed and shown. */
export interface Sizes {
  /** Characters of one line. */
  line: number;
  prints: number;
  /** Characters of one display. */
  display: number;
}

export interface Fault {
  name: string;
  /** Rejects when the kernel does not say what has happened. */
  provoke(kernel: TestKernel): Promise<void>;
}

const FOREVER = "await new Promise(() => {});";
const TIMEOUT_MS = 180_000;

/** All faults; after each the kernel must answer and run the next cell. */
export function faults(sizes: Sizes): Fault[] {
  const died = (name: string, code: string, says: RegExp): Fault => ({
    name,
    async provoke({ client }) {
      const { reply } = await client.execute(code, { timeoutMs: TIMEOUT_MS });
      assert.equal(reply.content.ename, "ExecutorDied", JSON.stringify(reply.content).slice(0, 1_000));
      assert.match(String(reply.content.evalue), says);
    },
  });
  const told = (name: string, code: string, says: RegExp): Fault => ({
    name,
    async provoke({ client }) {
      const stderr = published(client, ({ content }: Message) => content.name === "stderr");
      const { reply } = await client.execute(code, { timeoutMs: TIMEOUT_MS });
      assert.equal(reply.content.status, "ok");
      const shown = await stderr;
      assert.match(String(shown.content.text), says);
      assert.equal(shown.parent.msg_id, reply.parent.msg_id);
    },
  });
  return [
    died("kill -9 of the executor", `process.kill(process.pid, "SIGKILL"); ${FOREVER}`, /SIGKILL/),
    died(
      "SIGSEGV of the executor",
      `process.kill(process.pid, "SIGSEGV"); ${FOREVER}`,
      /Native code crashed \(SIGSEGV\)/,
    ),
    died("process.exit()", "process.exit()", /exit code 0/),
    died("process.abort()", `process.abort(); ${FOREVER}`, /SIGABRT|aborted/),
    died(
      "an exhausted heap",
      "const hoard: object[] = []; for (;;) hoard.push(new Array(1e5).fill({}));",
      /ran out of JavaScript heap.*TUNEBOOK_EXECUTOR_OPTIONS/,
    ),
    told(
      "an uncaught exception in a timer",
      "setTimeout(() => { throw new RangeError('in a timer'); }, 20); await new Promise((go) => setTimeout(go, 100));",
      /Uncaught: RangeError: in a timer/,
    ),
    told(
      "an unhandled rejection",
      "void Promise.reject(new TypeError('nobody')); await new Promise((go) => setTimeout(go, 100));",
      /Unhandled rejection: TypeError: nobody/,
    ),
    {
      name: `a line of ${sizes.line} characters`,
      async provoke({ client }) {
        const answer = await client.execute(`console.log("x".repeat(${sizes.line}));`, { timeoutMs: TIMEOUT_MS });
        assert.equal(answer.reply.content.status, "ok");
        assert.equal(printed(answer, "stdout").length, sizes.line + 1);
      },
    },
    {
      name: `${sizes.prints} prints`,
      async provoke({ client }) {
        const code = `for (let i = 0; i < ${sizes.prints}; i++) console.log(i);`;
        const answer = await client.execute(code, { timeoutMs: TIMEOUT_MS });
        const lines = printed(answer, "stdout").split("\n");
        assert.equal(lines.length, sizes.prints + 1);
        assert.ok(lines.every((line, i) => i === sizes.prints || line === String(i)));
      },
    },
    {
      name: `a display of ${sizes.display} characters`,
      async provoke({ client }) {
        const code = `display({ "text/plain": "y".repeat(${sizes.display}) });`;
        const answer = await client.execute(code, { timeoutMs: TIMEOUT_MS });
        assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content).slice(0, 1_000));
        assert.equal(String((of(answer, "display_data")[0]!.content.data as Json)["text/plain"]).length, sizes.display);
      },
    },
  ];
}

/** Whether the kernel answers, beats and runs cells. */
export async function well({ client }: TestKernel): Promise<void> {
  assert.equal(await client.heartbeat(5_000), true);
  const info = await client.request("control", "kernel_info_request", {}, { timeoutMs: 20_000 });
  assert.equal(info.reply.content.status, "ok");
  for (let attempt = 0; ; attempt++) {
    const { reply } = await client.execute("6 * 7", { timeoutMs: TIMEOUT_MS });
    if (reply.content.status === "ok") return;
    assert.ok(attempt < 1, JSON.stringify(reply.content));
    await sleep(100);
  }
}
