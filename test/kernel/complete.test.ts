import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { complete } from "../../kernel/complete/complete.js";
import { isComplete } from "../../kernel/complete/completeness.js";
import { inspect } from "../../kernel/complete/inspect.js";
import { Notebook } from "./compile-notebook.js";

const notebook = new Notebook();
const { compiler } = notebook;
const { cell } = notebook.compile(
  `/** Adds two numbers. @param a the first */
function addNumbers(a: number, b: number): number { return a + b }
class Person { name = "x"; #secret = 1; greet(other: Person): string { return other.name } }
const people = [new Person()];
let zebraCount = 1;
interface ZebraShape { stripes: number }
import * as nodePath from "node:path";`,
);
compiler.commit(cell);

/** Completes at "|". */
function at(code: string): { matches: string[]; start: number; end: number; types: Record<string, string> } {
  const cursor = code.indexOf("|");
  const { matches, start, end, metadata } = complete(compiler, code.replace("|", ""), cursor);
  const types = Object.fromEntries(metadata._jupyter_types_experimental.map(({ text, type }) => [text, type]));
  assert.equal(metadata._jupyter_types_experimental.length, matches.length);
  return { matches, start, end, types };
}

describe("completion", () => {
  it("completes members by the typed prefix alone", () => {
    const { matches, start, end } = at("people[0]!.gr|");
    assert.deepEqual(matches, ["greet"]);
    assert.deepEqual([start, end], [11, 13]);
    assert.deepEqual(at("people[0]!.|").matches, ["greet", "name"]);
    assert.deepEqual(at("people.ma|").matches, ["map"]);
  });

  it("types code that has not run", () => {
    const { matches, types } = at("const fresh = { alpha: 1, beta() {} };\nfresh.|");
    assert.deepEqual(matches, ["alpha", "beta"]);
    assert.deepEqual(types, { alpha: "property", beta: "method" });
    assert.deepEqual(at("people.forEach((p) => p.na|)").matches, ["name"]);
    assert.deepEqual(at("const half = (n: number) => n / 2;\nhalf(1).toFi|").matches, ["toFixed"]);
  });

  it("offers names of earlier cells, of this cell and globals", () => {
    assert.deepEqual(at("zeb|").matches, ["zebraCount"]);
    assert.deepEqual(at("let z: Zeb|").matches, ["ZebraShape"]);
    assert.deepEqual(at("const uniqueName = 1;\nuniqueN|").matches, ["uniqueName"]);
    assert.ok(at("cons|").matches.includes("console"));
    assert.ok(at("nodePath.jo|").matches.includes("join"));
    assert.ok(at("process.argv|").matches.includes("argv"));
    assert.ok(at("disp|").matches.includes("display"));
    assert.ok(at("|").matches.length > 100);
  });

  it("gives each match once, sorted", () => {
    const { matches } = at("Math.|");
    assert.deepEqual(matches, [...new Set(matches)].sort());
    assert.ok(matches.includes("max"));
  });

  it("completes in the middle of a line and inside broken code", () => {
    assert.deepEqual(at("const n = people.leng| + 1;").matches, ["length"]);
    assert.deepEqual(at("if (people.leng|").matches, ["length"]);
    assert.deepEqual(at("addNumbers(people.len|, 1").matches, ["length"]);
    assert.deepEqual(at("function f() { const inner = 1; return inn|").matches, ["inner"]);
  });

  it("completes modules and strings", () => {
    const { matches, start } = at("import fs from 'node:fs/pro|'");
    assert.deepEqual([matches, start], [["promises"], 24]);
    const code = "type K = 'alpha' # 'beta'; const kind: K = '".replace("#", "|");
    const { matches: kinds } = complete(compiler, `${code}'`, code.length);
    assert.deepEqual(kinds, ["alpha", "beta"]);
  });

  it("ignores comments, and positions beyond the code", () => {
    assert.deepEqual(at("// people.|").matches, []);
    assert.doesNotThrow(() => complete(compiler, "abc", 99));
  });
});

/** Inspects at "|". */
function look(code: string, detail: 0 | 1 = 0): string {
  const cursor = code.indexOf("|");
  const { found, data } = inspect(compiler, code.replace("|", ""), cursor, detail);
  assert.equal(found, data["text/plain"] !== undefined && data["text/markdown"] !== undefined);
  return data["text/plain"] ?? "";
}

describe("inspection", () => {
  it("shows the type and the documentation of a name", () => {
    assert.match(look("addNum|bers"), /^function addNumbers\(a: number, b: number\): number/);
    assert.match(look("addNumbers|"), /Adds two numbers\./);
    assert.match(look("|zebraCount"), /^let zebraCount: number/);
    assert.match(look("const fresh = [1];\nfresh|"), /const fresh: number\[\]/);
  });

  it("works inside the parentheses of a call, and after its name", () => {
    assert.match(look("addNumbers(1, |"), /addNumbers/);
    assert.match(look("addNumbers(|)"), /addNumbers/);
    assert.match(look("people.map(|)"), /map/);
    assert.match(look("addNumbers (1, [2, |"), /addNumbers/);
  });

  it("reads the documentation of the language and of Node from their declarations", () => {
    assert.match(look("Math.max|"), /Returns the larger of a set/);
    assert.match(look("nodePath.join|", 1), /Join all arguments together/);
    assert.match(look("[1].map|"), /Calls a defined callback function/);
    assert.match(look("display|"), /Shows a value/);
  });

  it("says so when there is nothing", () => {
    assert.equal(look("   |"), "");
    assert.equal(look("nobodyKnows|"), "");
  });
});

describe("is it complete?", () => {
  const cases: [string, "complete" | "incomplete" | "invalid"][] = [
    ["", "complete"],
    ["1 + 1", "complete"],
    ["const a = 1", "complete"],
    ["if (a) { b }", "complete"],
    ["function f() {}", "complete"],
    ["`a`", "complete"],
    ["%typecheck off\n1", "complete"],
    ["await x", "complete"],
    ["/a+/", "complete"],
    ["a++", "complete"],
    ["function f() {", "incomplete"],
    ["if (a) {", "incomplete"],
    ["if (a)", "incomplete"],
    ["for (const x of y)", "incomplete"],
    ["f(1,", "incomplete"],
    ["[1, 2", "incomplete"],
    ["`open", "incomplete"],
    ["/* open", "incomplete"],
    ["const a =", "incomplete"],
    ["a +", "incomplete"],
    ["x =>", "incomplete"],
    ["class A {\n  m() {", "incomplete"],
    ["try { a }", "incomplete"],
    ["const f = (a: number", "incomplete"],
    ["a.", "incomplete"],
    ["const = 1", "invalid"],
    ["let 5", "invalid"],
    ["}", "invalid"],
    ["f(1))", "invalid"],
    ["'open", "invalid"],
    ["foo bar baz", "invalid"],
    ["if (a) { ) }", "invalid"],
  ];
  for (const [code, status] of cases) {
    it(`${JSON.stringify(code)} is ${status}`, () => assert.equal(isComplete(code).status, status));
  }

  it("indents by what the last line opens", () => {
    assert.equal(isComplete("function f() {").indent, "  ");
    assert.equal(isComplete("class A {\n  m() {").indent, "    ");
    assert.equal(isComplete("const a = 1;\nif (a) {\n  b();").indent, "  ");
    assert.equal(isComplete("f(1,").indent, "  ");
  });
});
