import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Notebook } from "./compile-notebook.js";

// One compiler is enough for cells that do not know each other: every case forgets the cells before it.
const shared = new Notebook();

async function value(...cells: string[]): Promise<unknown> {
  shared.compiler.reset();
  return await shared.all(...cells);
}

/** Each case: cells, and the value of the last one. */
const cases: Record<string, [unknown, ...string[]]> = {
  "an expression": [2, "1 + 1"],
  "an expression with a semicolon": [2, "1 + 1;"],
  "an expression and empty statements": [2, "1 + 1;;"],
  "a string alone": ["use me", "'use me'"],
  "an object literal in parentheses": [1, "({ a: 1 }).a"],
  "a declaration gives nothing": [undefined, "const a = 1;"],
  "a block gives nothing": [undefined, "{ 5 }"],
  "void gives undefined": [undefined, "void 0"],
  "an awaited value": [7, "await Promise.resolve(7)"],
  "a comment at the end": [3, "1 + 2 // three"],
  "no semicolons": [6, "const a = 1\nconst b = 2\nlet c = 3\na + b + c"],
  "destructured object": [
    [1, 2, { d: 4 }],
    "const { a, b: { c }, ...rest } = { a: 1, b: { c: 2 }, d: 4 };\n[a, c, rest]",
  ],
  "destructured array": [[1, 5, [3, 4]], "const [a, , ...r] = [1, 2, 3, 4]; let [b = 5]: number[] = [];\n[a, b, r]"],
  "computed key in a pattern": [2, "const key = 'x' as const; const { [key]: picked } = { x: 2 }; picked"],
  "default in a pattern reads a cell's name": [9, "const base = 9;", "const { a = base }: { a?: number } = {}; a"],
  "assignment pattern": [[2, 1], "let a = 1, b = 2; [a, b] = [b, a]; [a, b]"],
  "object assignment pattern": [
    [5, 6],
    "let a = 0, b = 0; ({ a, c: b = 6 } = { a: 5 } as { a: number; c?: number }); [a, b]",
  ],
  "shorthand with a default in an assignment": [3, "let a = 0; ({ a = 3 } = {} as { a?: number }); a"],
  "shorthand property": [{ a: 1 }, "const a = 1;", "({ a })"],
  "property names are left alone": [{ a: 2, b: { a: 3 } }, "const a = 1;", "const o = { a: 2, b: { a: 3 } }; o"],
  "methods and accessors": [
    [4, 8],
    "const k = 4;",
    "const o = { k() { return k }, get twice() { return k * 2 } }; [o.k(), o.twice]",
  ],
  "computed property": [{ x: 1 }, "const name = 'x';", "({ [name]: 1 })"],
  "parameter shadows": [5, "const a = 1;", "((a: number) => a)(5)"],
  "parameter default reads outside": [1, "const a = 1;", "((b = a) => b)()"],
  "inner let shadows": [2, "const a = 1;", "let out = 0; { let a = 2; out = a } out"],
  "var in a function shadows": [
    undefined,
    "const a = 1;",
    "(function () { if (Math.random() > 2) { var a = 1 } return a! })()",
  ],
  "catch parameter shadows": [
    "x",
    "const e = 1;",
    "let m = ''; try { throw new Error('x') } catch (e) { m = e.message } m",
  ],
  "catch without a parameter": [1, "let n = 0; try { throw 1 } catch { n = 1 } n"],
  "function expression's own name": [
    120,
    "const fac = 0;",
    "const g = function fac(n: number): number { return n < 2 ? 1 : n * fac(n - 1) }; g(5)",
  ],
  "class expression's own name": ["C", "const C = 1;", "const D = class C { static me = C.name }; D.me"],
  "hoisted function": [4, "const r = twice(2); function twice(n: number) { return 2 * n } r"],
  "functions that call each other": [
    true,
    "function even(n: number): boolean { return n === 0 || odd(n - 1) } function odd(n: number): boolean { return n !== 0 && even(n - 1) } even(10)",
  ],
  "async function and generator": [
    [1, 2],
    "async function one() { return 1 } function* gen() { yield 2 } [await one(), ...gen()]",
  ],
  "async generator with for await": [
    [1, 2],
    "async function* g() { yield 1; yield 2 } const all: number[] = []; for await (const x of g()) all.push(x); all",
  ],
  overloads: [
    "1",
    "function f(a: number): string; function f(a: string): string; function f(a: unknown) { return String(a) } f(1)",
  ],
  "a class with everything": [
    [3, 1, "secret", 2],
    "class A<T> { static n = 1; static { A.n += 1 } #p = 'secret'; constructor(readonly v: T, public w = 1) {} get p() { return this.#p } } const a = new A(3); [a.v, a.w, a.p, A.n]",
  ],
  "a class extends one of an earlier cell": [
    "base+",
    "class Base { m() { return 'base' } }",
    "class Sub extends Base { override m() { return super.m() + '+' } } new Sub().m()",
  ],
  "a class member reads a cell's name": [5, "let five = 5;", "class C { v = five; static s = five } new C().v"],
  "an enum": [[1, "B"], "enum E { A = 1, B }", "[E.A, E[2]]"],
  "an enum reads its own members": [6, "enum F { A = 2, B = A | 4, C = F.B } F.C"],
  "a const enum": [1, "const enum K { X = 1 }", "K.X"],
  "a namespace": [
    [1, 3],
    "namespace N { export const a = 1; const hidden = 2; export function f() { return a + hidden } }",
    "[N.a, N.f()]",
  ],
  "a namespace in two parts": [3, "namespace N { export const a = 1 } namespace N { export const b = a + 2 }", "N.b"],
  "a class with a namespace": [
    [1, 2],
    "class C { m() { return 1 } } namespace C { export const s = 2 }",
    "[new C().m(), C.s]",
  ],
  "import alias of a namespace": [
    1,
    "namespace N { export namespace M { export const a = 1 } }",
    "import M = N.M; M.a",
  ],
  "types leave nothing": [
    1,
    "interface I { a: number } type T = I['a']; declare const never: number; declare function f(): void; const x: T = 1; x",
  ],
  "generics, casts, non-null, satisfies": [
    [1, 2, 3, 4],
    "const id = <T,>(x: T) => x; let m: number | undefined = 3; [id<number>(1), 2 as number, m!, 4 satisfies number]",
  ],
  "casts in front": [1, "const v = <number>(1 as unknown); v"],
  "type assertion on the left": [2, "let a: unknown = 1; (a as number) = 2; a"],
  "var in a block": [3, "if (true) { var inner = 3 } inner"],
  "var in a loop": [[3, 2], "for (var i = 0; i < 3; i++) { var last = i } [i, last!]"],
  "var of and in": [["b", "y"], "for (var x of ['a', 'b']) {} for (var k in { y: 1 }) {} [x!, k!]"],
  "var pattern in a loop": [4, "for (var { n } of [{ n: 3 }, { n: 4 }]) {} n!"],
  "var twice": [1, "var a = 1; var a: number; a"],
  "let without a value": [undefined, "let a = 1;", "let a: number | undefined; a"],
  "let in loops closes over each turn": [
    [0, 1, 2],
    "const fs: (() => number)[] = []; for (let i = 0; i < 3; i++) fs.push(() => i); fs.map((f) => f())",
  ],
  "for of over a cell's names": [6, "let x = 0; const xs = [1, 2, 3]; let sum = 0;", "for (x of xs) sum += x; sum"],
  labels: [2, "let n = 0; outer: for (;;) { for (;;) { n++; if (n > 1) break outer; continue outer } } n"],
  "a label like a name": [1, "const a = 1;", "a: for (;;) { break a } a"],
  "switch scopes": [
    2,
    "const a = 1; let r = 0; switch (a as number) { case 1: { let a = 2; r = a; break } default: r = 9 } r",
  ],
  "typeof of a name": [["number", "undefined"], "const a = 1;", "[typeof a, typeof (globalThis as any).nothing]"],
  "template and tag": [
    ["1-2", "x"],
    "const a = 1; const tag = (s: TemplateStringsArray) => s[0];",
    "[`$" + "{a}-$" + "{a + 1}`, tag`x`]",
  ],
  "update and compound": [
    [2, 12, 5],
    "let a = 1, b = 10; let c: number | undefined;",
    "a++; b += 2; c ??= 5; [a, b, c]",
  ],
  "optional call and chain": [
    [1, undefined],
    "const f = (() => 1) as (() => number) | undefined; const g = undefined as (() => number) | undefined;",
    "[f?.(), g?.()]",
  ],
  "a called name gets no this": [true, "function self(this: unknown) { return this === undefined } self()"],
  "this at the top": [true, "this === undefined"],
  "new": [1, "class P { v = 1 }", "new P().v"],
  spread: [[1, 2, 3], "const a = [1, 2];", "[...a, 3]"],
  "comma, conditional, exponent": [8, "const a = 2;", "(0, a > 1 ? a ** 3 : 0)"],
  "delete and in": [
    [true, false],
    "const o: { a?: number } = { a: 1 };",
    "const had = 'a' in o; delete o.a; [had, 'a' in o]",
  ],
  "getter on arguments": [2, "function count(..._: number[]) { return arguments.length } count(1, 2)"],
  "export modifiers": [
    [1, 2, 3],
    "export const a = 1; export function f() { return 2 } export default class K { v = 3 }",
    "[a, f(), new K().v]",
  ],
  "export list": [1, "const a = 1; export { a }; export type { };", "a"],
  "export default expression": [5, "export default 5"],
  "default import": [true, "import fs from 'node:fs';", "typeof fs.readFileSync === 'function'"],
  "named, renamed and namespace imports": [
    ["a/b", "c", "/"],
    "import { join, basename as base } from 'node:path'; import * as path from 'node:path';",
    "[join('a', 'b'), base('/x/c'), path.sep]",
  ],
  "an import below its use": ["a/b", "const p = join('a', 'b'); import { join } from 'node:path'; p"],
  "import type": [
    1,
    "import type { Stats } from 'node:fs'; import { type Dirent, constants } from 'node:fs'; let s: Stats | Dirent | undefined; constants.R_OK && 1",
  ],
  "a type imported without saying so": [
    1,
    "import { Stats as S, PathLike } from 'node:fs'; const p: PathLike = 'x'; S && p ? 1 : 0",
  ],
  "import equals": [true, "import fs = require('node:fs');", "fs.existsSync('/')"],
  "side effects": [undefined, "import 'node:fs';"],
  "dynamic import": ["/", "const { sep } = await import('node:path'); sep"],
  require: ["/", "const path = require('node:path') as typeof import('node:path'); path.sep"],
  "import.meta": [true, "import.meta.url.endsWith('notebook.ts')"],
  JSON: [1, "JSON.parse('{\"a\":1}').a"],
  decorators: [
    ["m"],
    "const seen: string[] = []; function log(_: unknown, c: ClassMethodDecoratorContext) { seen.push(String(c.name)) } class D { @log m() {} } seen",
  ],
  "class decorators": [
    "D!",
    "function mark<T extends new (...args: any[]) => object>(c: T, _: ClassDecoratorContext) { return class extends c { static tag = c.name + '!' } } @mark class D {}",
    "(D as any).tag",
  ],
  "using in a block": [
    ["in", "out"],
    "const seen: string[] = []; { using r = { [Symbol.dispose]() { seen.push('out') } }; seen.push('in'); void r } seen",
  ],
  "regular expressions": [["1"], "const a = 1;", "[...'a1'.match(/\\d/)!]"],
  "names like the kernel's boxes": [[1, 2], "const $$a = 1; const a = 2;", "[$$a, a]"],
  "unicode names": [3, "const größe = 1, 变量 = 2;", "größe + 变量"],
  "numbers of every kind": [[10n, 1000, 255], "[10n, 1_000, 0xff]"],
  "a name that is a global elsewhere": [["mine", 5], "const name = 'mine'; const status = 5;", "[name, status]"],
  "undefined as a value": [undefined, "const u = undefined;", "u"],
  "windows line ends": [3, "const a = 1;\r\nconst b = 2;\r\na + b\r\n"],
  nothing: [undefined, ""],
  "comments alone": [undefined, "// nothing\n/* at all */"],
};

