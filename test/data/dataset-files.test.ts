import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { gzipSync } from "node:zlib";
import { tableFromIPC, tableToIPC } from "apache-arrow";
import { Dataset, type LoadDatasetOptions, loadDataset } from "../../src/data/dataset.js";
import { DataError } from "../../src/errors.js";

const folder = mkdtempSync(join(tmpdir(), "dataset-"));
after(() => rmSync(folder, { recursive: true, force: true }));

let counter = 0;
function file(ending: string, content: string | Uint8Array): string {
  counter += 1;
  const path = join(folder, `file-${counter}${ending}`);
  writeFileSync(path, content);
  return path;
}

async function rows(ending: string, content: string | Uint8Array, options?: LoadDatasetOptions): Promise<object[]> {
  return (await loadDataset(file(ending, content), options)).toRows();
}

async function refused(
  ending: string,
  content: string | Uint8Array,
  message: RegExp,
  options?: LoadDatasetOptions,
): Promise<void> {
  const path = file(ending, content);
  await assert.rejects(loadDataset(path, options), (error: unknown) => {
    assert.ok(error instanceof DataError, String(error));
    assert.match(error.message, message);
    assert.ok(error.message.includes(path), error.message);
    return true;
  });
}

test("JSON Lines: blank lines, CRLF, byte order mark, no last line end", async () => {
  const text = '\ufeff{"a": 1, "t": "x\\ny\u2028z"}\r\n\r\n  \n{"t": "é😀", "a": 2}';
  const expected = [
    { a: 1, t: "x\ny\u2028z" },
    { a: 2, t: "é😀" },
  ];
  assert.deepEqual(await rows(".jsonl", text), expected);
  assert.deepEqual(await rows(".ndjson", text), expected);
  assert.deepEqual(await rows(".jsonl.gz", gzipSync(text)), expected);
});

test("JSON Lines: letters and lines that fall between two reads", async () => {
  const expected = Array.from({ length: 400 }, (_, i) => ({ i, text: "😀é".repeat(1500) }));
  const text = expected.map((row) => `${JSON.stringify(row)}\n`).join("");
  assert.ok(Buffer.byteLength(text) > 3 * 1024 * 1024);
  assert.deepEqual(await rows(".jsonl", text), expected);
});

test("JSON Lines: errors name the line", async () => {
  await refused(".jsonl", '{"a": 1}\n\n{"a": }\n', /, line 3: not JSON/);
  await refused(".jsonl", '{"a": "NaN"}\n{"a": NaN}\n', /, line 2: NaN is not JSON; write null/);
  await refused(".jsonl", '{"a": [1, -Infinity]}\n', /, line 1: -Infinity is not JSON/);
  await refused(".jsonl", '{"a": 1e999}\n', /, line 1: the number 1e999 is out of range/);
  await refused(
    ".jsonl",
    '{"a": 1}\n{"a": 9007199254740993}\n',
    /, line 2: the whole number 9007199254740993 is above 2\^53/,
  );
  await refused(".jsonl", '{"a": 1}\n[1]\n', /, line 2: expected a record/);
  await refused(
    ".jsonl",
    '{"a": 1}\n\n{"a": "x"}\n',
    /, line 3, column a: expected a whole number as in .*, line 1, got the string "x"/,
  );
  await refused(".jsonl", '{"a": {"__proto__": {"x": 1}}}\n', /, line 1: the key "__proto__" is refused/);
  await refused(".jsonl", `{"a": ${"[".repeat(5000)}${"]".repeat(5000)}}\n`, /deeper than 32/);
  await refused(".jsonl", Buffer.from([0x7b, 0x0a, 0xff, 0xfe, 0x0a]), /not UTF-8/);
});

test("large numbers inside strings, and floats, are no whole numbers", async () => {
  const text = '{"a": "id 12345678901234567890 \\" 99999999999999999999", "b": 0.12345678901234567, "c": 1e300}\n';
  assert.equal((await rows(".jsonl", text)).length, 1);
});

test("empty files", async () => {
  await refused(".jsonl", "", /no rows/);
  await refused(".jsonl", "\n\n", /no rows/);
  await refused(".json", "", /no rows/);
  await refused(".json", "[]", /no rows/);
  await refused(".csv", "", /no rows/);
  await refused(".csv", "a,b\n", /no rows/);
  await refused(".arrow", "", /not an Arrow file|no Arrow data/);
});

