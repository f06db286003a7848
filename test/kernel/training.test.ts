import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { withModelFolder } from "../facade/small.js";
import { execute, of, published, sleep, startKernel, type TestKernel, value } from "./support.js";

const rows = `[{ prompt: "The sea is", completion: " blue" }, { prompt: "The rose is", completion: " red" }]`;

describe("a training run in a notebook", () => {
  let kernel: TestKernel;
  let done: () => void;
  let folder: string;
  let removed: Promise<void>;
  before(async () => {
    kernel = await startKernel();
    await new Promise<void>((resolve) => {
      removed = withModelFolder((path) => {
        folder = path;
        resolve();
        return new Promise<void>((end) => {
          done = end;
        });
      });
    });
    const setup = `import { loadModel } from "tunebook";
const model = await loadModel(${JSON.stringify(folder)}, { weights: "random", seed: 1 }).quantize({ type: "nf4" }).addLora({ rank: 4 });
const data = ${rows};`;
    const { reply } = await execute(kernel.client, setup);
    assert.equal(reply.content.status, "ok", JSON.stringify(reply.content));
  });
  after(async () => {
    await kernel.stop();
    done();
    await removed;
  });

  /** Interrupts a cell a while after its first display, or after it has printed something. */
  async function interrupt(code: string, printed?: string): Promise<void> {
    const begun = published(kernel.client, ({ header, content }) =>
      printed === undefined ? header.msg_type === "display_data" : String(content.text).includes(printed),
    );
    const running = execute(kernel.client, code);
    await begun;
    await sleep(300);
    await kernel.client.request("control", "interrupt_request", {}, { timeoutMs: 5_000 });
    const { reply } = await running;
    assert.equal(reply.content.status, "error");
    assert.equal(reply.content.ename, "InterruptedError");
  }

  it("stops on interrupt; variables, model and adapter stay usable", async () => {
    await interrupt(
      "let steps = 0; const run = model.train(data, { steps: 1_000_000, batch: 2 }); for await (const s of run) steps = s.step;",
    );
    assert.ok(Number(await value(kernel.client, "steps")) > 0);
    assert.match(String(await value(kernel.client, "(await model.train(data, { steps: 3, batch: 2 })).steps")), /^3$/);
    assert.match(
      String(await value(kernel.client, "typeof (await model.generate('The', { maxNewTokens: 3 }))")),
      /string/,
    );
  });

  it("is saved where an interrupt stops it, and goes on from there", async () => {
    const options = `{ steps: 1_000_000, batch: 2, output: ${JSON.stringify(join(folder, "run"))} }`;
    const callbacks = '[({ step }) => { if (step === 5) console.log("five steps"); }]';
    await interrupt(
      `const cut = model.train(data, { ...${options}, callbacks: ${callbacks} }); await cut`,
      "five steps",
    );
    const error = String(await value(kernel.client, "await cut.then(String, String)"));
    const step = Number(/interrupted after step (\d+)\. Step \1 is saved in/.exec(error)?.[1]);
    assert.ok(step > 0, error);
    const again = `const on = model.train(data, { ...${options}, resume: true }); for await (const s of on) if (s.step > ${step + 2}) on.stop(); (await on).history.length`;
    assert.ok(Number(await value(kernel.client, again)) > step + 2);
  });

  it("stops while it evaluates or generates", async () => {
    await interrupt(
      "model.evaluate(Array.from({ length: 100_000 }, () => data[0]!), { metrics: ['loss'] }).then(() => {}); await new Promise(() => {});",
    );
    assert.match(
      String(await value(kernel.client, "(await model.evaluate(data, { metrics: ['loss'] })).loss! > 0")),
      /true/,
    );
  });

  it("goes on after its cell when it is not awaited, and ends by stop()", async () => {
    const answer = await execute(kernel.client, "const late = model.train(data, { steps: 1_000_000, batch: 2 }); late");
    assert.equal(answer.reply.content.status, "ok");
    assert.equal(of(answer, "execute_result").length, 1);
    const before = Number(await value(kernel.client, "late.steps.length"));
    await sleep(300);
    assert.ok(Number(await value(kernel.client, "late.steps.length")) > before);
    assert.match(String(await value(kernel.client, "late.stop(); (await late).ended")), /stopped/);
  });

  it("shows an interrupted or failed run once and reports it where it is awaited", async () => {
    const { reply } = await execute(kernel.client, "await model.train([{ other: 1 }])");
    assert.equal(reply.content.ename, "DataError");
    assert.match(String(await value(kernel.client, "1 + 1")), /2/);
  });
});
