import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Notebook } from "./compile-notebook.js";

const shared = new Notebook();

/** Runs cells, then gives what is wrong with the last one. */
async function faults(...cells: string[]): Promise<string[]> {
  shared.compiler.reset();
  await shared.all(...cells.slice(0, -1));
  return shared.faults(cells.at(-1)!);
}

describe("types across cells", () => {
  const good: Record<string, string[]> = {
    "inferred values": [
      "const a = [1, 2].map((n) => String(n)); const m = new Map([['a', 1]]);",
      "const s: string[] = a; const n: number | undefined = m.get('x');",
    ],
    "an empty array takes the type of what is put into it": [
      "const all = []; for (const n of [1, 2]) all.push({ n }); const first: number = all[0]!.n; let later = []; later.push('x');",
      "all.push({ n: 3 }); later.push('y'); const s: string = later[0]!;",
      "const told = []; [1].forEach((n) => { told.push(n); }); function take(x, ...rest) { return x; } take(1); const o = {}; const v = o['k']; told.length",
    ],
    "literal types of constants": ["const kind = 'a';", "const same: 'a' = kind;"],
    "assigning to a let of an earlier cell": ["let a: number | string = 1;", "a = 'x'; a.length"],
    "generic functions": [
      "function first<T>(xs: T[]): T { return xs[0]! }",
      "const n: number = first([1]); const s: string = first(['x']);",
    ],
    "classes with private parts and statics": [
      "class A<T> { #x = 1; private y = 2; static s = 'x'; constructor(public v: T) {} get() { return this.#x + this.y } }",
      "const a = new A('x'); const v: string = a.v; const n: number = a.get(); const s: string = A.s; const again: A<string> = a;",
    ],
    "a value keeps the class of its own time": [
      "class P { old = 1 } const p = new P();",
      "class P { fresh = 2 }",
      "const o: number = p.old; const f: number = new P().fresh;",
    ],
    "interfaces and aliases": [
      "interface I<T> { v: T } type F<T> = (x: T) => I<T>;",
      "const f: F<number> = (x) => ({ v: x }); const i: I<number> = f(1);",
    ],
    "a type and a value of one name": [
      "type Both = { a: number }; const Both = { make: (): Both => ({ a: 1 }) };",
      "const b: Both = Both.make();",
    ],
    "a type beside an earlier value": [
      "const Split = 1;",
      "type Split = string;",
      "const s: Split = 'x'; const n: number = Split;",
    ],
    "a type beside an earlier function": [
      "function Maker() { return 1 }",
      "type Maker = string;",
      "const s: Maker = 'x'; const n: number = Maker();",
    ],
    "enums as types": ["enum E { A, B }", "const e: E = E.A; const r: Record<E, number> = { [E.A]: 1, [E.B]: 2 };"],
    namespaces: ["namespace N { export interface I { a: 1 } export const v: I = { a: 1 } }", "const i: N.I = N.v;"],
    "type guards and assertions": [
      "function isS(x: unknown): x is string { return typeof x === 'string' } function must(x: unknown): asserts x is number { if (typeof x !== 'number') throw x }",
      "const u: unknown = 'x'; if (isS(u)) u.length; const w: unknown = 1; must(w); w.toFixed()",
    ],
    "unique symbols": ["const key = Symbol('k'); const o = { [key]: 1 };", "const n: number = o[key];"],
    "types that no declaration can name": [
      "const made = (() => { class Inner { private x = 1; get() { return this.x } } return new Inner() })();",
      "const n: number = made.get();",
    ],
    "readonly and as const": ["const t = [1, 'a'] as const;", "const n: 1 = t[0]; const s: 'a' = t[1];"],
    "destructured names": [
      "const { a, ...rest } = { a: 1, b: 'x' };",
      "const n: number = a; const s: string = rest.b;",
    ],
    "awaited names": ["const n = await Promise.resolve(1);", "const m: number = n;"],
    "imports of earlier cells": [
      "import fs, { type Stats } from 'node:fs'; import * as path from 'node:path'; import os = require('node:os');",
      "const s: Stats = fs.statSync('/'); const p: string = path.join('a', os.tmpdir());",
    ],
    "chains over many cells": [
      "const a0 = { v: 1 };",
      "const a1 = { a0 };",
      "const a2 = { a1 };",
      "const n: number = a2.a1.a0.v;",
    ],
    "declare global": [
      "declare global { interface Array<T> { tunebookTest?: T } } export {};",
      "const t: number | undefined = [1].tunebookTest;",
    ],
    "globals of the kernel": [
      "display(1, { id: 'x' }); const url = new URL('http://a'); const b = Buffer.from('x'); const c: AbortSignal = new AbortController().signal; structuredClone(b); __dirname.length; process.pid; fetch; setTimeout(() => {}, 0); performance.now(); import.meta.dirname",
    ],
    "parameters without types": ["function f(a, b = 1) { return a + b } const g = (x) => x;", "f(1) + g(2)"],
    "caught errors": ["try { JSON.parse('x') } catch (e) { e.message }"],
    "unused names and expressions": ["1; 'x'; [1]; function f(a: number, unused: string) { let b } "],
    "missing semicolons": ["let a = 1\nlet b = 2\na + b"],
    "dynamic imports": ["const { sep } = await import('node:path'); const s: string = sep;"],
  };
  for (const [name, cells] of Object.entries(good)) {
    it(`accepts ${name}`, async () => {
      const last = cells.at(-1)!;
      shared.compiler.reset();
      for (const cell of cells.slice(0, -1)) {
        const { cell: id } = shared.compile(cell);
        shared.compiler.commit(id);
      }
      assert.deepEqual(shared.faults(last), []);
    });
  }

  const bad: Record<string, [RegExp, ...string[]]> = {
    "a wrong type": [
      /^1:7\+1 2322 Type 'string' is not assignable to type 'number'\.$/,
      "const s = 'x';",
      "const n: number = s;",
    ],
    "the newest declaration": [
      /^1:3\+11 2339 Property 'toUpperCase' does not exist on type 'number'\.$/,
      "let a = 'x';",
      "let a = 1;",
      "a.toUpperCase()",
    ],
    "assigning to a constant": [
      /^1:1\+1 2588 Cannot assign to 'a' because it is a constant\.$/,
      "const a = 1;",
      "a = 2",
    ],
    "assigning to an import": [/^1:1\+3 2588 /, "import { sep } from 'node:path';", "sep = ':'"],
    "assigning to a name that nobody declared": [/^1:1\+7 2304 Cannot find name 'nothing'\.$/, "nothing = 1"],
    "an unknown name": [/^2:3\+5 2304 Cannot find name 'nowhe'\.$/, "\n  nowhe"],
    "a name used above its declaration": [/^1:1\+1 2448 /, "b; const b = 1;"],
    "the same name twice": [/^1:5\+1 2451 /, "let a; let a;"],
    return: [/^1:1\+8 1108 A 'return' statement/, "return 1"],
    arguments: [/^1:1\+9 2304 'arguments' belongs to a function/, "arguments"],
    "using at the top": [/^1:1\+\d+ 0 'using' at the top level/, "using a = { [Symbol.dispose]() {} };"],
    "await using at the top": [
      /^1:1\+\d+ 0 'using' at the top level/,
      "await using a = { async [Symbol.asyncDispose]() {} };",
    ],
    "the kernel's own names": [
      / 0 '\$scope' is a name of the kernel's own/,
      "function f($scope: number) { return $scope }",
    ],
    "a missing package": [/^1:15\+11 2307 Cannot find module 'no-such-x'/, "import x from 'no-such-x';"],
    "a class of another cell by its plain name": [
      /Type 'number' is not assignable to type 'Foo'/,
      "class Foo { private x = 1 }",
      "const f: Foo = 1;",
    ],
    "wrong arguments": [/^1:3\+3 2345 Argument of type 'string'/, "function f(n: number) { return n }", "f('x')"],
  };
  for (const [name, [pattern, ...cells]] of Object.entries(bad)) {
    it(`refuses ${name}`, async () => {
      const found = await faults(...cells);
      assert.match(found[0] ?? "", pattern);
    });
  }

  it("sees redeclared kinds with their newest type", async () => {
    assert.deepEqual(
      await faults(
        "const a = 1;",
        "function a() { return 'x' }",
        "class a { z = true }",
        "const b: boolean = new a().z;",
      ),
      [],
    );
  });

  it("knows names in the modes that do not stop a cell", async () => {
    shared.compiler.reset();
    await shared.run("const a: number = 'x'", "warn");
    assert.match(shared.faults("const b: string = a", "warn")[0]!, /'number' is not assignable/);
    await shared.run("const c = a as unknown as number", "off");
    assert.match(shared.faults("const d: string = c")[0]!, /'number' is not assignable/);
    assert.deepEqual(shared.faults("const d: string = c", "off"), []);
  });

  it("obeys %typecheck from that cell on", async () => {
    const own = new Notebook();
    assert.equal(
      own.faults("%typecheck warn\nconst a: number = 'x'")[0],
      "2:7+1 2322 Type 'string' is not assignable to type 'number'.",
    );
    assert.equal(own.compile("const a: number = 'x'").diagnostics[0]!.severity, "warning");
    assert.deepEqual(own.faults("%typecheck off\nconst a: number = 'x'"), []);
    assert.deepEqual(own.faults("const a: number = 'x'"), []);
    assert.equal(own.faults("  %typecheck error\nconst a: number = 'x'").length, 1);
    assert.throws(() => own.compile("const a: number = 'x'"), { name: "CompileError" });
    assert.throws(() => own.compile("%typecheck off\nlet 5 = 1"), { name: "CompileError" });
  });
});

