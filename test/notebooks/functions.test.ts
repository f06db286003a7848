import assert from "node:assert/strict";
import { test } from "node:test";
import { define, passes, type Value } from "../../notebooks/04-logo.js";
import { dataSets } from "../../notebooks/embedded/data.js";
import type { CodeRow } from "../../notebooks/embedded/world/functions.js";

const rows = (name: string): CodeRow[] => dataSets()[name] as CodeRow[];
const run = (body: string, given: Value): Value => define(`to f :x\noutput ${body}\nend`).run(given);

test("Logo: operations stand before what they are given, and may be given each other", () => {
  assert.equal(run("sum :x 3", 4), 7);
  assert.equal(run("difference product 2 :x quotient :x 4", 8), 14);
  assert.equal(run("remainder :x 5", 13), 3);
  assert.equal(run("greaterp :x 5", 5), false);
  assert.equal(run('sentence "red :x', "boat"), "red boat");
  assert.equal(run('memberp "red :x', "a red boat"), true);
  assert.equal(run("memberp 3 :x", [1, 4]), false);
  assert.deepEqual(run("butfirst :x", [1, 2, 3]), [2, 3]);
  assert.equal(run("butlast :x", "sea"), "se");
  assert.equal(run("sum first :x last :x", [1, 2, 3]), 4);
  assert.equal(run("count :x", "a boat"), 6);
  assert.equal(run("uppercase :x", "fog"), "FOG");
});

test("what is no such function fails by itself, and never passes", () => {
  const wrong: [source: string, message: RegExp][] = [
    ["", /expected: to NAME/],
    ["to f :x\nprint :x\nend", /expected: to NAME/],
    ["to f :x\noutput sum :x\nend", /something is missing/],
    ["to f :x\noutput sum :x 2 3\nend", /3 is too much/],
    ["to f :x\noutput constructor :x\nend", /there is no constructor/],
    ["to f :x\noutput sum :y 2\nend", /there is no :y/],
    ['to f :x\noutput sum "a 2\nend', /"a" is no number/],
    ["to f :x\noutput first :x\nend", /1 has no parts/],
  ];
  for (const [source, message] of wrong) {
    assert.throws(() => define(source).run(1), message);
    assert.equal(passes(source, "f", "[[1,1]]"), false);
  }
  assert.ok(passes("to f :x output sum :x 0 end", "f", "[[1,1],[5,5]]"));
  assert.ok(!passes("to g :x output sum :x 0 end", "f", "[[1,1]]"), "another name");
  assert.ok(!passes("to f :x output sum :x 0 end", "f", "[[1,1],[5,6]]"), "one of the results");
});

test("each function of the data passes its tests, which one with another number, word or operation does not", () => {
  const [train, held] = [rows("functions-train.jsonl"), rows("functions-test.jsonl")];
  assert.deepEqual([train.length, held.length], [560, 80]);
  const asked = new Set(train.map((row) => row.prompt));
  assert.equal(asked.size, 560);
  assert.ok(held.every((row) => !asked.has(row.prompt)));
  const other: Record<string, string> = {
    sum: "difference",
    lessp: "greaterp",
    greaterp: "lessp",
    first: "last",
    last: "first",
  };
  let changed = 0;
  for (const { prompt, code, name, tests } of [...train, ...held]) {
    assert.match(prompt, new RegExp(`^Write ${name}: [^{}[\\]|]+$`));
    assert.ok(passes(code, name, tests), code);
    const number = code.replace(/ (\d)(?=[ \n])/, (_, digit: string) => ` ${(Number(digit) % 9) + 1}`);
    const word = code.replace(/"\w+/, '"gold');
    const operation = code.replace(/(?<=output )\w+/, (each) => other[each] ?? each);
    for (const wrong of [number, word, operation].filter((each) => each !== code)) {
      changed++;
      assert.ok(!passes(wrong, name, tests), `${code} and ${wrong}: ${tests}`);
    }
  }
  assert.ok(changed > 500, String(changed));
});
