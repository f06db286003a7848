import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { emitCell } from "../../kernel/compile/emit.js";
import type { Surroundings } from "../../kernel/compile/rewrite.js";
import { Notebook } from "./compile-notebook.js";

const around: Surroundings = {
  typeOnly: new Set(),
  boxed: (name) => name === "old",
  constant: () => false,
};

const ordinary = [
  "1 + 1",
  "const a: number = 1; let b = a as unknown as string; b!",
  "var { x, ...rest } = old; [a, b = 2] = old;",
  "class A<T> extends old { constructor(private readonly x: T) { super(); } }",
  "class A { x = 1; static y = 2; #z = 3; get z() { return this.#z } static { this.y = 4 } }",
  "abstract class A { abstract x: number; declare y: string; accessor q = 1 }",
  "const B = class { static z = this }; export default class {}",
  "for (let i = 0; i < 3; i++) { setTimeout(() => console.log(i)) }",
  "await old(1); async function f() { await old() } for await (const x of old) f()",
  "import { x, type Y } from 'y'; import z, * as all from 'z'; x + z",
  "import fs = require('fs'); fs",
  "{ using x = old; await using y = old; }",
  "function f(this: any, a?: number): a is number { return a satisfies any }",
  "const g = <T,>(a: T) => a; g<string>(''); old.foo ??= 1; old?.x",
  "label: for (const x of old) continue label",
  "type T = 1; interface I {} declare const z: number; export { z }",
  "const o = { old, f() { return super.toString() } }; // a comment\n/* another */ o",
  "@old class A { @old x = 1 }",
  "for (const x of [1, 2]) { class C { static y = x } old(() => C) }",
  "async function* g() { yield* old; } old`ab`;\nfunction h() { return arguments.length; }",
  "`two\nlines`;\n\nconst late = () => unknownYet + 1;\nlate",
];

const others = [
  "enum E { A = 1, B = A << 2 }",
  "const enum E { A } E.A",
  "namespace N { export const x = 1 } N.x",
  "class A { static made = new A(); static of() { return A.made } }",
];

describe("printing a cell without a program", () => {
  it("gives what transpileModule gives, text and map", () => {
    for (const code of [...ordinary, ...others]) {
      const { alone: _, analysis: a, ...quick } = emitCell(code, "cell-1", around);
      const { alone, analysis: b, ...full } = emitCell(code, "cell-1", around, [], false);
      assert.deepEqual(quick, full, code);
      assert.deepEqual([...a.declared], [...b.declared], code);
      assert.equal(alone, false);
    }
  });

  it("does so for ordinary code, and leaves the rest to a program", () => {
    for (const code of ordinary) assert.ok(emitCell(code, "cell-1", around).alone, code);
    for (const code of others) assert.ok(!emitCell(code, "cell-1", around).alone, code);
  });

  it("finds the same faults in broken code", () => {
    for (const code of [
      "const = 1",
      "class {",
      "a b c",
      "const k = 1; k = 2",
      "`unfinished",
      "if (",
      "using x = old;",
    ]) {
      const quick = emitCell(code, "cell-1", around);
      const full = emitCell(code, "cell-1", around, [], false);
      assert.ok(quick.faults.length > 0, code);
      assert.deepEqual(quick.faults, full.faults, code);
    }
  });
});

describe("a cell with checks off", () => {
  it("leaves the language service alone", () => {
    const notebook = new Notebook();
    notebook.compiler.commit(notebook.compile("const a = 1;").cell);
    notebook.compiler.commit(notebook.compile("%typecheck off").cell);
    const { project } = notebook.compiler;
    const { program } = project;
    let programs = 0;
    project.program = () => {
      programs++;
      return program.call(project);
    };
    for (const code of [
      "a + 1",
      "const b: string = a;",
      "class C { x = b }",
      "import { join } from 'node:path'; join('a')",
    ]) {
      notebook.compiler.commit(notebook.compile(code).cell);
    }
    assert.equal(programs, 0);
    notebook.compile("%typecheck error\na + b.length");
    assert.equal(programs, 1);
  });
});
