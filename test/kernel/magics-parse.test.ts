import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { complete } from "../../kernel/complete/complete.js";
import { isComplete } from "../../kernel/complete/completeness.js";
import { inspect } from "../../kernel/complete/inspect.js";
import { type Preprocessed, preprocess } from "../../kernel/magics/parse.js";
import { describeMagic, magics, nearest, shellMagic, usage } from "../../kernel/magics/table.js";
import { Notebook } from "./compile-notebook.js";

/** What a cell's magics are, in short. */
function read(text: string, ...known: string[]): string[] {
  const found: Preprocessed = preprocess(text, (name) => known.includes(name));
  assert.equal(found.code.length, text.length, "every character keeps its place");
  assert.deepEqual(
    [...found.code.matchAll(/\n/g)].map(({ index }) => index),
    [...text.matchAll(/\n/g)].map(({ index }) => index),
  );
  const named = found.magics.map((magic) => {
    if (magic.kind !== "call") return `${magic.kind}(${magic.start}-${magic.end})`;
    return `${magic.name}(${magic.texts.join("·")})${magic.body === undefined ? "" : `<${magic.body}>`}`;
  });
  const typecheck = found.typecheck === undefined ? [] : [`typecheck ${found.typecheck}`];
  return [...typecheck, ...named, ...found.faults.map(({ start, length, message }) => `${start}+${length} ${message}`)];
}

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: variables of the shell
describe("magics in a cell", () => {
  const cases: [text: string, ...found: string[]][] = [
    ["%pwd", "pwd()"],
    ["  %cd some folder \nx", "cd(some folder )"],
    ["a;\n%env A=1\nb\n!ls -l", "env(A=1)", "!(ls -l)"],
    ["!make \\\n  all\nx", "!(make    all)"],
    ["%%bash -x\necho 1\n\n%time", "bash(-x)<echo 1\n\n%time>"],
    ["\n  %%html\n<b>", "html()<<b>>"],
    ["%%markdown", "markdown()<>"],
    ["%time f()", "time(0-9)"],
    ["%%time\n1\n!ls", "time(0-12)", "!(ls)"],
    ["%time !ls {x}", "time(0-13)", "!(ls ·)"],
    ["%timeit -n 5 -r2 f()", "timeit(0-20)"],
    ["%typecheck warn\nx", "typecheck warn"],
    ["1;\n%typecheck off", "typecheck off"],
    ["%time?", "help(time)"],
    ["%?time", "help(time)"],
    ["%%bash?", "help(bash)"],
    ["!?", "help(!)"],
    // Interpolation
    ["!cat {a} x{b.c}y", "!(cat · x·y)"],
    ["!cat {`}${{a: 1}}`}", "!(cat ·)"],
    ["!echo ${HOME} {{a}}", "!(echo ${HOME} {a})"],
    ["!awk '{print $1}' f", "!(awk '{print $1}' f)"],
    ["!cp a{1,2} b{,.bak} {1..5} -exec {} ;", "!(cp a{1,2} b{,.bak} {1..5} -exec {} ;)"],
    ["%cd {folder}/sub", "cd(·/sub)"],
    // TypeScript
    ["const a = b\n  % c;"],
    ["const a = b\n%c"],
    ["if (a &&\n  !b) c()"],
    ["f(\n!a)"],
    ["`\n%pwd\n!ls`"],
    ["/*\n%pwd\n!ls */"],
    ["a +\n!ls"],
    ["function f() {\n!ls\n}"],
    ["!(async () => {})()"],
    ["!!a"],
    ["let done = true;\n!done"],
    ["!await x"],
    ["a % b"],
    // Faults
    ["%tme f()", "0+4 There is no magic '%tme'. Did you mean %time? %lsmagic lists them all."],
    ["%%bsh\nx", "0+5 There is no magic '%%bsh'. Did you mean %%bash? %lsmagic lists them all."],
    ["%zzzzzz", "0+7 There is no magic '%zzzzzz'. %lsmagic lists them all."],
    [
      "%bash ls",
      "0+5 '%bash' is not known: %%bash [ARGUMENTS] stands on the first line of a cell, and the rest of the cell is its text.",
    ],
    ["%%cd x", "0+6 '%%cd' is not known: %cd [FOLDER|-] stands on a line of its own."],
    ["x\n%%bash", "2+6 A magic that begins with %% has to stand on the first line of its cell."],
    ["%typecheck of", "0+13 'of' is no mode: write %typecheck error, %typecheck warn or %typecheck off."],
    ["%time", "time(0-5)", "0+5 What is to be measured? %time STATEMENT  or  %%time."],
  ];
  for (const [text, ...found] of cases) {
    it(JSON.stringify(text), () => assert.deepEqual(read(text).sort(), found.sort()));
  }

  // biome-ignore-end lint/suspicious/noTemplateCurlyInString: variables of the shell
  it("takes `!name` for TypeScript where the notebook has the name", () => {
    assert.deepEqual(read("!ls"), ["!(ls)"]);
    assert.deepEqual(read("!ls", "ls"), []);
    assert.deepEqual(read("!ls -l /tmp/x y", "ls"), ["!(ls -l /tmp/x y)"]);
  });

  it("refuses counts that are none", () => {
    assert.match(read("%timeit -n 0 f()")[1]!, /-n takes a number from 1, got '0'/);
    assert.match(read("%%timeit -r x\nf()")[1]!, /-r takes a number from 1, got 'x'/);
    assert.match(read("%%timeit f()\nf()")[1]!, /'f\(\)' is not understood here/);
  });

  it("does not let TypeScript run on over a magic's line", async () => {
    const notebook = new Notebook();
    assert.deepEqual(notebook.faults("const f = () => 1\n%pwd\n(2)"), []);
    assert.match(notebook.faults("const x = 'a';\n!cat {x}\n[1].length")[0]!, /^2:9\+1 0 The line before this one/);
  });

  it("checks and places the expressions in a command", () => {
    const notebook = new Notebook();
    assert.deepEqual(notebook.faults("const file = 'a';\n!cat {file} {files}"), [
      "2:14+5 2552 Cannot find name 'files'. Did you mean 'file'?",
    ]);
    assert.deepEqual(notebook.faults("%time const n: number = 'x'"), [
      "1:13+1 2322 Type 'string' is not assignable to type 'number'.",
    ]);
    assert.deepEqual(notebook.faults("%%time\nlet a = 1;\na.b"), [
      "3:3+1 2339 Property 'b' does not exist on type 'number'.",
    ]);
  });

  it("declares what stands behind %time, in types and in values", async () => {
    const notebook = new Notebook();
    const { js } = notebook.compile("%time const big = 2 ** 10");
    assert.match(js, /\$cell\.time\(\)/);
    assert.deepEqual(notebook.compile("%%time\nlet p = 1, q = 2;\nfunction r() {}").declares, ["p", "q", "r"]);
  });

  it("says how a package is installed that is not there", () => {
    const notebook = new Notebook();
    assert.match(
      notebook.faults("import a from 'not-there/sub'")[0]!,
      /Run %npm install not-there in a cell of its own first\.$/,
    );
    assert.match(notebook.faults("import a from '@my/not-there'")[0]!, /Run %npm install @my\/not-there in/);
    assert.match(notebook.faults("%npm install not-there\nimport a from 'not-there'")[0]!, /and import in the next\.$/);
    assert.match(notebook.faults("import a from './not-there'")[0]!, /looked for from the notebook's folder\.$/);
  });
});

describe("the table of magics", () => {
  it("describes every magic, with examples that are read as that magic", () => {
    for (const magic of [...magics, shellMagic]) {
      assert.ok(magic.line || magic.cell, magic.name);
      assert.ok(usage(magic).includes(magic.name), magic.name);
      assert.match(magic.summary, /\.$/, magic.name);
      const { text, markdown } = describeMagic(magic);
      assert.ok(text.includes(magic.summary.replaceAll("`", "")) && markdown.includes(magic.summary));
      for (const example of magic.examples ?? []) {
        const { faults, magics: found, typecheck } = preprocess(`${example}\n`);
        assert.deepEqual(faults, [], example);
        assert.ok(found.length > 0 || typecheck !== undefined, example);
      }
    }
  });

  it("finds the nearest word, if it is near", () => {
    assert.equal(nearest("tiem", ["time", "env"]), "time");
    assert.equal(nearest("write", ["who", "writefile"]), "writefile");
    assert.equal(nearest("x", ["time", "env"]), undefined);
  });
});

describe("typing magics", () => {
  const notebook = new Notebook();
  writeFileSync(join(notebook.folder, "one.ts"), "");
  writeFileSync(join(notebook.folder, "one.csv"), "");
  mkdirSync(join(notebook.folder, "onward"));
  const { cell } = notebook.compile("const person = { name: 'x' }; const perhaps = 1;");
  notebook.compiler.commit(cell);
  const at = (code: string): string[] => {
    const cursor = code.indexOf("|");
    const { matches, start, end } = complete(notebook.compiler, code.replace("|", ""), cursor);
    assert.equal(end, cursor);
    for (const match of matches)
      assert.ok(match.replace(/^%%/, "%").startsWith(code.slice(start, cursor).replace(/^%%/, "%")), match);
    return matches;
  };

  const cases: [code: string, ...matches: string[]][] = [
    ["%ti|", "%time", "%%time", "%timeit", "%%timeit"],
    ["1;\n%ti|", "%time", "%timeit"],
    ["%%ba|", "%%bash"],
    ["%wr|", "%%writefile"],
    ["%typecheck |", "error", "warn", "off"],
    ["%typecheck w|", "warn"],
    ["%run on|", "one.ts", "onward/"],
    ["%cd o|", "onward/"],
    ["!cat on|", "one.csv", "one.ts", "onward/"],
    ["%reset per|", "perhaps", "person"],
    ["%npm ins|", "install"],
    ["%time person.na|", "name"],
    ["%%time\nperson.na|", "name"],
    ["!cat {person.na|", "name"],
    ["!cat {person.na|}", "name"],
  ];
  for (const [code, ...matches] of cases) it(code, () => assert.deepEqual(at(code), matches));

  it("leaves operators to TypeScript", () => {
    assert.ok(at("const n = 7\n  %per|").includes("perhaps"));
    assert.deepEqual(at("if (true &&\n  !person.na|"), ["name"]);
  });

  it("explains a magic and what stands behind it", () => {
    const text = (code: string): string => {
      const cursor = code.indexOf("|");
      return inspect(notebook.compiler, code.replace("|", ""), cursor, 0).data["text/plain"] ?? "";
    };
    assert.match(text("%wh|o"), /Lists the notebook's top-level names/);
    assert.match(text("x;\n%%ba|sh"), /^$|bash/);
    assert.match(text("%%bash\nls|"), /^$/);
    assert.match(text("!l|s"), /Runs a command of the shell/);
    assert.match(text("%time per|son"), /^const person/);
    assert.match(text("sh|"), /Runs a command of the shell/);
  });

  const complete_: [string, "complete" | "incomplete" | "invalid"][] = [
    ["%pwd", "complete"],
    ["!ls", "complete"],
    ["!ls \\", "incomplete"],
    ["%time f(", "incomplete"],
    ["%time f()", "complete"],
    ["%%time\nif (a) {", "incomplete"],
    ["%%time\nif (a) {}", "complete"],
    ["%%bash", "incomplete"],
    ["%%bash\nif true; then", "incomplete"],
    ["%%bash\nls\n\n", "complete"],
    ["%nothing", "invalid"],
    ["%typecheck x", "invalid"],
  ];
  for (const [code, status] of complete_) {
    it(`${JSON.stringify(code)} is ${status}`, () => assert.equal(isComplete(code).status, status));
  }
});
