// "History" of the messaging protocol, within a session and across sessions.
import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { History, historyFile } from "../../kernel/protocol/history.js";
import type { Json } from "../../kernel/protocol/message.js";
import { execute, startKernel, type TestKernel } from "./support.js";

describe("the history", () => {
  let folder: string;
  let path: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "tunebook-history-"));
    path = join(folder, "deep", "history.jsonl");
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const ask = async (history: History, request: Json): Promise<unknown[][]> =>
    (await history.answer(request)).history as unknown[][];

  async function session(...inputs: string[]): Promise<History> {
    const history = new History(path, assert.fail);
    for (const [i, input] of inputs.entries()) {
      history.add(i + 1, input, input.endsWith(";") ? undefined : `<${input}>`);
    }
    await history.saved();
    return history;
  }

  it("goes on across sessions: tail, ranges of earlier ones, search", async () => {
    await session("const a = 1;", "a + 1");
    await session("let b = 2;", "a + 1", "b");
    const third = await session("c", "a + 1");
    assert.deepEqual(await ask(third, { hist_access_type: "tail", n: 3, output: false }), [
      [2, 3, "b"],
      [3, 1, "c"],
      [3, 2, "a + 1"],
    ]);
    assert.equal((await ask(third, { hist_access_type: "tail" })).length, 7);
    const range = { hist_access_type: "range", output: true };
    assert.deepEqual(await ask(third, { ...range, session: -1, start: 1, stop: 3 }), [
      [2, 1, ["let b = 2;", null]],
      [2, 2, ["a + 1", "<a + 1>"]],
    ]);
    assert.deepEqual(await ask(third, { ...range, session: 1, start: 2, stop: 9 }), [[1, 2, ["a + 1", "<a + 1>"]]]);
    assert.deepEqual(await ask(third, { ...range, session: 0, start: 0, stop: 2 }), [[3, 1, ["c", "<c>"]]]);
    assert.deepEqual(await ask(third, { ...range, session: 9 }), []);
    const search = { hist_access_type: "search", output: false };
    assert.equal((await ask(third, { ...search, pattern: "a + ?" })).length, 3);
    assert.deepEqual(await ask(third, { ...search, pattern: "*a*", unique: true }), [
      [1, 1, "const a = 1;"],
      [3, 2, "a + 1"],
    ]);
    assert.deepEqual(await ask(third, { ...search, pattern: "*", n: 1 }), [[3, 2, "a + 1"]]);
    assert.deepEqual(await ask(third, { ...search, pattern: "a" }), []);
    assert.deepEqual(await ask(third, { ...search, pattern: "*", n: 0 }), []);
  });

  it("is the user's own file", () => {
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(statSync(join(path, "..")).mode & 0o777, 0o700);
    assert.equal(historyFile({ TUNEBOOK_HISTORY: "off" }), undefined);
    assert.equal(historyFile({ TUNEBOOK_HISTORY: "/x/y.jsonl" }), "/x/y.jsonl");
    if (process.platform === "linux") assert.equal(historyFile({ XDG_DATA_HOME: "/d" }), "/d/tunebook/history.jsonl");
  });

  it("survives a torn last line, and lines that are none", async () => {
    appendFileSync(path, '{"s":9,"l":1,"i":"torn');
    const next = await session("after the crash");
    assert.deepEqual(await ask(next, { hist_access_type: "tail", n: 1 }), [[4, 1, "after the crash"]]);
    appendFileSync(path, 'nonsense\n[]\n{"s":-1}\n{"s":"x","l":1,"i":"y"}\n{"s":2.5,"l":1,"i":"z"}\n');
    assert.equal((await ask(await session("next"), { hist_access_type: "tail", n: 2 }))[0]![2], "after the crash");
    assert.ok(readFileSync(path, "utf8").includes('"torn\n{'));
  });

  it("gives kernels that run at once sessions of their own, and loses no line of any", async () => {
    const kernels = await Promise.all(Array.from({ length: 5 }, (_, k) => session(...cells(k))));
    const tail = await ask(kernels[0]!, { hist_access_type: "search", pattern: "kernel*" });
    assert.equal(new Set(tail.map(([number]) => number)).size, 5);
    assert.deepEqual(tail.map(([, , input]) => input).sort(), [0, 1, 2, 3, 4].flatMap(cells).sort());
    function cells(kernel: number): string[] {
      return Array.from({ length: 20 }, (_, i) => `kernel ${kernel} cell ${i}`);
    }
  });

  it("drops its older half when it grows too large, and no line too long for it", async () => {
    const line = (i: number): string => `${JSON.stringify({ s: 50, l: i, i: `${"x".repeat(2_000)}${i}` })}\n`;
    writeFileSync(path, Array.from({ length: 5_000 }, (_, i) => line(i + 1)).join(""));
    const next = await session("small", "y".repeat(300_000));
    const bytes = statSync(path).size;
    assert.ok(bytes > 3e6 && bytes < 4.3e6, `${bytes} bytes`);
    const tail = await ask(next, { hist_access_type: "tail" });
    assert.equal(String(tail.at(-3)![2]).slice(-4), "5000");
    assert.equal(tail.at(-1)![2], "y".repeat(300_000));
    assert.equal(tail.at(-1)![0], 51);
    assert.ok(!readFileSync(path, "utf8").includes("yyy"));
  });

  it("takes a lock that a killed kernel has left, and does without a file that it cannot use", async () => {
    const stale = new Date(Date.now() - 60_000);
    writeFileSync(`${path}.lock`, "");
    utimesSync(`${path}.lock`, stale, stale);
    assert.deepEqual(await ask(await session("unlocked"), { hist_access_type: "tail", n: 1 }), [[52, 1, "unlocked"]]);
    const logged: string[] = [];
    const broken = new History(join(path, "below-a-file"), (text) => logged.push(text));
    broken.add(1, "still here", undefined);
    assert.deepEqual(await ask(broken, { hist_access_type: "tail" }), [[1, 1, "still here"]]);
    assert.match(logged.join(), /is not used/);
  });

  it("is asked of a kernel, before and after its restart", async () => {
    const env = { TUNEBOOK_HISTORY: join(folder, "kernel.jsonl") };
    const tail = async (kernel: TestKernel): Promise<unknown> =>
      (await kernel.client.request("shell", "history_request", { hist_access_type: "tail", n: 5, output: true })).reply
        .content.history;
    let kernel = await startKernel(env);
    try {
      await execute(kernel.client, "const kept = 20;");
      await execute(kernel.client, "kept + 1");
      await execute(kernel.client, "'unstored'", { store_history: false });
      await execute(kernel.client, "'silent'", { silent: true });
      assert.deepEqual(await tail(kernel), [
        [1, 1, ["const kept = 20;", null]],
        [1, 2, ["kept + 1", "21"]],
      ]);
    } finally {
      await kernel.stop();
    }
    kernel = await startKernel(env);
    try {
      await execute(kernel.client, "3");
      assert.deepEqual(await tail(kernel), [
        [1, 1, ["const kept = 20;", null]],
        [1, 2, ["kept + 1", "21"]],
        [2, 1, ["3", "3"]],
      ]);
    } finally {
      await kernel.stop();
    }
  });
});
