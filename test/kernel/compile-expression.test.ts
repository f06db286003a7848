import assert from "node:assert/strict";
import { SourceMap, type SourceMapPayload } from "node:module";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import { type Emitted, emitCell } from "../../kernel/compile/emit.js";
import { emitExpression } from "../../kernel/compile/expression.js";
import { Mappings } from "../../kernel/compile/mappings.js";
import type { Surroundings } from "../../kernel/compile/rewrite.js";
import { createScope } from "../../kernel/compile/scope.js";

const around: Surroundings = {
  typeOnly: new Set(),
  boxed: (name) => ["x", "list", "f", "o", "K", "text", "Math"].includes(name),
  constant: () => false,
};

const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as new (
  ...parts: string[]
) => (scope: object, cell: object) => Promise<{ value: unknown } | undefined>;

/** What a compiled cell gives, or where it throws, in the cell's own lines. */
async function outcome({ js, map }: Pick<Emitted, "js" | "map">): Promise<unknown> {
  const scope = createScope() as unknown as { [name: string]: unknown };
  const put = (name: string, value: unknown): void => {
    (scope["ref()"] as (name: string) => { v: unknown })(name).v = value;
  };
  const logs: unknown[] = [];
  put("x", 20);
  put("list", [3, 1, 2]);
  put("f", function (this: unknown, ...given: unknown[]) {
    return [this === undefined, ...given];
  });
  put("o", { deep: { n: 1, m: (v: unknown) => v, none: undefined } });
  class K {
    readonly v: unknown;
    constructor(v: unknown = "none") {
      this.v = v;
    }
  }
  put("K", K);
  put("text", "tEXT");
  put("Math", { max: () => "mine" });
  try {
    // The parameters stand on a line of their own, as the executor's do.
    const run = new AsyncFunction("$scope", "$cell", js);
    return [await run(scope, { console: { log: (...given: unknown[]) => logs.push(given) } }), logs];
  } catch (error) {
    const [, line, column] = /<anonymous>:(\d+):(\d+)/.exec((error as Error).stack!)!;
    const { originalLine, originalColumn } = new SourceMap(JSON.parse(map) as SourceMapPayload).findEntry(
      Number(line) - 3,
      Number(column) - 1,
    ) as { originalLine: number; originalColumn: number };
    return [(error as Error).message, originalLine, originalColumn];
  }
}

const expressions = [
  "1 + 1",
  "  x * 2 - 1 // a comment",
  // biome-ignore lint/suspicious/noTemplateCurlyInString: code of a cell
  "x > 10 ? 'big' : `small ${x}`",
  // biome-ignore lint/suspicious/noTemplateCurlyInString: code of a cell
  "`${x} and ${list.length}\nmore ${list}`",
  "list.map((v) => v * x)",
  "list\n  .filter((v) => v > 1)\n  .map((v, i) => [v, i, x])",
  "list.map((x) => x + 1)",
  "f(x, ...list)",
  "f?.(x)",
  "o.deep.m(f)(1)",
  "new K(x).v",
  "new K",
  "({ x, y: x, ...o.deep, [text]: 1, 'q': list[0], x1: (a, ...b) => [a, b] }).x",
  "[, x, ...list]",
  "typeof x + typeof undefined",
  "void 0 ?? (x && !list)",
  "(-x) ** 2",
  "console.log(x, 'printed')",
  "Math.max(1, 2)",
  "JSON.stringify({ a: x })",
  "/t(e)xt/i.test(text)",
  "10n + 1n",
  "x /* inside */ + /* and here */ 1",
  "x\n+\nlist.length\n",
  "\n\n   list[x]",
  "o.deep.none.further",
  "o.deep.n(x)",
  "o\n  .deep\n  .none()",
  "x()",
  "x(1)(2)",
  "f()()",
  "  new x(list)",
  "list.map((v) =>\n  v.nope.further)",
  "null.x",
  "text.concat(x, list.missing())",
  "undefined",
  "(1, 2)",
  "'use strict'",
  "a => a",
];

/** What the other way has to do: declarations, types, waiting, assignments, and whatever is not known yet. */
const others = [
  "const a = 1",
  "{}",
  "this",
  "-x ** 2",
  "typeof nothing",
  "x = 1",
  "x++",
  "--x",
  "await x",
  "x as any",
  "x!",
  "f<number>(x)",
  "(v: number) => v",
  "async () => 1",
  "() => { return 1 }",
  "function () {}",
  "class {}",
  "1; 2",
  "notThereYet",
  "(f)(1)",
  "f`x`",
  "import('x')",
  "import.meta",
  "delete o.deep",
  "x +",
  "0777",
  "1\r\n+ 1",
  "yield",
  "({ m() {} })",
  "({ get x() { return 1 } })",
  "arguments",
  "$scope => 1",
  "<T>x",
  "x satisfies number",
];

describe("cells of one expression", () => {
  it("give and throw what the general way gives and throws, in the same places", async () => {
    for (const code of expressions) {
      const made = emitExpression(code, "cell-1", around, []);
      assert.ok(made, code);
      const full = emitCell(code, "cell-1", around);
      const [a, b] = [await outcome(made), await outcome(full)];
      assert.deepEqual(inspect(a), inspect(b), code);
      assert.deepEqual([...made.analysis.mentioned], [...full.analysis.mentioned], code);
    }
  });

  it("map each part to the text that it comes from", () => {
    for (const code of expressions) {
      const made = emitExpression(code, "cell-1", around, []);
      assert.ok(made, code);
      const lines = made.js.split("\n");
      const map = new SourceMap(JSON.parse(made.map) as SourceMapPayload);
      for (const [line, text] of lines.entries()) {
        for (let column = 0; line > 0 && column < text.length; column++) {
          const entry = map.findEntry(line, column) as {
            generatedLine: number;
            generatedColumn: number;
            originalLine: number;
            originalColumn: number;
          };
          if (entry.generatedLine !== line || entry.generatedColumn !== column || column === 0) continue;
          const here = text.slice(column).replace(/^(?:\(0, )?(?:\$cell\.|\$\$)/, "");
          const there = code.split("\n")[entry.originalLine]!.slice(entry.originalColumn);
          if (there !== "") assert.equal(here[0], there[0], `${code}: ${here} is no ${there}`);
        }
      }
    }
  });

  it("name an operator as the place of what it throws", async () => {
    const made = emitExpression("10n + x", "cell-1", around, [])!;
    assert.deepEqual(((await outcome(made)) as unknown[]).slice(1), [0, 4]);
  });

  it("leave all other cells to the general way", () => {
    for (const code of others) assert.equal(emitExpression(code, "cell-1", around, []), undefined, code);
  });
});

describe("mappings", () => {
  it("are what readers of source maps read", () => {
    const mappings = new Mappings();
    const entries = [
      [0, 15, 0, 2],
      [0, 31, 4, 0],
      [2, 0, 3, 1_000],
      [2, 1_023, 70_000, 0],
      [3, 4, 0, 16],
    ] as const;
    for (const [line, column, oldLine, oldColumn] of entries) mappings.add(line, column, oldLine, oldColumn);
    const map = new SourceMap({ version: 3, sources: ["a"], names: [], mappings: mappings.text } as never);
    for (const [generatedLine, generatedColumn, originalLine, originalColumn] of entries) {
      const { fileName: _, ...found } = map.findEntry(generatedLine, generatedColumn) as unknown as {
        fileName: string;
      };
      assert.deepEqual(
        { ...found, name: undefined },
        { generatedLine, generatedColumn, originalSource: "a", originalLine, originalColumn, name: undefined },
      );
    }
  });
});
