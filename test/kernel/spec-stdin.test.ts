// "Messages on the stdin (ROUTER/DEALER) channel" of the messaging protocol.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Answer } from "../../kernel/protocol/client.js";
import type { Json, Message } from "../../kernel/protocol/message.js";
import { execute, of, sleep, startKernel, type TestKernel, value } from "./support.js";

describe("input of the front end's user", () => {
  let kernel: TestKernel;
  const questions: Message[] = [];
  before(async () => {
    kernel = await startKernel();
    kernel.client.on("reply", (message, channel) => channel === "stdin" && questions.push(message));
  });
  after(() => kernel.stop());

  async function asked(): Promise<Message> {
    for (let waited = 0; questions.length === 0; waited++) {
      assert.ok(waited < 500, "no question came");
      await sleep(20);
    }
    return questions.shift()!;
  }
  const reply = (content: Json, to?: Message): void => {
    const extra = to === undefined ? {} : { parent: to.rawHeader };
    kernel.client.sendRaw("stdin", kernel.client.encode("input_reply", content, extra));
  };
  const run = (code: string): Promise<Answer> => execute(kernel.client, code, { allow_stdin: true });
  const shown = (answer: Answer): unknown => {
    assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content));
    return (of(answer, "execute_result")[0]?.content.data as Json | undefined)?.["text/plain"];
  };

  it("is asked on stdin with the request's header as parent; hidden where it is a password", async () => {
    const running = run("const secret = await input('key: ', { password: true }); secret.length");
    const question = await asked();
    assert.equal(question.header.msg_type, "input_request");
    assert.deepEqual(question.content, { prompt: "key: ", password: true });
    reply({ value: "schlüssel", status: "ok" }, question);
    const answer = await running;
    assert.equal(question.parent.msg_id, answer.reply.parent.msg_id);
    assert.equal(shown(answer), "9");
  });

  it("comes by prompt, with a default, and null for the end of input", async () => {
    const running = run("[await prompt('name?'), await prompt('size?', '8'), await prompt('more?')]");
    for (const [prompt, value] of [
      ["name? ", "Ada"],
      ["size? [8] ", ""],
      ["more? ", "\x04"],
    ]) {
      const question = await asked();
      assert.equal(question.content.prompt, prompt);
      reply({ value }, question);
    }
    assert.equal(shown(await running), "[ 'Ada', '8', null ]");
  });

  it("comes by confirm, which asks again until it is yes or no", async () => {
    const running = run("[await confirm('sure?'), await confirm('really?'), await confirm('again?')]");
    for (const value of ["perhaps", "Yes", "", "n"]) reply({ value }, await asked());
    assert.equal(shown(await running), "[ true, false, false ]");
  });

  it("is an error where the input was ended, which a cell can catch", async () => {
    const running = run(
      "let ended = ''; try { await input('?'); } catch (error) { ended = (error as Error).name; }\nended",
    );
    reply({ status: "error" }, await asked());
    assert.equal(shown(await running), "'EndOfInputError'");
  });

  it("takes no answer to an older question, of another client, or from before it was asked", async () => {
    const first = run("await input('first ')");
    const old = await asked();
    reply({ value: "one" }, old);
    assert.equal(shown(await first), "'one'");
    reply({ value: "too early" });
    await sleep(50);
    const second = run("await input('second ')");
    const question = await asked();
    reply({ value: "stale" }, old);
    await sleep(100);
    reply({ value: "two" }, question);
    assert.equal(shown(await second), "'two'");
  });

  it("is asked one question at a time", async () => {
    const running = run("await Promise.all([input('a '), input('b ')])");
    const a = await asked();
    await sleep(50);
    assert.equal(questions.length, 0);
    reply({ value: "1" }, a);
    const b = await asked();
    reply({ value: "2" }, b);
    assert.equal(shown(await running), "[ '1', '2' ]");
    assert.deepEqual([a.content.prompt, b.content.prompt], ["a ", "b "]);
  });

  it("stops waiting within a second of an interrupt, and the next question is a new one", async () => {
    const running = run("await input('for ever ')");
    const question = await asked();
    const started = performance.now();
    await kernel.client.request("control", "interrupt_request");
    assert.equal((await running).reply.content.ename, "InterruptedError");
    assert.ok(performance.now() - started < 1_000);
    reply({ value: "late" }, question);
    const next = run("await input('next ')");
    reply({ value: "fresh" }, await asked());
    assert.equal(shown(await next), "'fresh'");
  });

  it("is an error in the cell where allow_stdin is false or the cell has ended", async () => {
    for (const code of ["await input('?')", "await prompt('?')", "await confirm('?')"]) {
      const refused = await execute(kernel.client, code, { allow_stdin: false });
      assert.equal(refused.reply.content.status, "error");
      assert.match(String(refused.reply.content.evalue), /allow_stdin is false/);
    }
    await run("let late = ''; setTimeout(() => void input('?').catch((error) => { late = error.message; }), 50);");
    await run("let forgotten = ''; void input('?').catch((error) => { forgotten = error.message; });");
    await sleep(150);
    assert.match(String(await value(kernel.client, "late")), /the cell has ended/);
    assert.match(String(await value(kernel.client, "forgotten")), /the cell has ended/);
    questions.length = 0;
  });
});
