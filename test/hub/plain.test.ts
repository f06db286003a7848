import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ConfigError } from "../../src/errors.js";
import { ConfigFields, readConfig, readGenerationConfig } from "../../src/hub/config.js";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "../../src/hub/float16.js";
import { JsonError, parseStrict } from "../../src/hub/json.js";
import { safeJoin, unsafeName } from "../../src/hub/path.js";

describe("strict JSON", () => {
  it("agrees with JSON.parse on what both take", () => {
    const texts = [
      "0",
      "-1.5e-3",
      '"a\\u00e9\\n\\""',
      "[]",
      "{}",
      ' [1, {"a" : [true,false,null]} ] ',
      '{"":1}',
      '"\u2028"',
      "1e400".slice(0, 3),
    ];
    for (const text of texts) assert.equal(JSON.stringify(parseStrict(text)), JSON.stringify(JSON.parse(text)), text);
  });

  it("refuses what JSON.parse lets through, and what it refuses", () => {
    const bad = [
      '{"a":1,"a":2}',
      '{"a":1,"\\u0061":2}',
      "9007199254740993",
      "-9007199254740993",
      "1e999",
      "[".repeat(200),
    ];
    bad.push(
      "",
      "01",
      "1.",
      "+1",
      "'a'",
      "[1,]",
      '{"a":1,}',
      '"\t"',
      '"\\x41"',
      '"a',
      "nul",
      "1 2",
      "NaN",
      "{a:1}",
      "[1",
      "{",
    );
    for (const text of bad) assert.throws(() => parseStrict(text), JsonError, text);
    assert.throws(() => parseStrict("[1,2,3]", { maxValues: 3 }), /too many values/);
  });

  it("makes objects that inherit nothing", () => {
    const value = parseStrict('{"__proto__":{"polluted":true},"constructor":1}') as Record<string, unknown>;
    assert.equal(Object.getPrototypeOf(value), null);
    assert.deepEqual(Object.keys(value), ["__proto__", "constructor"]);
    assert.equal(({} as Record<string, unknown>).polluted, undefined);
  });
});

describe("names that may become paths", () => {
  it("takes plain relative names", () => {
    for (const name of ["a", "a/b.json", "model-00001-of-00002.safetensors", "..a", "a..b", "ünï"])
      assert.equal(unsafeName(name), undefined);
    assert.equal(
      safeJoin("/x", "a/b", (reason) => new Error(reason)),
      join("/x", "a/b"),
    );
  });

  it("refuses the rest by the rules of POSIX and Windows", () => {
    const bad = [
      "",
      "..",
      ".",
      "../a",
      "a/../b",
      "a/..",
      "/a",
      "//a",
      "a//b",
      "a/",
      "\\\\host\\a",
      "a\\b",
      "C:a",
      "c:/a",
      "a\0b",
      "a:b",
      "NUL",
      "con.txt",
      "a/aux",
      "a.",
      "a ",
    ];
    for (const name of [...bad, "x".repeat(2000)]) assert.notEqual(unsafeName(name), undefined, name);
    assert.match(unsafeName("a/b", true)!, /another folder/);
    assert.throws(() => safeJoin("/x", "../y", (reason) => new ConfigError(reason)), ConfigError);
  });
});

