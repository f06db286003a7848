import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { type Table, tableFromArrays, tableFromIPC, tableToIPC } from "apache-arrow";
import { Dataset } from "../../src/data/dataset.js";
import { displaySymbol } from "../../src/display/host.js";
import { DataError } from "../../src/errors.js";

const people = Dataset.from([
  { name: "Ada", age: 36, tags: ["x"], at: { city: "London" } },
  { name: "Bo", age: null, tags: [], at: null },
  { name: "Cy", age: 7.5, tags: ["y", "z"], at: { city: "Oslo" } },
]);

test("rows go in and come out alike, with types", () => {
  assert.equal(people.length, 3);
  assert.deepEqual(people.columns, ["name", "age", "tags", "at"]);
  assert.deepEqual(
    people.schema.map((column) => column.type),
    ["string", "float64", "list<string>", "{city: string}"],
  );
  assert.deepEqual(people.toRows(), [
    { name: "Ada", age: 36, tags: ["x"], at: { city: "London" } },
    { name: "Bo", age: null, tags: [], at: null },
    { name: "Cy", age: 7.5, tags: ["y", "z"], at: { city: "Oslo" } },
  ]);
  assert.deepEqual(people.at(-1).name, "Cy");
  assert.throws(() => people.at(3), DataError);
});

test("messages, numbers of all sizes, dates, bytes and missing keys", () => {
  const rows = [
    {
      messages: [{ role: "user", content: "hi 😀" }],
      big: 2 ** 40,
      exact: 2n ** 60n,
      when: new Date(5),
      raw: new Uint8Array([1, 2]),
      ok: true,
    },
    { messages: [{ role: "assistant", content: null, extra: 1 }], big: -0.5, exact: 3n },
  ];
  const data = Dataset.from<Record<string, unknown>>(rows);
  assert.deepEqual(data.toRows(), [
    { ...rows[0], messages: [{ role: "user", content: "hi 😀", extra: null }] },
    {
      messages: [{ role: "assistant", content: null, extra: 1 }],
      big: -0.5,
      exact: 3,
      when: null,
      raw: null,
      ok: null,
    },
  ]);
});

test("empty and odd values", () => {
  assert.equal(Dataset.from([]).length, 0);
  const nulls = Dataset.from<Record<string, unknown>>([
    { a: null, b: [], c: {} },
    { a: undefined, b: [null], c: {} },
  ]);
  assert.deepEqual(nulls.toRows(), [
    { a: null, b: [], c: {} },
    { a: null, b: [null], c: {} },
  ]);
  const numbers = [0, -0, Number.NaN, Number.POSITIVE_INFINITY, 1e300, 5e-324, 2147483648];
  assert.deepEqual(Dataset.from(numbers.map((n) => ({ n }))).column("n"), numbers);
  assert.deepEqual(Dataset.from([{ v: new Float32Array([0.5, 2]) }]).at(0), { v: [0.5, 2] });
});

test("rows that do not fit together name the place", () => {
  assert.throws(() => Dataset.from<Record<string, unknown>>([{ a: 1 }, { a: "x" }]), {
    name: "DataError",
    message: /^row 1, column a: expected a whole number as in row 0, got the string "x"/,
  });
  assert.throws(
    () => Dataset.from<Record<string, unknown>>([{ a: { b: [1] } }, { a: { b: ["x"] } }]),
    /row 1, column a\.b\[\]/,
  );
  assert.throws(() => Dataset.from([1, 2] as never), /row 0: expected a record/);
  assert.throws(() => Dataset.from([{ f: () => 1 }]), /column f: expected data, got a function/);
  assert.throws(() => Dataset.from(5 as never), DataError);
  assert.throws(() => Dataset.from(null as never), DataError);
});

