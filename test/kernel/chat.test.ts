import assert from "node:assert/strict";
import { type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Conversation } from "../../kernel/chat/conversation.js";
import type { AnswerOptions, ChatModel, Message } from "../../kernel/chat/library.js";
import { chatInTerminal } from "../../kernel/chat/terminal.js";
import { root } from "../../notebooks/embedded/prepare.js";
import { embeddedModel, loadModel } from "../../src/index.js";
import { execute, printed, sleep, startKernel } from "./support.js";

const CLI = fileURLToPath(new URL("../../kernel/cli.js", import.meta.url));

/** A model that tells what it was asked, word by word, slowly where it is asked for a long answer. */
function parrot(given: { sight?: unknown; chatTemplate?: string | undefined } = {}): ChatModel & { asked: unknown[] } {
  const asked: unknown[] = [];
  return {
    asked,
    name: "parrot",
    device: "cpu",
    module: { sight: given.sight },
    tokenizer: { chatTemplate: "chatTemplate" in given ? given.chatTemplate : "{{ messages }}" },
    async *stream(prompt: string | readonly Message[], options: AnswerOptions) {
      asked.push(JSON.parse(JSON.stringify(prompt)));
      const content = typeof prompt === "string" ? prompt : prompt.at(-1)!.content;
      const last =
        typeof content === "string" ? content : content.map((part) => ("text" in part ? part.text : "")).join("");
      if (last === "fail") throw new RangeError("there is no room");
      yield " ";
      if (last === "nothing") return;
      for (let i = 0; i < (last === "long" ? 1000 : 2); i++) {
        await sleep(i === 0 ? 0 : 5);
        if (options.signal?.aborted) throw new Error("stopped");
        yield `${last}${i} `;
      }
    },
    dispose() {},
  };
}

const text = async (parts: AsyncIterable<string>): Promise<string> => {
  let all = "";
  for await (const part of parts) all += part;
  return all;
};

describe("a conversation", () => {
  it("keeps what was said, with the system's words before it, until it is reset", async () => {
    const model = parrot();
    const conversation = new Conversation(model, { system: "Be brief.", maxNewTokens: 5 });
    assert.equal(await text(conversation.ask("a")), "a0 a1 ");
    await text(conversation.ask("b"));
    const system = { role: "system", content: "Be brief." };
    const first = [
      { role: "user", content: "a" },
      { role: "assistant", content: "a0 a1" },
    ];
    assert.deepEqual(model.asked[1], [system, ...first, { role: "user", content: "b" }]);
    conversation.reset();
    await text(conversation.ask("c"));
    assert.deepEqual(model.asked[2], [system, { role: "user", content: "c" }]);
  });

  it("shows images with one question, and keeps them when it was not answered", async () => {
    const model = parrot({ sight: {} });
    const conversation = new Conversation(model, { maxPixels: 784 });
    conversation.show("cat.png");
    await text(conversation.ask("nothing"));
    assert.deepEqual([conversation.messages.length, conversation.images], [0, ["cat.png"]]);
    await assert.rejects(text(conversation.ask("fail")), /no room/);
    assert.deepEqual(conversation.images, [], "those of a question that failed are dropped");
    conversation.show("cat.png");
    conversation.show("dog.png");
    await text(conversation.ask("which?"));
    await text(conversation.ask("and now?"));
    const parts = ["cat.png", "dog.png"].map((image) => ({ type: "image", image, maxPixels: 784 }));
    const [first, , last] = model.asked.at(-1) as Message[];
    assert.deepEqual(first!.content, [...parts, { type: "text", text: "which?" }]);
    assert.equal(last!.content, "and now?");
    assert.throws(() => new Conversation(parrot(), {}).show("cat.png"), /parrot takes text alone.*Qwen2-VL/);
  });

  it("takes back a question that failed, and needs a chat template unless texts are continued as they stand", async () => {
    const model = parrot();
    const conversation = new Conversation(model, {});
    await assert.rejects(text(conversation.ask("fail")), /no room/);
    assert.equal(conversation.messages.length, 0);
    assert.throws(() => new Conversation(parrot({ chatTemplate: undefined }), {}), /no chat template.*--plain/);
    const bare = parrot({ chatTemplate: undefined });
    assert.equal(await text(new Conversation(bare, { plain: true }).ask("def f(")), " def f(0 def f(1 ");
    assert.deepEqual(bare.asked, ["def f("]);
    assert.throws(() => new Conversation(bare, { plain: true, system: "x" }), /--system.*--plain/);
  });
});

