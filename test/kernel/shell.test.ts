import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { runProgram, shellCommand, shellProgram } from "../../kernel/execute/child/shell.js";
import { execute, of, printed, published, sleep, startKernel, type TestKernel, value } from "./support.js";

/** What a shell makes of a command, argument by argument. */
async function words(texts: string[], values: unknown[]): Promise<string[]> {
  const [first = "", ...rest] = texts;
  const command = shellCommand([`printf '%s\\0' ${first}`, ...rest], values);
  const { stdout } = await runProgram(shellProgram(), ["-c", command]);
  return stdout.split("\0").slice(0, -1);
}

describe("values in commands", () => {
  it("are one word each, whatever they hold and in whichever quotes they stand", async () => {
    const letters = [
      " ",
      "'",
      '"',
      "\\",
      "$",
      "`",
      "\n",
      ";",
      "|",
      "&",
      "*",
      "?",
      "~",
      "#",
      "!",
      "{",
      "}",
      "(",
      ")",
      "<",
      ">",
      "-",
      "a",
      "ä",
      "🙂",
      "$(id)",
      "\t",
    ];
    let seed = 7;
    const random = (below: number): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return Math.floor((seed / 2 ** 31) * below);
    };
    for (let round = 0; round < 40; round++) {
      const [a, b, c] = [0, 1, 2].map(() =>
        Array.from({ length: 1 + random(8) }, () => letters[random(letters.length)]).join(""),
      ) as [string, string, string];
      assert.deepEqual(
        await words(["x", ' "y', "\" 'z", "'"], [a, b, c]),
        [`x${a}`, `y${b}`, `z${c}`],
        JSON.stringify([a, b, c]),
      );
    }
  });

  it("are several words for an array, and nothing but an argument where they look like options or are empty", async () => {
    assert.deepEqual(await words(["", " ", ""], [["a b", "c'd", ""], ""]), ["a b", "c'd", "", ""]);
    assert.deepEqual(await words(["", ""], [12.5]), ["12.5"]);
    assert.deepEqual(await words(["\\'", ""], ["x y"]), ["'x y"]);
    assert.throws(() => shellCommand(["", ""], ["a\0b"]), /cannot hold the character NUL/);
  });
});

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: templates of cells, variables of the shell
describe("commands", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
  });
  after(() => kernel.stop());

  async function stdout(code: string): Promise<string> {
    const answer = await execute(kernel.client, code);
    assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content));
    return printed(answer, "stdout");
  }

  it("run, keep their streams apart, and tell an exit code that is not 0", async () => {
    const answer = await execute(
      kernel.client,
      "const name = 'a; echo b';\n!echo {name} $((1 + 1)); echo wrong >&2; exit 3\nconsole.log('next')",
    );
    assert.equal(answer.reply.content.status, "ok");
    assert.equal(printed(answer, "stdout"), "a; echo b 2\nnext\n");
    assert.equal(printed(answer, "stderr"), "wrong\n[exit code 3]\n");
    const killed = await execute(kernel.client, "!kill -9 $$");
    assert.equal(printed(killed, "stderr"), "[ended by SIGKILL]\n");
    assert.match(printed(await execute(kernel.client, "!cd /"), "stderr"), /%cd changes the notebook's/);
    assert.equal(await stdout("!cat"), "", "there is nothing to read");
  });

  it("show their output while they run", async () => {
    const first = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const started = performance.now();
    const running = execute(kernel.client, "!echo early; sleep 1; echo late");
    assert.equal((await first).content.text, "early\n");
    assert.ok(performance.now() - started < 900);
    assert.equal(printed(await running, "stdout"), "early\nlate\n");
  });

  it("lose nothing of a long output, nor half a character", async () => {
    const text = await stdout('!for i in $(seq 20000); do echo "zeile $i äöü🙂"; done');
    assert.equal(text, Array.from({ length: 20_000 }, (_, i) => `zeile ${i + 1} äöü🙂\n`).join(""));
  });

  for (const [name, code] of [
    ["a command", "!echo begun; sleep 30 & sleep 30; wait"],
    ["a command that ignores SIGINT and SIGTERM", "!trap '' INT TERM; echo begun; sleep 30; sleep 30"],
    ["a script", "%%bash\necho begun\n(trap '' INT; sleep 30) &\nwait"],
    ["sh", "console.log('begun');\nawait sh`echo $$ > pid; sleep 30; sleep 30`"],
    ["sh that is live", "await sh({ live: true })`echo begun; sleep 30`"],
  ] as const) {
    it(`end when they are interrupted, with all that they have started: ${name}`, async () => {
      await execute(kernel.client, "var kept = 41;");
      const begun = published(kernel.client, ({ content }) => String(content.text).startsWith("begun"));
      const running = execute(kernel.client, code);
      await begun;
      await sleep(100);
      const sent = performance.now();
      await kernel.client.request("control", "interrupt_request", {});
      const answer = await running;
      assert.ok(performance.now() - sent < 1_500, `${performance.now() - sent} ms`);
      assert.equal(answer.reply.content.ename, "InterruptedError");
      assert.equal(await value(kernel.client, "kept + 1"), "42");
      await sleep(1_300);
      const left = printed(await execute(kernel.client, "!ps -o pid,ppid,args -A | grep '[s]leep 30' | cat"), "stdout");
      assert.equal(left, "");
    });
  }

  it("%%bash runs a script with arguments and fails the cell when it fails", async () => {
    assert.equal(await stdout("const word = 'a b';\n1;"), "");
    const answer = await execute(
      kernel.client,
      '%%bash {word} x\necho "$1|$2|$#"\n\ncat <<END\n  {not} ${HOME:+replaced}\nEND\n[[ a == a ]] && exit 4',
    );
    assert.equal(printed(answer, "stdout"), "a b|x|2\n  {not} replaced\n");
    assert.equal(answer.reply.content.ename, "ShellError");
    assert.match(String(answer.reply.content.evalue), /%%bash` ended with exit code 4/);
    assert.equal(await stdout("%%sh\necho plain"), "plain\n");
    const long = `%%bash a\n${"# a long comment of this script\n".repeat(6_000)}echo "$1 $#"`;
    assert.equal(await stdout(long), "a 1\n");
  });

  it("sh gives text, lines and code, and rejects with them", async () => {
    writeFileSync(join(kernel.folder, "a file.txt"), "one\ntwo\n");
    const code =
      "const file = 'a file.txt';\nconst read = await sh`cat ${file}; echo problem >&2`;\n[read.lines.length, read.stdout, read.stderr, read.code, `${read}`]";
    assert.equal(await value(kernel.client, code), "[ 2, 'one\\ntwo\\n', 'problem\\n', 0, 'one\\ntwo' ]");
    const failed = await execute(kernel.client, "\nawait sh`echo so far; echo reason >&2; exit 7`");
    assert.equal(failed.reply.content.ename, "ShellError");
    assert.match(String(failed.reply.content.evalue), /ended with exit code 7:\nreason$/);
    assert.match((failed.reply.content.traceback as string[]).join("\n"), /at cell-\d+:2:1/);
    const caught = "try { await sh`exit 7` } catch (error) { console.log(error.code, error.name) }";
    assert.equal(await stdout(caught), "7 ShellError\n");
    assert.equal(await value(kernel.client, "(await sh({ check: false })`exit 7`).code"), "7");
    const options =
      "const made = await sh({ env: { A_B: 'x' }, input: 'in\\n', cwd: '/' })`cat; echo $A_B; pwd`; made.stdout";
    assert.equal(await value(kernel.client, options), "'in\\nx\\n/\\n'");
    assert.equal(
      await value(kernel.client, "(await sh`echo ${await sh`echo inner`} ${['p', 'q r']}`).stdout"),
      "'inner p q r\\n'",
    );
    assert.equal(
      await value(kernel.client, "(await sh`printf '%s' a\\\\b \\d`).stdout"),
      "'ab\\\\d'".replace("ab\\\\d", "abd"),
    );
  });

  it("sh is live only when asked, ends by a signal of one's own, and is typed", async () => {
    const silent = await execute(kernel.client, "await sh`echo x`;");
    assert.equal(printed(silent, "stdout"), "");
    const live = await execute(kernel.client, "await sh({ live: true })`echo x; echo y >&2`; 1");
    assert.deepEqual([printed(live, "stdout"), printed(live, "stderr")], ["x\n", "y\n"]);
    const started = performance.now();
    const stopped = await execute(kernel.client, "await sh({ signal: AbortSignal.timeout(200) })`sleep 20`");
    assert.equal(stopped.reply.content.ename, "TimeoutError");
    assert.ok(performance.now() - started < 5_000);
    const typed = await execute(kernel.client, "const n: number = (await sh`ls`).lines");
    assert.match(String(typed.reply.content.evalue), /'string\[\]' is not assignable to type 'number'/);
    const wrong = await execute(kernel.client, "(sh as any)({ alive: true })");
    assert.match(String(wrong.reply.content.evalue), /expected live, check, cwd, env, input, signal, got "alive"/);
    assert.equal(of(await execute(kernel.client, "await sh`echo shown`"), "execute_result").length, 1);
    assert.ok(
      existsSync(join(kernel.folder, "a file.txt")) &&
        readFileSync(join(kernel.folder, "a file.txt"), "utf8").length > 0,
    );
  });
});
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: templates of cells, variables of the shell
