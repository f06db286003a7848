import assert from "node:assert/strict";
import { mkdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { magics } from "../../kernel/magics/table.js";
import { execute, of, printed, startKernel, type TestKernel, value } from "./support.js";

describe("magics", () => {
  let kernel: TestKernel;
  let folder: string;
  before(async () => {
    kernel = await startKernel({ TUNEBOOK_TEST_TOKEN: "hush", TUNEBOOK_TEST_PLAIN: "seen" });
    folder = realpathSync(kernel.folder);
  });
  after(() => kernel.stop());

  /** What a cell prints; it must succeed. */
  async function out(code: string): Promise<string> {
    const answer = await execute(kernel.client, code);
    assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content));
    return printed(answer, "stdout");
  }
  async function failure(code: string): Promise<{ ename: string; evalue: string; traceback: string }> {
    const { content } = (await execute(kernel.client, code)).reply;
    assert.equal(content.status, "error");
    const { ename, evalue, traceback } = content as Record<string, unknown>;
    return { ename: String(ename), evalue: String(evalue), traceback: (traceback as string[]).join("\n") };
  }
  async function shown(code: string): Promise<Record<string, string>> {
    const answer = await execute(kernel.client, code);
    assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content));
    const displays = of(answer, "display_data");
    assert.equal(displays.length, 1);
    return displays[0]!.content.data as Record<string, string>;
  }

  it("%time and %%time tell the time, and pass on value and names", async () => {
    const answer = await execute(
      kernel.client,
      "%time const slow = await new Promise<number>((done) => setTimeout(() => done(6), 60))",
    );
    const wall = /CPU times: user .*, system .*, total .*\nWall time: ([\d.]+) ms\n$/.exec(printed(answer, "stdout"));
    assert.ok(wall && Number(wall[1]) >= 55, printed(answer, "stdout"));
    const cell = await execute(kernel.client, "%%time\nlet twice = slow * 2;\n// a comment\ntwice + 1");
    assert.match(printed(cell, "stdout"), /^CPU times.*\nWall time/);
    assert.equal((of(cell, "execute_result")[0]!.content.data as Record<string, string>)["text/plain"], "13");
    assert.equal(await value(kernel.client, "twice"), "12");
    const { traceback } = await failure("%%time\n\ntwice.x.y");
    assert.match(traceback, /3 \| twice\.x\.y/);
    assert.match((await failure("%%time\nconst no: any = null;\nno.thing")).traceback, /at cell-\d+:3:4/);
  });

  it("%timeit tells the mean of a loop, of code that awaits too", async () => {
    assert.match(
      await out("%timeit -n 100 -r 2 [1, 2, 3].map((x) => x * 2)"),
      /^[\d.]+ [nµm]?s ± [\d.]+ [nµm]?s a loop \(mean and standard deviation of 2 runs of 100 loops\)\n$/,
    );
    const waited = await out("%timeit -n 2 -r 2 await new Promise((done) => setTimeout(done, 20))");
    const [, mean = "0"] = /^([\d.]+) ms/.exec(waited)!;
    assert.ok(Number(mean) >= 18 && Number(mean) < 200, waited);
    assert.match(
      await out("let runs = 0;\n%timeit -r 3 runs++\nconsole.log('ran', runs >= 3)"),
      /of 3 runs of [\d,]+ loops?\)\nran true\n$/,
    );
    assert.match(
      await out("%%timeit -n 3 -r 1\nfunction inner() { return 1; }\nconst a = inner();"),
      /of 1 run of 3 loops/,
    );
  });

  it("%pwd and %cd know the working folder, and say what is wrong with another", async () => {
    mkdirSync(join(folder, "a folder"));
    assert.equal(await out("%pwd"), `${folder}\n`);
    assert.equal(await out("%cd 'a folder'\n!pwd"), `${join(folder, "a folder")}\n`.repeat(2));
    assert.equal(await out("%cd -"), `${folder}\n`);
    assert.equal(await out("const sub = 'a folder';\n%cd {sub}"), `${join(folder, "a folder")}\n`);
    assert.equal(await out("%cd\nconsole.log(process.cwd())"), `${homedir()}\n${realpathSync(homedir())}\n`);
    assert.equal(await out(`%cd ${folder}`), `${folder}\n`);
    const { ename, evalue, traceback } = await failure("1;\n  %cd nowhere");
    assert.equal(ename, "UsageError");
    assert.match(evalue, /There is no folder .*nowhere; the working folder is .*\. Usage: %cd \[FOLDER\|-\]$/);
    assert.match(traceback, /at cell-\d+:2:3/);
    assert.match(
      (await failure("%cd a folder")).evalue,
      /Expected one argument, got also "folder"; a name with blanks stands in quotes/,
    );
    assert.match((await failure("%cd 'a folder")).evalue, /The quote ' is not closed/);
  });

  it("%env lists, prints and sets variables, and hides secrets", async () => {
    assert.equal(await out("%env TUNEBOOK_TEST_PLAIN"), "seen\n");
    assert.equal(
      await out("const v = 5;\n%env TUNEBOOK_TEST_SET=a {v}\n!echo $TUNEBOOK_TEST_SET"),
      "TUNEBOOK_TEST_SET=a 5\na 5\n",
    );
    assert.equal(
      await out("%env TUNEBOOK_TEST_SET = b\nconsole.log(process.env.TUNEBOOK_TEST_SET)"),
      "TUNEBOOK_TEST_SET=b\nb\n",
    );
    const text = (await shown("%env"))["text/plain"]!;
    assert.match(text, /TUNEBOOK_TEST_PLAIN +seen/);
    assert.match(text, /TUNEBOOK_TEST_TOKEN +<hidden>/);
    assert.doesNotMatch(text, /hush/);
    assert.match(
      (await failure("%env TUNEBOOK_TEST_NONE")).evalue,
      /There is no environment variable TUNEBOOK_TEST_NONE/,
    );
  });

  it("%who and %reset know the notebook's names", async () => {
    await execute(kernel.client, "%reset");
    assert.equal(await out("%who"), "No names yet.\n");
    await execute(
      kernel.client,
      "const pi = 3.14; class Point { x = 1 } function area() { return pi } const spots = [new Point()]; const evil = '<b>';",
    );
    const { "text/plain": text = "", "text/html": html = "" } = await shown("%who");
    assert.match(text, /^name +type +value\n─/);
    assert.match(text, /\npi +number +3\.14\n/);
    assert.match(text, /Point +class/);
    assert.match(text, /spots +Array +\[ Point/);
    assert.ok(html.includes("&lt;b&gt;") && !html.includes("<b>'"));
    assert.match((await shown("%who number"))["text/plain"]!, /^name.*\n.*\npi +number +3\.14$/);
    assert.equal(await out("%reset pi, spots"), "Forgot pi, spots\n");
    assert.match((await failure("pi")).evalue, /Cannot find name 'pi'/);
    assert.match((await failure("%reset areas")).evalue, /no name 'areas'\. Did you mean area\?/);
    assert.equal(await value(kernel.client, "typeof area"), "'function'");
    await execute(kernel.client, "%reset\nconst own = 1;");
    assert.equal(await value(kernel.client, "own"), "1");
    assert.match((await failure("area()")).evalue, /Cannot find name 'area'/);
    assert.equal(await value(kernel.client, "const area = 'new'; area"), "'new'");
  });

  it("%%writefile writes and appends, and %run takes what a file declares into the notebook, typed", async () => {
    assert.match(
      await out(
        "%%writefile part.ts\nexport const hidden = 1;\nimport { inner } from './inner';\nlet count: number = inner;\nfunction twice(x: number) { return 2 * x; }\nconsole.log('runs');",
      ),
      /^Wrote .*part\.ts\n$/,
    );
    assert.match(await out("%%writefile inner.ts\nexport const inner = 20;"), /^Wrote/);
    assert.match(await out("%%writefile -a part.ts\nconst { dirname } = import.meta;"), /^Added to/);
    assert.equal(readFileSync(join(folder, "part.ts"), "utf8").split("\n").at(-2), "const { dirname } = import.meta;");
    assert.equal(await out("%run part.ts"), "runs\n");
    assert.equal(await value(kernel.client, "twice(count) + hidden"), "41");
    assert.equal(await value(kernel.client, "dirname"), `'${folder}'`);
    assert.match((await failure("twice('x')")).evalue, /not assignable to parameter of type 'number'/);
    assert.match(
      (await failure("%%writefile nowhere/x.ts\n1")).evalue,
      /There is no folder .*nowhere: make it with !mkdir/,
    );
    assert.match((await failure("%%writefile")).evalue, /file's name is missing/);
  });

  it("%run resolves a file's imports from its own folder, runs notebooks, and shows errors in the file's lines", async () => {
    mkdirSync(join(folder, "lib"));
    writeFileSync(
      join(folder, "lib", "base.ts"),
      "export interface Base { size: number }\nexport const base: Base = { size: 7 };\n",
    );
    writeFileSync(join(folder, "lib", "main.ts"), "import { base } from './base';\nconst doubled = base.size * 2;\n");
    const cells = ["const fromNotebook = doubled + 1;", ["console.log(", "fromNotebook)"]];
    const notebook = {
      cells: [{ cell_type: "markdown", source: "# x" }, ...cells.map((source) => ({ cell_type: "code", source }))],
    };
    writeFileSync(join(folder, "lib", "other.ipynb"), JSON.stringify(notebook));
    assert.equal(await out("%run lib/main.ts\n%run lib/other.ipynb"), "15\n");
    assert.equal(await value(kernel.client, "const b: number = base.size; b + fromNotebook + doubled"), "36");
    assert.match((await failure("base.sizes")).evalue, /Property 'sizes' does not exist on type 'Base'/);
    writeFileSync(
      join(folder, "lib", "bad.ts"),
      "const one = 1;\nfunction inner() {\n  throw new RangeError('deep');\n}\ninner();\n",
    );
    const { ename, traceback } = await failure("%run lib/bad.ts");
    assert.equal(ename, "RangeError");
    assert.match(traceback, /at inner \(.*lib\/bad\.ts:3:9\)/);
    assert.match(traceback, /at .*lib\/bad\.ts:5:1/);
    writeFileSync(join(folder, "lib", "typed.ts"), "const n: number =\n  'x';\n");
    const typed = await failure("%run lib/typed.ts");
    assert.equal(typed.ename, "TypeCheckError");
    assert.match(typed.traceback, /lib\/typed\.ts: Type 'string' is not assignable to type 'number'/);
    assert.match((await failure("%run lib/bed.ts")).evalue, /There is no file .*bed\.ts\./);
    assert.match((await failure("%run lib")).evalue, /There is no file/);
    writeFileSync(join(folder, "round.ts"), "%run round.ts\n");
    assert.match((await failure("%run round.ts")).evalue, /files run each other 20 deep; is there a circle\?/);
  });

  it("%%html, %%markdown, %%latex and %%svg show the text as what it is", async () => {
    assert.deepEqual(await shown("%%html\n<b>{x}</b>"), { "text/html": "<b>{x}</b>", "text/plain": "[HTML]" });
    assert.deepEqual(await shown("%%markdown\n# T\n*t*"), { "text/markdown": "# T\n*t*", "text/plain": "# T\n*t*" });
    assert.deepEqual(await shown("%%latex\n$x$"), { "text/latex": "$x$", "text/plain": "$x$" });
    assert.deepEqual(await shown("%%svg\n<svg/>"), { "image/svg+xml": "<svg/>", "text/plain": "[SVG]" });
    assert.match((await failure("%%html isolated\nx")).evalue, /'isolated' is not understood here/);
  });

  it("explains itself, and what is wrong", async () => {
    const list = await shown("%lsmagic");
    for (const { name, summary } of magics) {
      assert.ok(list["text/plain"]!.includes(summary.replaceAll("`", "")), name);
      const { "text/plain": text = "", "text/markdown": markdown = "" } = await shown(`%${name}?`);
      assert.ok(text.includes(summary.replaceAll("`", "")) && markdown.includes(summary), name);
    }
    const { ename, evalue, traceback } = await failure("let fine = 1;\n%tmie fine");
    assert.equal(ename, "UsageError");
    assert.equal(evalue, "There is no magic '%tmie'. Did you mean %time? %lsmagic lists them all.");
    assert.match(traceback, /2 \| %tmie fine\n +\| \^{5}/);
  });

  it("%typecheck says what type errors do from that cell on", async () => {
    const warned = await execute(kernel.client, "%typecheck warn\nconst wrong: number = 'x';");
    assert.equal(warned.reply.content.status, "ok");
    assert.match(printed(warned, "stderr"), /warning: Type 'string' is not assignable to type 'number'/);
    await execute(kernel.client, "%typecheck off");
    assert.equal(await value(kernel.client, "const w2: number = 'y'; w2"), "'y'");
    await execute(kernel.client, "%typecheck error");
    assert.match((await failure("const w3: number = 'z';")).evalue, /not assignable/);
  });
});