test("hostile keys and depths are refused, names like methods are plain data", () => {
  const row = JSON.parse('{"__proto__": {"polluted": 1}}');
  assert.throws(() => Dataset.from([row]), /__proto__/);
  assert.throws(() => Dataset.from([{ a: [JSON.parse('{"__proto__": 1}')] }]), /__proto__/);
  const data = Dataset.from<Record<string, unknown>>([{ constructor: "a", toString: 1 }, { x: { hasOwnProperty: 2 } }]);
  assert.deepEqual(data.at(1), { constructor: null, toString: null, x: { hasOwnProperty: 2 } });
  let deep: unknown = 1;
  for (let i = 0; i < 100; i++) deep = [deep];
  assert.throws(() => Dataset.from([{ deep }]), /deeper than 32/);
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
});

test("map, filter, select, drop, rename leave the data set as it was", () => {
  const before = people.toRows();
  const lengths = people.map((row, index) => ({ index, length: row.name.length }));
  assert.deepEqual(lengths.toRows()[2], { index: 2, length: 2 });
  assert.deepEqual(people.filter((row) => row.tags.length > 0).column("name"), ["Ada", "Cy"]);
  assert.deepEqual(people.select("age", "name").columns, ["age", "name"]);
  assert.deepEqual(people.drop("at", "tags").columns, ["name", "age"]);
  assert.deepEqual(people.rename({ name: "who" }).column("who"), ["Ada", "Bo", "Cy"]);
  assert.deepEqual(people.toRows(), before);
  assert.throws(() => people.select("nme" as never), /no column "nme": there are name, age, tags, at/);
  assert.throws(() => people.rename({ name: "age" }), /same name/);
  assert.throws(() => people.column("no" as never), DataError);
  assert.throws(() => people.map(async (row) => row) as never, /promise/);
});

test("methods work on what others gave", () => {
  const part = people.filter((row) => row.name !== "Ada").slice(1);
  assert.deepEqual(part.select("name").rename({ name: "n" }).toRows(), [{ n: "Cy" }]);
  assert.deepEqual(part.concat(people.head(1)).column("name"), ["Cy", "Ada"]);
  assert.deepEqual(people.filter(() => false).columns, people.columns);
  assert.equal(people.filter(() => false).concat(people).length, 3);
  assert.deepEqual(people.slice(-2).column("name"), ["Bo", "Cy"]);
});

test("sort: both ways, stable, nulls last", () => {
  const data = Dataset.from([
    { k: 2, i: 0 },
    { k: null, i: 1 },
    { k: 1, i: 2 },
    { k: 2, i: 3 },
  ]);
  assert.deepEqual(data.sort("k").column("i"), [2, 0, 3, 1]);
  assert.deepEqual(data.sort("k", { descending: true }).column("i"), [0, 3, 2, 1]);
  assert.deepEqual(data.sort((row) => -row.i).column("i"), [3, 2, 1, 0]);
});

test("shuffle and split depend on the seed alone and lose no row", () => {
  const data = Dataset.from(Array.from({ length: 1000 }, (_, i) => ({ i })));
  assert.deepEqual(data.shuffle(7).toRows(), data.shuffle(7).toRows());
  assert.notDeepEqual(data.shuffle(7).toRows(), data.shuffle(8).toRows());
  const { train, validation, test: rest } = data.split({ validation: 0.05, test: 20, seed: 42 });
  assert.deepEqual([train.length, validation.length, rest.length], [930, 50, 20]);
  const all = [...train, ...validation, ...rest].map((row) => row.i).sort((a, b) => a - b);
  assert.deepEqual(all, data.column("i"));
  assert.equal(data.split({ test: 0.1, shuffle: false }).test.at(0).i, 900);
  assert.equal(data.split({}).train.length, 1000);
  assert.throws(() => data.split({ validation: 0.5, test: 500 }), /leave none/);
  assert.throws(() => data.split({ validation: -1 }), /share below 1/);
  assert.throws(() => data.split({ validation: 1.5 }), DataError);
});

