import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { loadDataset } from "../../src/data/dataset.js";
import { DataError } from "../../src/errors.js";

const fixtures = new URL("../../../test/fixtures/data/parquet/", import.meta.url).pathname;
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-parquet-"));
});
after(() => rm(folder, { recursive: true, force: true }));

/** What pyarrow says the files hold; the three kinds that JSON lacks are marked. */
async function wanted(): Promise<object[]> {
  return JSON.parse(await readFile(join(fixtures, "rows.json"), "utf8"), (_, value) => {
    if (value?.$date !== undefined) return new Date(value.$date);
    if (value?.$bytes !== undefined) return Uint8Array.from(value.$bytes);
    return value?.$big === undefined ? value : BigInt(value.$big);
  });
}

// Structs of Arrow have no prototype, and 2^53 itself is a bigint where all of a column are.
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null || value instanceof Date || value instanceof Uint8Array) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)]));
}

describe("Parquet", () => {
  for (const name of ["none", "snappy", "gzip", "zstd", "brotli", "lz4", "v2", "delta"]) {
    it(`${name}: holds what pyarrow wrote`, async () => {
      const data = await loadDataset(join(fixtures, `${name}.parquet`));
      assert.deepEqual(plain(data.toRows()), await wanted());
    });
  }

  it("refuses other and damaged files with its own error, and takes no memory that they claim", async () => {
    const path = join(folder, "x.parquet");
    const refused = async (bytes: Uint8Array, message: RegExp, maxBytes?: number) => {
      await writeFile(path, bytes);
      await assert.rejects(loadDataset(path, maxBytes ? { maxBytes } : {}), (error: Error) => {
        assert.ok(error instanceof DataError, String(error));
        assert.match(error.message, message);
        return true;
      });
    };
    const good = await readFile(join(fixtures, "snappy.parquet"));
    await refused(Buffer.from("{}"), /it has 2 bytes/);
    await refused(Buffer.alloc(100), /PAR1/);
    await refused(good.subarray(0, good.length - 9), /PAR1/);
    await refused(good, /more than/, 1000);
    await refused(await readFile(join(fixtures, "prefix.parquet")), /DELTA_BYTE_ARRAY, which is not read/);
    const long = Buffer.from(good);
    long.writeUInt32LE(0x7fffffff, good.length - 8);
    await refused(long, /metadata would have/);
  });

  it("reads or refuses every file with one byte changed, in little memory", { timeout: 120_000 }, async () => {
    const path = join(folder, "y.parquet");
    const files = await Promise.all(
      ["v2", "delta", "none", "snappy"].map((name) => readFile(join(fixtures, `${name}.parquet`))),
    );
    let refused = 0;
    let seed = 1;
    for (let i = 0; i < 400; i++) {
      const good = files[i % 4]!;
      seed = (seed * 48271) % 2147483647;
      const changed = Buffer.from(good);
      // Half of them in the metadata at the end.
      const at = i % 8 < 4 ? seed % good.length : good.length - 1 - (seed % 3000);
      changed[at] = [0, 0xff, 0x7f, 0x80, changed[at]! ^ 1][i % 5]!;
      await writeFile(path, changed);
      await loadDataset(path).catch((error: Error) => {
        assert.ok(error instanceof DataError, `byte ${at}: ${error.stack}`);
        refused++;
      });
    }
    assert.ok(refused > 50, `${refused} of 400 refused`);
    assert.ok(process.memoryUsage().rss < 2 ** 30, `${process.memoryUsage().rss} bytes`);
  });
});