test("JSON: arrays, a single wrapped array, columns, one record, and lines", async () => {
  const expected = [{ a: 1 }, { a: 2 }];
  assert.deepEqual(await rows(".json", '\ufeff [ {"a": 1},\n {"a": 2} ]\n'), expected);
  assert.deepEqual(await rows(".json", '{"data": [{"a": 1}, {"a": 2}]}'), expected);
  assert.deepEqual(await rows(".json", '{"a": [1, 2], "b": ["x", null]}'), [
    { a: 1, b: "x" },
    { a: 2, b: null },
  ]);
  assert.deepEqual(await rows(".json", '{"a": 1, "b": 2}'), [{ a: 1, b: 2 }]);
  assert.deepEqual(await rows(".json", '{"a": 1}\n{"a": 2}\n'), expected);
  assert.deepEqual(await rows(".json", '{"messages": [[{"role": "user"}]]}'), [{ messages: [{ role: "user" }] }]);
  await refused(".json", '{"a": [1], "b": [1, 2]}', /column b has 2 values, column a has 1/);
  await refused(".json", "5", /expected an array of records, got number 5/);
  await refused(".json", '[{"a": 1}', /not JSON/);
  await refused(".json", '[{"a": 1}, 7]', /record 1: expected a record/);
});

test("CSV: quotes, line ends, empty and missing values, types", async () => {
  const text = '\ufeffname,n,x,ok,text\r\n"a, ""b""",1,0.5,true,"line 1\nline 2"\r\nc,,1e3,FALSE,""\r\n';
  assert.deepEqual(await rows(".csv", text), [
    { name: 'a, "b"', n: 1, x: 0.5, ok: true, text: "line 1\nline 2" },
    { name: "c", n: null, x: 1000, ok: false, text: "" },
  ]);
});

test("CSV: codes and long identifiers stay text; one word makes a column text", async () => {
  const [row] = (await rows(
    ".csv",
    "zip,id,mixed,neg,inf\n00123,12345678901234567890,1,-5,1e999\n00456,2,x,-0.5,1\n",
  )) as Record<string, unknown>[];
  assert.deepEqual(row, { zip: "00123", id: "12345678901234567890", mixed: "1", neg: -5, inf: "1e999" });
});

test("CSV: errors name the line", async () => {
  await refused(".csv", 'a,b\n1,"x\ny"\n1,2,3\n', /, line 4: expected 2 fields \(a, b\), got 3/);
  await refused(".csv", "a,b\n1\n", /, line 2: expected 2 fields \(a, b\), got 1/);
  await refused(".csv", 'a,b\n1,2\n3,"open\n4,5\n', /line 3: a quotation mark is never closed/);
  await refused(".csv", 'a,b\n1,x"y"\n', /line 2: a quotation mark in a wrong place; .*quote: false/);
  await refused(".csv", "a,a\n1,2\n", /two columns are named "a"/);
  await refused(".csv", "a,__proto__\n1,2\n", /"__proto__" is refused/);
  await refused(".csv", Buffer.from("a\ncaf\xe9\n", "latin1"), /not UTF-8/);
});

test("TSV, separators, files without a header, names missing in it", async () => {
  assert.deepEqual(await rows(".tsv", "a\tb\n1\tx y\n"), [{ a: 1, b: "x y" }]);
  assert.deepEqual(await rows(".csv", "a;b\n1;2\n", { delimiter: ";" }), [{ a: 1, b: 2 }]);
  assert.deepEqual(await rows(".tsv", 'ham\tsay "hi\n', { columns: ["label", "text"], quote: false }), [
    { label: "ham", text: 'say "hi' },
  ]);
  assert.deepEqual(await rows(".csv", ",a\n0,x\n"), [{ unnamed_0: 0, a: "x" }]);
  assert.deepEqual(await rows(".txt", '{"a": 1}', { format: "jsonl" }), [{ a: 1 }]);
});

test("gzip: bombs and damaged files", async () => {
  const bomb = gzipSync(Buffer.alloc(100 * 1024 * 1024, 32));
  assert.ok(bomb.length < 200_000);
  await refused(".jsonl.gz", bomb, /more than 200 times its size|longer than 64 MiB/);
  const lines = gzipSync(Buffer.alloc(100 * 1024 * 1024, 10));
  await refused(".jsonl.gz", lines, /more than 200 times its size/);
  await refused(".jsonl.gz", gzipSync('{"a": 1}\n'.repeat(1000)).subarray(0, -20), /damaged or cut short/);
  await refused(".jsonl.gz", "not gzip", /damaged/);
  await refused(".jsonl", '{"a": 1}\n'.repeat(200_000), /more than 1 MiB; pass maxBytes/, { maxBytes: 1024 * 1024 });
});