test("groups and their figures", () => {
  const data = Dataset.from([
    { topic: "a", loss: 1 },
    { topic: "b", loss: 2 },
    { topic: "a", loss: 4 },
    { topic: "a", loss: null },
  ]);
  const groups = data.groupBy("topic");
  assert.deepEqual(groups.count().toRows(), [
    { topic: "a", count: 3 },
    { topic: "b", count: 1 },
  ]);
  assert.deepEqual(groups.mean("loss").column("loss_mean"), [2.5, 2]);
  assert.deepEqual(groups.sum("loss").column("loss_sum"), [5, 2]);
  assert.deepEqual(groups.aggregate({ n: ["loss", "count"], least: ["loss", "min"], most: ["loss", "max"] }).at(0), {
    topic: "a",
    n: 2,
    least: 1,
    most: 4,
  });
  assert.throws(() => groups.sum("topic"), /column of numbers/);
  assert.throws(() => data.groupBy("x" as never), /no column/);
});

test("stats", () => {
  const stats = people.stats().toRows();
  assert.deepEqual(stats[1], {
    column: "age",
    type: "float64",
    nulls: 1,
    distinct: 2,
    min: 7.5,
    mean: 21.75,
    max: 36,
    of: "value",
    top: null,
  });
  assert.deepEqual([stats[0]?.of, stats[0]?.max, stats[2]?.of, stats[2]?.mean], ["characters", 3, "items", 1]);
});

test("iteration: rows, and batches", async () => {
  assert.deepEqual(
    [...people].map((row) => row.name),
    ["Ada", "Bo", "Cy"],
  );
  const sizes: number[] = [];
  for await (const batch of people.batches(2)) sizes.push(batch.length);
  for await (const batch of people) sizes.push(batch.length);
  assert.deepEqual(sizes, [2, 1, 3]);
  await assert.rejects(people.batches(0).next(), DataError);
});

test("Arrow tables in and out, of many types and batches", () => {
  const table = tableFromArrays({ i: BigInt64Array.from([1n, 2n]), f: Float32Array.from([0.5, 2]), s: ["a", "b"] });
  const data = Dataset.from(table);
  assert.deepEqual(data.toRows(), [
    { i: 1, f: 0.5, s: "a" },
    { i: 2, f: 2, s: "b" },
  ]);
  assert.equal(data.toArrow(), table);
  const part = data.filter((row) => row.i === 2).toArrow();
  assert.deepEqual(part.schema.fields.map(String), ["i: Int64", "f: Float32", "s: Utf8"]);
  const copy: Table = tableFromIPC(tableToIPC(people.shuffle(1).toArrow()));
  assert.deepEqual(Dataset.from(copy).sort("name").toRows(), people.toRows());
  const two = table.concat(table.slice(1));
  assert.deepEqual(Dataset.from(two).column("s"), ["a", "b", "b"]);
  assert.deepEqual(Dataset.from(two).at(2), { i: 2, f: 2, s: "b" });
  const empty = people.filter(() => false).toArrow();
  assert.deepEqual(Dataset.from(empty).columns, people.columns);
});

test("more rows than one Arrow batch, read in any order", () => {
  const data = Dataset.from(Array.from({ length: 150_000 }, (_, i) => ({ i, text: `row ${i}`, list: [i] })));
  assert.ok(data.toArrow().batches.length > 1);
  for (const i of [149_999, 0, 65_535, 65_536, 131_072, 1]) {
    assert.deepEqual(data.at(i), { i, text: `row ${i}`, list: [i] });
  }
});

test("the display shows shape, types and the first rows", () => {
  const text = inspect(people);
  assert.match(text, /^3 rows × 4 columns\nname +age +tags +at\nstring +float64 +list<string> +\{city: string\}\n/);
  const bundle = (people as unknown as Record<symbol, () => Record<string, string>>)[displaySymbol]!();
  assert.match(bundle["text/html"]!, /3 rows × 4 columns/);
  assert.equal(bundle["text/plain"], text);
  const ids = Dataset.from([{ ids: Array.from({ length: 40 }, (_, i) => i), few: [1, 2] }]);
  assert.match(inspect(ids), /\[0, 1, 2, … 35 more …, 38, 39\] +\[1,2\]/);
});
