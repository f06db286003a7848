import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { execute, of, printed, published, sequence, startKernel, type TestKernel, value } from "./support.js";

describe("what cells show", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
  });
  after(() => kernel.stop());

  it("keeps stdout, stderr and results apart and in order", async () => {
    const answer = await execute(kernel.client, "console.log('a', { b: 1 }); console.error('c'); console.log('d'); 5");
    const streams = of(answer, "stream").map(({ content }) => [content.name, content.text]);
    assert.deepEqual(streams, [
      ["stdout", "a { b: 1 }\n"],
      ["stderr", "c\n"],
      ["stdout", "d\n"],
    ]);
    assert.deepEqual(sequence(answer).slice(-2), ["execute_result", "idle"]);
  });

  it("shows an error as the one output of a failing line, in the cell's own lines", async () => {
    const answer = await execute(kernel.client, "throw new TypeError('boom')");
    assert.deepEqual(sequence(answer), ["busy", "execute_input", "error", "idle"]);
    const { ename, evalue, traceback } = of(answer, "error")[0]!.content;
    assert.equal(ename, "TypeError");
    assert.equal(evalue, "boom");
    assert.equal(answer.reply.content.ename, "TypeError");
    assert.deepEqual(answer.reply.content.traceback, traceback);
    const code =
      "const factor: number = 2;\nfunction fail(x: number): never {\n  throw new RangeError('bad ' + x * factor);\n}";
    await execute(kernel.client, code);
    const later = await execute(kernel.client, "\n  fail(4);");
    const text = (later.reply.content.traceback as string[]).join("\n");
    const count = later.reply.content.execution_count as number;
    assert.match(text, /^RangeError: bad 8/);
    assert.match(text, new RegExp(`at fail \\(cell-${count - 1}:3:9\\)`));
    assert.match(text, new RegExp(`at cell-${count}:2:\\d`));
    assert.doesNotMatch(text, /dist\/kernel|node:internal/);
  });

  it("publishes 20,000 lines of one loop before idle, in few messages", async () => {
    const started = performance.now();
    const answer = await execute(kernel.client, "for (let i = 0; i < 20_000; i++) console.log('line ' + i);");
    const seconds = (performance.now() - started) / 1_000;
    const lines = printed(answer, "stdout").split("\n");
    assert.equal(lines.length, 20_001);
    assert.equal(lines[19_999], "line 19999");
    assert.ok(of(answer, "stream").length <= 50);
    assert.ok(seconds < 5, `${seconds} s`);
  });

  it("streams while the main thread is busy", async () => {
    const first = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const started = performance.now();
    const running = execute(
      kernel.client,
      "console.log('early'); const until = Date.now() + 700; while (Date.now() < until);",
    );
    assert.equal((await first).content.text, "early\n");
    assert.ok(performance.now() - started < 600);
    await running;
  });

  it("captures native output and that of child processes", async () => {
    writeFileSync(join(kernel.folder, "note.txt"), "from a file\n");
    const code = [
      "import { execFileSync } from 'node:child_process';",
      "import { writeSync } from 'node:fs';",
      "writeSync(1, 'descriptor\\n');",
      "execFileSync('sh', ['-c', 'cat note.txt; echo wrong >&2'], { stdio: 'inherit' });",
      "process.stdout.write('stream\\n');",
    ].join("\n");
    const answer = await execute(kernel.client, code);
    const out = printed(answer, "stdout");
    for (const text of ["descriptor\n", "from a file\n", "stream\n"]) assert.ok(out.includes(text), out);
    assert.equal(printed(answer, "stderr"), "wrong\n");
  });

  it("keeps every byte that a child process prints", async () => {
    const code =
      "require('node:child_process').execFileSync('sh', ['-c', 'yes 12345678 | head -c 4500000'], { stdio: 'inherit' });";
    const answer = await execute(kernel.client, code);
    assert.equal(printed(answer, "stdout").length, 4_500_000);
  });

  it("shows late output under its own cell", async () => {
    const code = "setTimeout(() => { console.log('late'); display('late too'); }, 120);";
    const first = await execute(kernel.client, code);
    const late = published(kernel.client, ({ header }) => header.msg_type === "stream");
    const shown = published(kernel.client, ({ header }) => header.msg_type === "display_data");
    await execute(kernel.client, "1");
    assert.equal((await late).content.text, "late\n");
    assert.equal((await late).parent.msg_id, first.reply.parent.msg_id);
    assert.equal((await shown).parent.msg_id, first.reply.parent.msg_id);
  });

  it("shows uncaught errors under their cell and keeps the state", async () => {
    await execute(kernel.client, "let kept = 1;");
    const stderr = published(kernel.client, ({ content }) => content.name === "stderr");
    const first = await execute(kernel.client, "setTimeout(() => { throw new Error('in a timer'); }, 60);");
    await execute(kernel.client, "kept");
    const shown = await stderr;
    assert.match(String(shown.content.text), /Uncaught: Error: in a timer\n {4}at/);
    assert.equal(shown.parent.msg_id, first.reply.parent.msg_id);
    const rejected = await execute(
      kernel.client,
      "void Promise.reject(new Error('nobody waits')); await new Promise((resolve) => setTimeout(resolve, 20));",
    );
    assert.match(printed(rejected, "stderr"), /Unhandled rejection: Error: nobody waits/);
    assert.equal(await value(kernel.client, "kept"), "1");
  });

  it("displays bundles, own display methods, and updates", async () => {
    const code = [
      "class Card { [Symbol.for('Jupyter.display')]() { return { 'text/html': '<b>card</b>' }; } }",
      "display({ 'text/html': '<i>0</i>', 'text/plain': '0' }, { id: 'bar' });",
      "display({ 'text/html': '<i>1</i>', 'text/plain': '1' }, { id: 'bar', update: true });",
      "display({ 'application/json': '{\"a\":1}', 'image/png': 'data:image/png;base64,QUJD' });",
      "display([1, 2]);",
      "new Card()",
    ].join("\n");
    const answer = await execute(kernel.client, code);
    const displays = of(answer, "display_data").map(({ content }) => content);
    assert.deepEqual(displays[0]!.transient, { display_id: "bar" });
    assert.deepEqual(of(answer, "update_display_data")[0]!.content.data, {
      "text/html": "<i>1</i>",
      "text/plain": "1",
    });
    assert.deepEqual(displays[1]!.transient, {});
    const data = displays[1]!.data as Record<string, unknown>;
    assert.deepEqual(data["application/json"], { a: 1 });
    assert.equal(data["image/png"], "QUJD");
    assert.deepEqual(displays[2]!.data, { "text/plain": "[ 1, 2 ]" });
    assert.deepEqual(of(answer, "execute_result")[0]!.content.data, {
      "text/html": "<b>card</b>",
      "text/plain": "[Card]",
    });
  });

  it("gives libraries a publisher with tokens of cells", async () => {
    const code = [
      "interface Publisher { publish(bundle: object, options?: object): void; clear(wait?: boolean): void; cell(): unknown; hold(work: Promise<unknown>): void }",
      "const publisher = Reflect.get(globalThis, Symbol.for('tunebook.publish/1')) as Publisher;",
      "const token = publisher.cell();",
      "publisher.publish({ 'text/plain': 'now' }, { id: 'p' });",
      "publisher.clear(true);",
      "publisher.hold(new Promise<void>((resolve) => setTimeout(() => { console.log('held'); resolve(); }, 80)));",
    ].join("\n");
    const first = await execute(kernel.client, code);
    assert.deepEqual(sequence(first), ["busy", "execute_input", "display_data", "clear_output", "stream", "idle"]);
    assert.deepEqual(of(first, "clear_output")[0]!.content, { wait: true });
    const update = published(kernel.client, ({ header }) => header.msg_type === "update_display_data");
    await execute(
      kernel.client,
      "publisher.publish({ 'text/plain': 'later' }, { id: 'p', update: true, cell: token });",
    );
    assert.equal((await update).parent.msg_id, first.reply.parent.msg_id);
  });

  it("imports packages, built-in modules and local files, as they are now", async () => {
    writeFileSync(join(kernel.folder, "inner.ts"), "export const base: number = 10;\n");
    writeFileSync(
      join(kernel.folder, "helper.ts"),
      "import { base } from './inner.js';\nexport interface Shape { n: number }\nexport const twice = (x: number): number => base + 2 * x;\n",
    );
    writeFileSync(join(kernel.folder, "data.json"), '{"rows": 3}');
    writeFileSync(join(kernel.folder, "old.cjs"), "exports.answer = 42;\n");
    const code = [
      "import { twice } from './helper';",
      "import data from './data.json';",
      "import { basename } from 'node:path';",
      "[twice(1), data.rows, basename('a/b'), require('./old.cjs').answer]",
    ].join("\n");
    assert.equal(await value(kernel.client, code), "[ 12, 3, 'b', 42 ]");
    writeFileSync(join(kernel.folder, "inner.ts"), "export const base: number = 100;\n");
    assert.equal(await value(kernel.client, "import { twice as again } from './helper';\nagain(1)"), "102");
    const missing = await execute(kernel.client, "await import('no-such-package' as string)");
    assert.match(String(missing.reply.content.evalue), /npm install no-such-package/);
  });
});