/** A chat in a terminal of its own: what is typed, and what stands on it. */
function terminal(conversation: Conversation): {
  type(keys: string): void;
  shown(): string;
  sees(what: string | RegExp): Promise<void>;
  ended: Promise<void>;
} {
  const [input, output] = [new PassThrough(), new PassThrough()];
  let all = "";
  output.setEncoding("utf8").on("data", (piece: string) => {
    all += piece;
  });
  const ended = chatInTerminal(conversation, { input, output });
  const sees = async (what: string | RegExp): Promise<void> => {
    const there = (): boolean => (typeof what === "string" ? all.includes(what) : what.test(all));
    for (let i = 0; i < 500 && !there(); i++) await sleep(10);
    assert.ok(there(), `${String(what)} in ${JSON.stringify(all)}`);
    all = "";
  };
  return { type: (keys) => void input.write(keys), shown: () => all, sees, ended };
}

describe("a chat in a terminal", () => {
  it("goes turn by turn, takes lines that were pasted or go on as one text, and obeys commands", async () => {
    const model = parrot({ sight: {} });
    const { type, sees, ended } = terminal(new Conversation(model, {}));
    type("hello\r");
    await sees("hello0 hello1");
    type("one\rtwo\r");
    await sees("one\ntwo0");
    type("three\\\r");
    await sees("… ");
    type("four\r");
    await sees("three\nfour1");
    type("/help\r");
    await sees("/image FILE");
    type("/image\r");
    await sees("Name a file");
    type("/image cat.png\r");
    await sees("shows this picture");
    type("/strange\r");
    await sees("There is no command /strange");
    type("which?\r");
    await sees("which?0");
    type("nothing\r");
    await sees("(no answer)");
    type("fail\r");
    await sees("there is no room");
    type("/reset\ragain\r");
    await sees("again1");
    assert.deepEqual(model.asked.at(-1), [{ role: "user", content: "again" }]);
    type("/exit\r");
    await ended;
  });

  it("stops an answer at Ctrl-C and keeps what came of it; leaves at Ctrl-C twice and at Ctrl-D", async () => {
    const model = parrot();
    const conversation = new Conversation(model, {});
    const one = terminal(conversation);
    one.type("long\r");
    await one.sees("long3");
    one.type("\x03");
    await one.sees("(stopped)");
    assert.match(String(conversation.messages[1]!.content), /^long0 long1 long2 long3( long\d+)*$/);
    one.type("more\r");
    await one.sees("more1");
    one.type("half a line\x03");
    await sleep(20);
    one.type("\x03");
    await one.sees("Ctrl-C again");
    one.type("no\r");
    await one.sees("no1");
    one.type("\x03");
    await one.sees("Ctrl-C again");
    one.type("\x03");
    await one.ended;
    assert.equal(model.asked.length, 3, "half a line was never asked");
    const other = terminal(new Conversation(parrot(), {}));
    other.type("\x04");
    await other.ended;
  });
});