describe("fields of a config", () => {
  const fields = new ConfigFields(
    { n: 4, x: 0.5, s: "silu", b: true, none: null, list: [1, 2], big: 2 ** 60, deep: { n: "4" } },
    "config.json",
  );

  it("gives what is there, defaults for what is absent, and tells null from absent", () => {
    assert.equal(fields.integer("n", { min: 1 }), 4);
    assert.equal(fields.number("x"), 0.5);
    assert.equal(fields.integer("m", { default: 7 }), 7);
    assert.equal(fields.string("s", { oneOf: ["silu", "gelu"] }), "silu");
    assert.equal(fields.boolean("c", { default: false }), false);
    assert.equal(
      fields.optional("none", (f) => f.integer("none")),
      null,
    );
    assert.equal(
      fields.optional("absent", (f) => f.integer("absent")),
      undefined,
    );
    assert.equal(
      fields.optional("n", (f) => f.integer("n")),
      4,
    );
    assert.deepEqual(
      fields.array("list", "integers", (v): v is number => typeof v === "number"),
      [1, 2],
    );
  });

  it("says what was expected, what came and where", () => {
    const wrong = (read: () => unknown, message: RegExp) =>
      assert.throws(read, (error: Error) => error instanceof ConfigError && message.test(error.message));
    wrong(
      () => fields.integer("hidden_size", { min: 1 }),
      /"hidden_size" is missing in config.json: expected an integer of at least 1/,
    );
    wrong(() => fields.integer("x"), /"x" is 0.5 in config.json: expected an integer/);
    wrong(() => fields.integer("big"), /expected an integer/);
    wrong(() => fields.integer("none", { default: 1 }), /is null/);
    wrong(() => fields.number("n", { max: 3 }), /of at most 3/);
    wrong(() => fields.boolean("s"), /"s" is "silu"/);
    wrong(() => fields.string("s", { oneOf: ["gelu"] }), /one of "gelu"/);
    wrong(() => fields.array("list", "strings", (v): v is string => typeof v === "string"), /an array of strings/);
    wrong(() => fields.object("deep")!.integer("n"), /"n" is "4" in "deep" of config.json/);
    wrong(() => fields.integer("toString"), /is missing/);
  });

  it("reads config.json and generation_config.json", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tunebook-config-"));
    try {
      await assert.rejects(readConfig(folder), /config.json cannot be read/);
      await writeFile(join(folder, "config.json"), '{"hidden_size":4}');
      await assert.rejects(readConfig(folder), /"model_type" is missing/);
      await writeFile(join(folder, "config.json"), "{");
      await assert.rejects(readConfig(folder), ConfigError);
      await writeFile(join(folder, "config.json"), '\ufeff{"model_type":"llama"}');
      assert.equal((await readConfig(folder)).string("model_type"), "llama");
      assert.equal(await readGenerationConfig(folder), undefined);
      await writeFile(join(folder, "generation_config.json"), '{"eos_token_id":[2,3],"temperature":0.6,"top_k":null}');
      assert.deepEqual(await readGenerationConfig(folder), { eosIds: [2, 3], temperature: 0.6 });
      await writeFile(join(folder, "generation_config.json"), '{"eos_token_id":"2"}');
      await assert.rejects(readGenerationConfig(folder), /a token id or a list/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("16-bit floats", () => {
  it("come back from 32 bits, all 65,536 of them", () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const isNan = (h: number, exponent: number) => (h & exponent) === exponent && (h & (exponent ^ 0x7fff)) !== 0;
    const half = float32ToFloat16(float16ToFloat32(all));
    const brain = float32ToBfloat16(bfloat16ToFloat32(all));
    for (const h of all) {
      if (!isNan(h, 0x7c00)) assert.equal(half[h], h);
      if (!isNan(h, 0x7f80)) assert.equal(brain[h], h);
    }
  });

  it("round to nearest, ties to even", () => {
    const f = (...values: number[]) => Float32Array.from(values);
    assert.deepEqual(
      [...float32ToFloat16(f(65519, 65520, 2 ** -25, 1.5 * 2 ** -24, Number.NaN, 1 + 2 ** -11, 1 + 3 * 2 ** -11))],
      [0x7bff, 0x7c00, 0, 2, 0x7e00, 0x3c00, 0x3c02],
    );
    assert.deepEqual([...float32ToBfloat16(f(1 + 2 ** -8, 1 + 3 * 2 ** -8, Number.NaN))], [0x3f80, 0x3f82, 0x7fc0]);
  });
});