test("Arrow files and streams; damaged and foreign ones", async () => {
  const data = Dataset.from(Array.from({ length: 50 }, (_, i) => ({ i, s: `row ${i}`, l: [{ x: i }] })));
  const stream = tableToIPC(data.toArrow(), "stream");
  const ipc = tableToIPC(data.toArrow(), "file");
  assert.deepEqual(await rows(".arrow", stream), data.toRows());
  assert.deepEqual(await rows(".feather", ipc), data.toRows());
  await refused(".arrow", "PAR1 this is no arrow file", /not an Arrow file/);
  let refusals = 0;
  for (let cut = 8; cut < ipc.length; cut += 397) {
    const path = file(".arrow", ipc.subarray(0, cut));
    await loadDataset(path).catch((error: unknown) => {
      assert.ok(error instanceof DataError, `cut at ${cut}: ${String(error)}`);
      refusals += 1;
    });
  }
  assert.ok(refusals > 3);
});

test("Arrow files with a wrong byte load or are refused, and never hang or crash", async () => {
  const ipc = tableToIPC(
    Dataset.from([
      { i: 1, s: "ab", l: ["x"] },
      { i: 2, s: "c", l: [] },
    ]).toArrow(),
    "file",
  );
  for (let at = 5; at < ipc.length; at += 61) {
    const bytes = ipc.slice();
    bytes[at]! ^= 0xff;
    const path = join(folder, "flip.arrow");
    writeFileSync(path, bytes);
    try {
      (await loadDataset(path)).head(5).toRows();
    } catch (error) {
      assert.ok(error instanceof DataError, `byte ${at}: ${String(error)}\n${(error as Error).stack}`);
    }
  }
});

test("save and load: each format gives the rows back", async () => {
  const data = Dataset.from([
    { s: 'a "b", c\n', n: 1, x: 0.5, ok: true, e: "", z: null as string | null },
    { s: " é😀 ", n: -2, x: 1e-7, ok: false, e: "-", z: "z" },
  ]);
  for (const ending of ["jsonl", "json", "csv", "tsv", "arrow"]) {
    const path = join(folder, "deep", "er", `saved.${ending}`);
    await data.shuffle(0).sort("n", { descending: true }).save(path);
    assert.deepEqual((await loadDataset(path)).toRows(), data.toRows(), ending);
    await data.save(path);
  }
  assert.deepEqual(
    readdirSync(join(folder, "deep", "er")).sort(),
    ["csv", "json", "jsonl", "tsv", "arrow"].map((e) => `saved.${e}`).sort(),
  );
  const ipc = tableFromIPC(readFileSync(join(folder, "deep", "er", "saved.arrow")));
  assert.equal(ipc.numRows, 2);
});

test("save: nested rows, more than one block, and what cannot be written", async () => {
  const rowsIn = Array.from({ length: 2500 }, (_, i) => ({ messages: [{ role: "user", content: `${i}` }] }));
  for (const ending of ["jsonl", "json", "arrow"]) {
    const path = join(folder, `nested.${ending}`);
    await Dataset.from(rowsIn).save(path);
    assert.deepEqual((await loadDataset(path)).toRows(), rowsIn);
  }
  const path = join(folder, "bad.jsonl");
  writeFileSync(path, "kept");
  await assert.rejects(Dataset.from([{ x: Number.NaN }]).save(path), /NaN in x has no form in JSON/);
  await assert.rejects(Dataset.from([{ x: 2n ** 60n }]).save(path), /above 2\^53/);
  await assert.rejects(Dataset.from([{ x: 1 }]).save(join(folder, "bad.xlsx")), /expected a file name ending in/);
  assert.equal(readFileSync(path, "utf8"), "kept");
  assert.ok(!readdirSync(folder).some((name) => name.endsWith(".part")));
});