describe("rewriting", () => {
  for (const [name, [expected, ...cells]] of Object.entries(cases)) {
    it(name, async () => {
      assert.deepEqual(await value(...cells), expected);
    });
  }

  it("keeps the names of functions", async () => {
    const names =
      "const f = () => 1; let g = function () {}; const K = class {}; let { h = () => 2 }: { h?: () => number } = {}; f.name + g.name + K.name + h.name";
    assert.equal(await value(names), "fgKh");
    assert.equal(await value("let f: () => number;", "f = () => 1; f.name"), "f");
    assert.equal(await value("function f() {} class C {} f.name + C.name"), "fC");
  });

  it("lets closures of earlier cells see a redeclared name", async () => {
    assert.equal(await value("const a = 1; const get = () => a;", "const a = 2;", "get()"), 2);
    assert.equal(await value("function f() { return 1 } function g() { return f() }", "const f = () => 5;", "g()"), 5);
    assert.equal(await value("class A { v = 1 } const make = () => new A().v;", "class A { v = 2 }", "make()"), 2);
  });

  it("keeps a value that a failed cell has assigned", async () => {
    shared.compiler.reset();
    await assert.rejects(shared.run("let kept = 1; let too = 2; throw new Error('stop'); let unreached = 3"), /stop/);
    assert.deepEqual(await shared.run("[kept, too, unreached]"), [1, 2, undefined]);
  });

  it("throws when a name is read above its declaration", async () => {
    await assert.rejects(
      value("const a = 1;").then(() => shared.run("const b = a; const a = 2; b", "off")),
      /Cannot access 'a' before initialization/,
    );
    await assert.rejects(shared.run("const c = c + 1", "off"), ReferenceError);
    assert.equal(await shared.run("const later = () => d; const d = 4; later()", "off"), 4);
  });

  it("finds a name that a later cell declares, when types are not checked", async () => {
    shared.compiler.reset();
    await shared.run("const early = () => lateName + lateFunction(); const kind = () => typeof lateName", "off");
    await assert.rejects(async () => (shared.scope.early as () => number)(), /lateName is not defined/);
    assert.equal((shared.scope.kind as () => string)(), "undefined");
    await shared.run("const lateName = 1; function lateFunction() { return 2 }", "off");
    assert.equal((shared.scope.early as () => number)(), 3);
  });

  it("gives every cell its own console", async () => {
    shared.logs.length = 0;
    await value("console.log('x', 1); const say = (s: string) => console.log(s);", "say('y')");
    assert.deepEqual(shared.logs, [["x", 1], ["y"]]);
    assert.equal(await value("const console = 5; console + 1"), 6);
  });

  it("runs a hot loop at the top of a cell without crawling", async () => {
    const start = performance.now();
    assert.equal(await value("let sum = 0; for (let i = 0; i < 3e7; i++) sum += i & 1; sum"), 15_000_000);
    assert.ok(performance.now() - start < 3_000);
  });
});

