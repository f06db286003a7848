/** Data sets from a hub that the test starts itself. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { loadDataset } from "../../src/data/dataset.js";
import { DataError } from "../../src/errors.js";
import { type FakeHub, startHub } from "../hub/hub-server.js";

const parquet = new URL("../../../test/fixtures/data/parquet/snappy.parquet", import.meta.url);
const kept = ["HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] as const;
const former = kept.map((name) => [name, process.env[name]] as const);
let hub: FakeHub;
let home: string;

before(async () => {
  hub = await startHub({});
  home = await mkdtemp(join(tmpdir(), "tunebook-hub-"));
  for (const name of kept) delete process.env[name];
  process.env.HF_ENDPOINT = hub.url;
  process.env.HF_HOME = home;
});
after(async () => {
  for (const [name, value] of former) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  await hub.close();
  await rm(home, { recursive: true, force: true });
});
beforeEach(() => rm(join(home, "hub"), { recursive: true, force: true }));

const file = (content: string | Buffer) => ({ bytes: Buffer.from(content), lfs: false });

describe("data sets of the hub", () => {
  it("fetches the files of one split, of Parquet and packed text", async () => {
    const bytes = await readFile(parquet);
    hub.files = new Map([
      ["README.md", file("# data")],
      ["dataset_infos.json", file("{}")],
      ["data/train-00000-of-00002.parquet", { bytes, lfs: true }],
      ["data/train-00001-of-00002.parquet", { bytes, lfs: true }],
      ["data/test-00000-of-00001.parquet", { bytes, lfs: true }],
    ]);
    await assert.rejects(loadDataset("org/small"), /holds the splits test, train; pass split/);
    const train = await loadDataset("org/small", { split: "train" });
    assert.equal(train.length, 120);
    hub.log.length = 0;
    process.env.HF_HUB_OFFLINE = "1";
    assert.equal((await loadDataset("org/small", { split: "train" })).length, 120);
    delete process.env.HF_HUB_OFFLINE;
    assert.deepEqual(hub.log, []);
    hub.files = new Map([["dialogs.train.jsonl.gz", file(gzipSync('{"a": 1}\n{"a": 2}\n'))]]);
    await rm(join(home, "hub"), { recursive: true });
    assert.deepEqual((await loadDataset("org/small", { split: "train" })).toRows(), [{ a: 1 }, { a: 2 }]);
  });

  it("asks which of several is meant, and says what went wrong", async () => {
    hub.files = new Map([
      ["en/train.jsonl", file('{"t": "en"}\n')],
      ["de/train.jsonl", file('{"t": "de"}\n')],
    ]);
    await assert.rejects(loadDataset("org/small"), /several data sets \(en, de\); pass name/);
    assert.deepEqual((await loadDataset("org/small", { name: "de" })).toRows(), [{ t: "de" }]);
    await assert.rejects(loadDataset("org/small", { name: "fr" }), DataError);
    hub.files = new Map([["train.py", file("")]]);
    await rm(join(home, "hub"), { recursive: true });
    await assert.rejects(loadDataset("org/small"), /expected files of data .*found nothing/);
    hub.refusal = { status: 401, code: "GatedRepo" };
    await assert.rejects(loadDataset("org/small"), (error: Error) => {
      assert.ok(error instanceof DataError);
      assert.match(error.message, /is gated.*\/datasets\/org\/small, accept them there/);
      return true;
    });
    hub.refusal = undefined;
    await assert.rejects(loadDataset("no/such"), /no such file or folder|not a dataset that can be read/);
    await assert.rejects(loadDataset("data/none.jsonl"), /no such file or folder/);
  });
});