test("folders: one format, splits by name", async () => {
  const put = (name: string, files: Record<string, string>): string => {
    const path = join(folder, name);
    mkdirSync(path);
    for (const [each, text] of Object.entries(files)) writeFileSync(join(path, each), text);
    return path;
  };
  const splits = put("splits", {
    "data.train.jsonl": '{"a":1}\n',
    "data.dev.jsonl": '{"a":2}\n',
    "README.md": "x",
    ".hidden.jsonl": "x",
  });
  assert.deepEqual((await loadDataset(splits, { split: "train" })).toRows(), [{ a: 1 }]);
  assert.deepEqual((await loadDataset(splits, { split: "validation" })).toRows(), [{ a: 2 }]);
  await assert.rejects(loadDataset(splits), /holds the splits validation, train; pass split/);
  await assert.rejects(loadDataset(splits, { split: "test" }), /no file of the split "test"/);
  const parts = put("parts", { "b.csv": "a\n2\n", "a.csv": "a\n1\n" });
  assert.deepEqual((await loadDataset(parts)).column("a"), [1, 2]);
  const mixed = put("mixed", { "a.csv": "a\n1\n", "b.jsonl": '{"a":2}\n' });
  await assert.rejects(loadDataset(mixed), /csv and jsonl; pass format/);
  assert.deepEqual((await loadDataset(mixed, { format: "csv" })).toRows(), [{ a: 1 }]);
  await assert.rejects(loadDataset(put("none", { "x.parquet": "x" })), /not a Parquet file/);
  await assert.rejects(loadDataset(put("nothing", {})), /found nothing/);
});

test("folders that Python's datasets saved: the Arrow files that state.json names, a folder for each split", async () => {
  const saved = (name: string, state: object, parts: Record<string, object[]>): string => {
    const path = join(folder, name);
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, "state.json"), JSON.stringify(state));
    writeFileSync(join(path, "dataset_info.json"), '{"features":{}}');
    for (const [each, rows] of Object.entries(parts))
      writeFileSync(join(path, each), tableToIPC(Dataset.from(rows).toArrow(), "stream"));
    return path;
  };
  const state = (...names: string[]) => ({ _data_files: names.map((filename) => ({ filename })), _split: null });
  const [first, second] = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"] as const;
  const two = saved("disk", state(second, first), {
    [first]: [{ a: 1 }],
    [second]: [{ a: 2 }],
    "other.arrow": [{ a: 3 }],
  });
  assert.deepEqual((await loadDataset(two)).column("a"), [2, 1], "in the order of state.json, without other files");
  const dict = join(folder, "dict");
  saved("dict/train", state(first), { [first]: [{ a: 4 }] });
  saved("dict/test", state(first), { [first]: [{ a: 5 }] });
  writeFileSync(join(dict, "dataset_dict.json"), '{"splits":["train","test"]}');
  assert.deepEqual((await loadDataset(dict, { split: "test" })).column("a"), [5]);
  await assert.rejects(loadDataset(dict), /holds the splits train, test; pass split, such as \{ split: "train" \}/);
  const wrong = (name: string, text: object): Promise<unknown> =>
    assert.rejects(loadDataset(saved(name, text, { [first]: [{ a: 1 }] })), (error: Error) => {
      assert.ok(error instanceof DataError);
      assert.match(error.message, /state\.json.*(should list names in its folder|flatten_indices)/);
      return true;
    });
  await wrong("outside", state("../disk/other.arrow"));
  await wrong("absent", {});
  await wrong("chosen", { ...state(first), _indices_data_files: [{ filename: "indices.arrow" }] });
});

test("paths and names that do not work say why", async () => {
  await assert.rejects(loadDataset("no/such/file.jsonl"), /no such file or folder/);
  const { HF_HUB_OFFLINE: former } = process.env;
  process.env.HF_HUB_OFFLINE = "1";
  await assert.rejects(loadDataset("owner/name", { cacheDir: folder }), /not in the cache.*no such file or folder/);
  if (former === undefined) delete process.env.HF_HUB_OFFLINE;
  else process.env.HF_HUB_OFFLINE = former;
  await assert.rejects(loadDataset(""), DataError);
  await assert.rejects(loadDataset("a\0b"), DataError);
  await refused(".parquet", "x", /not a Parquet file/);
  await refused(".xlsx", "x", /expected \.jsonl.*got \.xlsx/);
  await refused(".jsonl", '{"a":1}', /one file has no split "test"/, { split: "test" });
  await assert.rejects(loadDataset(file(".jsonl", '{"a":1}'), { signal: AbortSignal.abort() }), {
    name: "InterruptedError",
  });
});
