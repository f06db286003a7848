import assert from "node:assert/strict";
import { SourceMap } from "node:module";
import { describe, it } from "node:test";
import vm from "node:vm";
import { cleanMessage, createScope } from "../../kernel/compile/scope.js";
import { Contexts } from "../../kernel/execute/child/context.js";
import { Notebook } from "./compile-notebook.js";

const shared = new Notebook();

/** Where an error of a cell is thrown, in the cell's own lines: `line:column message`. */
async function thrown(code: string): Promise<string> {
  shared.compiler.reset();
  const { js, map, cell } = shared.compile(code, "off");
  const script = new vm.Script(`(async ($scope, $import, $cell) => {\n${js}\n})`, { filename: cell, lineOffset: -1 });
  const run = script.runInThisContext() as (scope: object, load: unknown, cell: object) => Promise<unknown>;
  try {
    await run(createScope(), (name: string) => import(name), { console, enter: () => new Contexts().enter() });
  } catch (error) {
    const at = new RegExp(`${cell}:(\\d+):(\\d+)`).exec((error as Error).stack!)!;
    const entry = new SourceMap(JSON.parse(map)).findEntry(Number(at[1]) - 1, Number(at[2]) - 1) as {
      originalLine: number;
      originalColumn: number;
      originalSource: string;
    };
    assert.equal(entry.originalSource, cell);
    return `${entry.originalLine + 1}:${entry.originalColumn + 1} ${cleanMessage((error as Error).message)}`;
  }
  return "nothing";
}

describe("source maps", () => {
  const cases: Record<string, string> = {
    "throw new Error('a')": "1:7 a",
    "const a = 1;\n\n  throw new Error('b')": "3:9 b",
    "import fs from 'node:fs';\nimport os from 'node:os';\nfs.readFileSync('/nowhere/at/all');": "3:4",
    "const o: any = {};\no.x.y": "2:5",
    "const o: any = {};\nconst v = 1; o.f(v)": "2:16 o.f is not a function",
    "let f: any;\nf()": "2:1 f is not a function",
    "interface A { a: number }\ntype B = A;\nfunction g(n: number): number {\n  if (n > 0) return g(n - 1);\n  throw new Error('deep');\n}\ng(3)":
      "5:9 deep",
    "const x = 1;\nconst { a } = null as any;": "2:",
    unknownName: "1:1 unknownName is not defined",
    "// one\n/* two\n three */\nclass K { m() { throw new Error('k') } }\nnew K().m()": "4:23 k",
    "enum E { A }\nthrow new Error('after')": "2:7 after",
    "const s = `a\nb`; throw new Error('c')": "2:11 c",
  };
  for (const [code, expected] of Object.entries(cases)) {
    it(JSON.stringify(code), async () => {
      const found = await thrown(code);
      assert.ok(found.startsWith(expected), `${found} does not start with ${expected}`);
    });
  }

  it("names a redeclared thing in the message as the cell does", () => {
    assert.equal(cleanMessage("(0 , $$f.v) is not a function"), "f is not a function");
    assert.equal(
      cleanMessage("Cannot read properties of undefined (reading 'x')"),
      "Cannot read properties of undefined (reading 'x')",
    );
    assert.equal(cleanMessage("$$größe.v.x is not iterable"), "größe.x is not iterable");
  });
});

describe("diagnostics", () => {
  const cases: Record<string, string> = {
    "const a: number = 'x'": "1:7+1 2322",
    "let ok = 1;\n  ok.nope": "2:6+4 2339",
    "const t = '😀'; const n: number = t;": "1:23+1 2322",
    "\n\nlet = 5": "3:",
    "const a = ;": "1:11+1 1109",
    "f(1,": "1:5",
    "const s = `open": "1:",
    "a\r\n  .b.c": "1:1+1 2304",
    "await (1": "1:9",
    "function f() {": "1:15",
    "let a = 1; let b: string =\n  a +\n  1;": "1:16+1 2322",
  };
  for (const [code, expected] of Object.entries(cases)) {
    it(JSON.stringify(code), () => {
      shared.compiler.reset();
      const [first] = shared.faults(code);
      assert.ok(first?.startsWith(expected), `${first} does not start with ${expected}`);
    });
  }

  it("gives the line of code, and never marks more than it has", () => {
    try {
      shared.compile("const a = 1;\nconst b: string = {\n  a: 1,\n};");
      assert.fail("it must not compile");
    } catch (error) {
      const { diagnostics } = error as {
        diagnostics: { source: string; line: number; column: number; length: number }[];
      };
      const { source, line, column, length } = diagnostics[0]!;
      assert.deepEqual([source, line], ["const b: string = {", 2]);
      assert.ok(column - 1 + length <= source.length);
    }
  });
});
