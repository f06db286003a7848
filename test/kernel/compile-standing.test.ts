import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { complete } from "../../kernel/complete/complete.js";
import { Notebook } from "./compile-notebook.js";

/** Each cell stands on those before it. */
const cells = [
  "1 + 1",
  "const a = [1, 2].map((v) => v * 2); let s = 'x'; var n: number | undefined;",
  "a.length + s.length",
  "a.nope",
  "n.toFixed()",
  "const a: string = 1",
  "class A<T> { constructor(readonly value: T) {} get twice() { return [this.value, this.value] as const; } }",
  "type Pair<T> = [T, T]; interface Named { name: string }",
  "const made = new A({ name: 'x' }); const named: Named = made.value; made.twice",
  "const pair: Pair<number> = [1, 'two'];",
  "function f(one: A<number>, ...more: Pair<string>[]) { return one.value + more.length; }",
  "f(made)",
  "f(new A(1), ['a', 'b']).toFixed(2)",
  "s = 3",
  "import { readFileSync } from 'node:fs'; import type { Stats } from 'fs'; const text = readFileSync('x', 'utf8');",
  "text.nope; const stats: Stats = 1;",
  "readFileSync(1n); (await import('node:path')).join(2)",
  "import { thing } from './nowhere.js'",
  "export const later = async () => ({ a, made }); export default later",
  "(await later()).made.value.name.nope",
  "enum Colour { Red, Blue } namespace Space { export const inner = Colour.Blue }",
  "Space.inner.nope; Colour.Green",
  "declare const given: { deep: Pair<A<Colour>> };",
  "given.deep[0].value satisfies Space",
  "for await (const x of [1]) { using y = x; }",
  "const self = { me: () => self }; self.me().nope",
  "let x = unknownName; x.y",
  "const made = 1; made.value",
  "// @ts-expect-error\nconst unused = 1;",
  "interface Array<T> { mine: T } const array: Array<number> = []",
  "declare global { interface Array<T> { first: T } }",
  "[1].first.nope",
  "[1].first.toFixed(); a.first",
  "declare module 'node:os' { export const extra: number }",
  "import { extra } from 'node:os'; extra.nope",
];

describe("cells beside a program", () => {
  it("get the findings that programs of their own get", () => {
    const shared = new Notebook();
    const own = new Notebook();
    for (const notebook of [shared, own]) notebook.compiler.project.loadNode();
    for (const code of cells) {
      const found = [shared, own].map((notebook) => {
        if (notebook === own) notebook.compiler.project.renew();
        const made = notebook.compile(code, "warn");
        notebook.compiler.commit(made.cell);
        return made;
      });
      assert.deepEqual(found[0], found[1], code);
    }
    assert.deepEqual(complete(shared.compiler, "made.", 5), complete(own.compiler, "made.", 5));
  });

  it("share one program, unless they bring something to it", () => {
    const notebook = new Notebook();
    const typed = join(notebook.folder, "node_modules", "typed");
    mkdirSync(typed, { recursive: true });
    writeFileSync(join(typed, "package.json"), '{ "name": "typed", "version": "1.0.0", "types": "./i.d.ts" }');
    writeFileSync(join(typed, "i.d.ts"), "export declare const version: string;");
    const { project } = notebook.compiler;
    project.loadNode();
    const program = (code: string): unknown => {
      const { cell } = notebook.compile(code, "warn");
      const used = project.program();
      notebook.compiler.commit(cell);
      return used;
    };
    const first = program("const a = 1");
    for (const code of ["a + 1", "class B { a = a }", "import fs from 'node:fs'", "new B().a.nope; fs.nope"]) {
      assert.ok(program(code) === first, code);
    }
    complete(notebook.compiler, "new B().", 8);
    assert.ok(program("a + 2") === first);
    const second = program("import { version } from 'typed'");
    assert.ok(second !== first);
    assert.ok(program("version.length") === second);
    writeFileSync(join(typed, "i.d.ts"), "export declare const version: number;");
    assert.equal(notebook.compile("const text: string = version", "warn").diagnostics.length, 0);
    notebook.compiler.packagesChanged();
    assert.match(notebook.compile("const text: string = version", "warn").diagnostics[0]!.message, /'number'/);
    assert.ok(program("version + 1") === project.program());
    const renewed = program("version + 2");
    assert.ok(renewed === program("version + 3"));
    const third = program("declare global { var shared: number }");
    assert.ok(third !== renewed);
    const fourth = program("shared.nope");
    assert.ok(fourth !== third);
    assert.ok(program("shared + 1") === fourth);
  });

  it("are checked anew where they stand on files of the user's", () => {
    const notebook = new Notebook();
    const file = join(notebook.folder, "local.ts");
    writeFileSync(file, "export const here: number = 1;");
    assert.deepEqual(notebook.faults("1 + 1"), []);
    assert.deepEqual(notebook.faults("import { here } from './local.js'; here.toFixed()"), []);
    writeFileSync(file, "export const here: string = 'now text';");
    assert.match(notebook.faults("import { here } from './local.js'; here.toFixed()")[0]!, /toFixed/);
    assert.deepEqual(notebook.faults("1 + 1"), []);
    assert.match(notebook.faults("import { here } from './local.js'; here.toFixed()")[0]!, /toFixed/);
  });

  it("can be committed after something else was looked at", () => {
    const notebook = new Notebook();
    notebook.compiler.project.loadNode();
    assert.deepEqual(notebook.faults("1 + 1"), []);
    const first = notebook.compile(
      "class P { q = [1].map((v) => ({ v })) } const made = { p: new P(), at: import('node:path') }",
    );
    assert.deepEqual(complete(notebook.compiler, "[1].fla", 7).matches, ["flat", "flatMap"]);
    const second = notebook.compile("const later = 1");
    notebook.compiler.commit(first.cell);
    notebook.compiler.project.renew();
    notebook.compiler.commit(second.cell);
    assert.deepEqual(notebook.faults("const n: number = made.p.q[0]!.v + later"), []);
    assert.match(notebook.faults("const s: string = made.p.q[0]!.v")[0]!, /'number' is not assignable/);
    assert.deepEqual(complete(notebook.compiler, "made.p.", 7).matches, ["q"]);
    assert.match(notebook.faults("(await made.at).join(1)")[0]!, /2345/);
  });

  it("wear a checker out, and go on with another one", () => {
    const notebook = new Notebook();
    const { project } = notebook.compiler;
    project.loadNode();
    const programs = new Set<unknown>();
    for (let i = 0; i < 320; i++) {
      assert.deepEqual(notebook.faults(`${i} + 1`), []);
      programs.add(project.program());
    }
    assert.equal(programs.size, 2);
    assert.ok(project.worn);
    notebook.compiler.refresh();
    assert.ok(!project.worn);
    assert.match(notebook.faults("(1).nope")[0]!, /nope/);
  });
});