describe("packages and files of the notebook's folder", () => {
  const own = new Notebook();
  const file = (path: string, text: string): void => {
    mkdirSync(join(own.folder, path, ".."), { recursive: true });
    writeFileSync(join(own.folder, path), text);
  };
  file(
    "node_modules/typed/package.json",
    '{"name":"typed","version":"1.0.0","type":"module","exports":{".":{"types":"./i.d.ts","default":"./i.js"}}}',
  );
  file("node_modules/typed/i.d.ts", "export interface Shape { a: number }\nexport function make(): Shape;\n");
  file("node_modules/typed/i.js", "export const make = () => ({ a: 1 });\n");
  file("node_modules/plain/package.json", '{"name":"plain","version":"1.0.0","main":"i.js"}');
  file("node_modules/plain/i.js", "exports.anything = 1;\n");
  file("util.ts", "export const half = (n: number): number => n / 2;\nexport type Half = number;\n");
  file("data.json", '{ "rows": [1, 2] }');

  it("reads a package's types", () => {
    assert.deepEqual(own.faults("import { make, type Shape } from 'typed'; const s: Shape = make(); s.a"), []);
    assert.match(
      own.faults("import { make } from 'typed'; make().b")[0]!,
      /Property 'b' does not exist on type 'Shape'/,
    );
  });

  it("takes a package without types as any", () => {
    assert.deepEqual(own.faults("import plain, { whatever } from 'plain'; plain.x.y(whatever)"), []);
  });

  it("drops an import of types alone", () => {
    assert.doesNotMatch(own.compile("import { Shape } from 'typed'; let s: Shape | undefined").js, /\$import/);
    assert.match(
      own.compile("import { Shape, make } from 'typed'; let s: Shape = make()").js,
      /\$import\('typed'\)|\$import\("typed"\)/,
    );
  });

  it("reads local files, as they are now", () => {
    for (const name of ["./util", "./util.ts", "./util.js"]) {
      assert.deepEqual(own.faults(`import { half, type Half } from '${name}'; const h: Half = half(2);`), []);
    }
    assert.match(own.faults("import { half } from './util'; half('x')")[0]!, /2345/);
    file("util.ts", "export const half = (n: string): string => n;\n/* changed */\n");
    assert.deepEqual(own.faults("import { half } from './util'; half('x')"), []);
    assert.deepEqual(
      own.faults("import data from './data.json' with { type: 'json' }; const n: number = data.rows[0]!;"),
      [],
    );
  });

  it("finds a package that was installed meanwhile", () => {
    assert.match(own.faults("import { n } from 'later';")[0]!, /2307/);
    file("node_modules/later/package.json", '{"name":"later","version":"1.0.0","types":"i.d.ts","main":"i.js"}');
    file("node_modules/later/i.d.ts", "export const n: number;\n");
    assert.deepEqual(own.faults("import { n } from 'later'; const m: number = n;"), []);
  });

  it("keeps an earlier cell's import of a package", async () => {
    const { cell } = own.compile("import { make } from 'typed'; const made = make();");
    own.compiler.commit(cell);
    assert.deepEqual(own.faults("const a: number = made.a + make().a;"), []);
  });
});
