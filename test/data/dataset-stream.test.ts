import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { loadDataset } from "../../src/data/dataset.js";
import { streamDataset } from "../../src/data/dataset-stream.js";
import { DataError } from "../../src/errors.js";

const parquet = new URL("../../../test/fixtures/data/parquet/", import.meta.url).pathname;
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-stream-"));
});
after(() => rm(folder, { recursive: true, force: true }));

test("batches hold the rows that loadDataset gives, across files", async () => {
  const lines = (from: number) => Array.from({ length: 25 }, (_, i) => `{"i": ${from + i}, "t": "é${i}"}\n`).join("\n");
  await writeFile(join(folder, "a.jsonl"), lines(0));
  await writeFile(join(folder, "b.jsonl.gz"), gzipSync(lines(25)));
  for (const path of [folder, join(parquet, "zstd.parquet")]) {
    const whole = (await loadDataset(path)).toRows();
    const rows: object[] = [];
    const sizes: number[] = [];
    for await (const batch of streamDataset(path, { batch: 20 })) {
      sizes.push(batch.length);
      rows.push(...batch.toRows());
    }
    assert.deepEqual(rows, whole);
    assert.deepEqual(sizes, whole.length === 50 ? [20, 20, 10] : [20, 20, 20]);
  }
});

test("reads no more than it is asked for", async () => {
  const path = join(folder, "long.jsonl");
  await writeFile(path, `${'{"a": 1}\n'.repeat(500_000)}no JSON`);
  for await (const batch of streamDataset(path, { batch: 10 })) {
    assert.equal(batch.length, 10);
    break;
  }
  let seen = 0;
  await assert.rejects(
    async () => {
      for await (const batch of streamDataset(path, { batch: 100_000 })) seen += batch.length;
    },
    (error: Error) => error instanceof DataError && /line 500001/.test(error.message),
  );
  assert.equal(seen, 500_000);
});

test("says what is not read in batches", async () => {
  await writeFile(join(folder, "x.csv"), "a\n1\n");
  const all = async (path: string, options = {}) => {
    for await (const _ of streamDataset(path, options));
  };
  await assert.rejects(all(join(folder, "x.csv")), /csv is not read in batches/);
  await assert.rejects(all(join(folder, "none.jsonl")), /no such file/);
  await assert.rejects(all(join(folder, "x.csv"), { batch: 0 }), /batch must be/);
  const path = join(folder, "bad.parquet");
  await writeFile(path, (await readFile(join(parquet, "none.parquet"))).subarray(0, 5000));
  await assert.rejects(all(path), DataError);
});