describe("tunebook chat", () => {
  const chat = (args: string[], input = ""): SpawnSyncReturns<string> =>
    spawnSync(process.execPath, [CLI, "chat", ...args], { encoding: "utf8", input, cwd: root, timeout: 120_000 });
  const question = "Who are you?";

  it("prints one answer for --prompt or a pipe: the model's own", async () => {
    using model = await loadModel(embeddedModel(), { device: "cpu" });
    const answer = `${await model.chat([{ role: "user", content: question }], { maxNewTokens: 40 })}\n`;
    const args = ["--model", embeddedModel(), "--device", "cpu", "--max-tokens", "40"];
    const asked = chat([...args, "--prompt", question]);
    assert.deepEqual([asked.stdout, asked.status], [answer, 0], asked.stderr);
    assert.equal(chat(args, question).stdout, answer);
    const continued = await model.generate(question, { maxNewTokens: 12, temperature: 1, seed: 3 });
    const plain = [...args.slice(0, -1), "12", "--plain", "--temperature", "1", "--seed", "3"];
    assert.equal(chat(plain, question).stdout, `${continued}\n`);
    await using quantised = await model4();
    const four = await quantised.model.chat([{ role: "user", content: question }], { maxNewTokens: 40 });
    assert.equal(chat([...args, "--quantize", "nf4", "--prompt", question]).stdout, `${four}\n`);
  });

  const model4 = async (): Promise<{ model: Awaited<ReturnType<typeof loadModel>> } & AsyncDisposable> => {
    const model = await loadModel(embeddedModel(), { device: "cpu" }).quantize({ type: "nf4" });
    return { model, [Symbol.asyncDispose]: async () => model.dispose() };
  };

  it("says by name what is wrong, with exit code 1", () => {
    const fails = (args: string[], expected: RegExp): void => {
      const { status, stdout, stderr } = chat(args);
      assert.deepEqual([status, stdout], [1, ""]);
      assert.match(stderr, expected);
    };
    const model = ["--model", embeddedModel(), "--prompt", "x"];
    fails(["--model", embeddedModel()], /^tunebook: chat: there is nothing to answer\. Give --prompt/);
    fails(["--prompt", "x"], /required option '--model <model>'/);
    fails(
      ["--model", "no/such/folder", "--prompt", "x"],
      /^tunebook: ConfigError: loadModel: "no\/such\/folder" is no/,
    );
    fails([...model, "--image", "cat.png"], /takes text alone/);
    fails([...model, "--adapter", "./nowhere"], /^tunebook: ConfigError: loadAdapter: "\.\/nowhere" is no folder/);
    fails([...model, "--temperature", "-1"], /^tunebook: ConfigError: generate: temperature must be a number from 0/);
    fails([...model, "--max-tokens", "1.5"], /expected a whole number/);
    fails([...model, "--double-quant"], /goes with --quantize/);
  });

  it("ends at an interrupt with what it had said", async () => {
    const args = [
      "chat",
      "--model",
      embeddedModel(),
      "--plain",
      "--max-tokens",
      "480",
      "--temperature",
      "3",
      "--seed",
      "1",
    ];
    const child = spawn(process.execPath, [CLI, ...args, "--prompt", "Once"], { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (piece: string) => {
      if (said === "") child.kill("SIGINT");
      said += piece;
    });
    const [code] = (await once(child, "close")) as [number | null];
    assert.equal(code, 130);
    assert.ok(said.length > 0);
  });

  it("is found in the cells of a notebook, whatever is on the path", async () => {
    const kernel = await startKernel({ PATH: "/usr/bin:/bin" });
    try {
      const where = printed(await execute(kernel.client, "!command -v tunebook; tunebook --version"), "stdout");
      const [path, version] = where.trim().split("\n");
      assert.equal(path, join(root, "kernel", "bin", "tunebook"));
      assert.match(version!, /^\d+\.\d+\.\d+$/);
      const answered = await execute(
        kernel.client,
        `const model = ${JSON.stringify(embeddedModel())};\n!tunebook chat --model {model} --device cpu --prompt {"${question}"}`,
      );
      assert.match(printed(answered, "stdout"), /Wrenmouth/, JSON.stringify(answered.reply.content));
    } finally {
      await kernel.stop();
    }
  });
});