describe("every kind of declaration after every other", () => {
  const kinds: Record<string, [declare: string, use: string, value: (n: number) => unknown]> = {
    const: ["const v = #;", "v + 0", (n) => n],
    let: ["let v = #;", "v + 0", (n) => n],
    var: ["var v = #;", "v + 0", (n) => n],
    function: ["function v() { return # }", "v()", (n) => n],
    class: ["class v { n = # }", "new v().n", (n) => n],
    enum: ["enum v { A = # }", "v.A", (n) => n],
    namespace: ["namespace v { export const n = # }", "v.n", (n) => n],
    pattern: ["const { v } = { v: # };", "v + 0", (n) => n],
    import: ["import { sep as v } from 'node:path';", "v", () => "/"],
    type: ["type v = #;", "(# as v) satisfies number", (n) => n],
    interface: ["interface v { n: # }", "({ n: # } as v).n", (n) => n],
  };
  const fill = (text: string, n: number): string => text.replaceAll("#", `${n}`);
  for (const [first, [before, useBefore, valueBefore]] of Object.entries(kinds)) {
    it(`${first}, then anything`, async () => {
      for (const [declare, use, wanted] of Object.values(kinds)) {
        shared.compiler.reset();
        await shared.run(fill(before, 1));
        assert.equal(await shared.run(fill(useBefore, 1)), valueBefore(1));
        await shared.run(fill(declare, 2));
        assert.equal(await shared.run(fill(use, 2)), wanted(2));
      }
    });
  }
});
