// A training run of the real library on the embedded model goes on beside cells.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Answer } from "../../kernel/protocol/client.js";
import type { Json, Message } from "../../kernel/protocol/message.js";
import { execute, of, published, sleep, startKernel, type TestKernel, value } from "./support.js";

describe("a training run beside cells", () => {
  let kernel: TestKernel;
  let started: unknown;
  const updates: Message[] = [];
  before(async () => {
    kernel = await startKernel();
    const setup = [
      'import { embeddedModel, loadModel } from "tunebook";',
      'const model = await loadModel(embeddedModel()).quantize({ type: "nf4" }).addLora({ rank: 4 });',
      "const data = Array.from({ length: 64 }, (_, i) => ({ prompt: 'Boat ' + i, completion: ' is number ' + i + ' of the harbour.' }));",
    ].join("\n");
    assert.equal((await execute(kernel.client, setup)).reply.content.status, "ok");
    kernel.client.on("iopub", (message) => {
      if (/display_data$/.test(message.header.msg_type)) updates.push(message);
    });
    const answer = await execute(
      kernel.client,
      "const run = model.train(data, { steps: 1_000_000, batch: 4, lr: 1e-4 }); run",
    );
    assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content));
    started = answer.reply.parent.msg_id;
  });
  after(() => kernel.stop());

  const steps = async (): Promise<number> => Number(await value(kernel.client, "run.steps.length"));
  async function goesOn(): Promise<void> {
    const before = await steps();
    for (let waited = 0; (await steps()) <= before; waited++) {
      assert.ok(waited < 50, "the run takes no more steps");
      await sleep(100);
    }
  }
  async function interrupted(code: string): Promise<Answer> {
    const begun = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const running = execute(kernel.client, `console.log("begun"); ${code}`);
    await begun;
    await sleep(100);
    await kernel.client.request("control", "interrupt_request", {}, { timeoutMs: 5_000 });
    const answer = await running;
    assert.equal(answer.reply.content.ename, "InterruptedError", JSON.stringify(answer.reply.content));
    return answer;
  }

  it("takes steps while other cells work, and shows them under its own cell alone", async () => {
    await goesOn();
    const other = await execute(
      kernel.client,
      "for (let i = 0; i < 10; i++) await new Promise((go) => setTimeout(go, 50)); 'done'",
    );
    assert.equal(of(other, "execute_result").length, 1);
    assert.equal(of(other, "display_data").length + of(other, "update_display_data").length, 0);
    assert.ok(updates.length > 5, `${updates.length} updates`);
    for (const { parent } of updates) assert.equal(parent.msg_id, started);
  });

  it("is plotted by a cell while it goes on", async () => {
    const answer = await execute(kernel.client, "run.plot()", {});
    const data = of(answer, "execute_result")[0]!.content.data as Json;
    assert.ok("image/png" in data && "application/vnd.plotly.v1+json" in data);
    await goesOn();
  });

  it("goes on when a cell before it is interrupted, whatever that waits for", async () => {
    for (const code of [
      "await new Promise(() => {});",
      "while (true) {}",
      "await run;",
      "for await (const step of run) if (step.step < 0) break;",
      "for (;;) await new Promise((go) => setTimeout(go, 5));",
    ]) {
      const answer = await interrupted(code);
      assert.match(String(answer.reply.content.evalue), /a second interrupt stops it/, code);
      await goesOn();
    }
  });

  it("runs the finally blocks of a cell that awaits it", async () => {
    await interrupted("var cleaned = 0; try { await run; } finally { cleaned = 1; }");
    assert.equal(await value(kernel.client, "cleaned"), "1");
    await goesOn();
  });

  it("still redraws its display after interrupts", async () => {
    const before = updates.length;
    for (let waited = 0; updates.length < before + 5; waited++) {
      assert.ok(waited < 100, `${updates.length - before} updates in ${waited / 10} s`);
      await sleep(100);
    }
  });

  it("is stopped by an interrupt that finds no cell; the model is trained and used further", async () => {
    await kernel.client.request("control", "interrupt_request", {}, { timeoutMs: 5_000 });
    const code =
      "let ended = ''; try { await run; } catch (error) { ended = (error as Error).name; }\n[ended, run.over]";
    assert.equal(await value(kernel.client, code), "[ 'InterruptedError', true ]");
    assert.equal(await value(kernel.client, "(await model.train(data, { steps: 2, batch: 2 })).steps"), "2");
    assert.match(String(await value(kernel.client, "await model.generate('Boat 1', { maxNewTokens: 4 })")), /^'/);
  });
});
