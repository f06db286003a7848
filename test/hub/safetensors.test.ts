import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { CheckpointError } from "../../src/errors.js";
import { SafetensorsFile } from "../../src/hub/safetensors.js";
import { SafetensorsFolder } from "../../src/hub/safetensors-folder.js";
import { MAX_HEADER_BYTES } from "../../src/hub/safetensors-header.js";
import { writeSafetensors } from "../../src/hub/safetensors-write.js";

const golden: string = join(import.meta.dirname, "../../../test/fixtures/hub/golden.safetensors");
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-safetensors-"));
});
after(() => rm(folder, { recursive: true }));

async function fileOf(header: string | object, data = 0, length?: bigint): Promise<string> {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length ?? BigInt(json.length));
  const path = join(folder, "hostile.safetensors");
  await writeFile(path, Buffer.concat([size, json, Buffer.alloc(data)]));
  return path;
}

const refused = async (path: string, message: RegExp) =>
  assert.rejects(SafetensorsFile.open(path), (error: Error) => {
    assert.ok(error instanceof CheckpointError, `${error.name}: ${error.message}`);
    assert.match(error.message, message);
    assert.ok(error.message.includes(path), "the message names the file");
    return true;
  });

const tensor = (dtype: unknown, shape: unknown, begin: unknown, end: unknown) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

describe("reading safetensors", () => {
  it("reads what the Python package wrote", async () => {
    await using file = await SafetensorsFile.open(golden);
    assert.equal(file.names().length, 16);
    assert.equal(file.metadata.get("format"), "pt");
    assert.deepEqual(file.entry("z8.float32").shape, [2, 3]);
    assert.deepEqual([...(await file.readFloat32("z8.float32"))], [0, 1, 2, 3, 4, 0]);
    assert.deepEqual([...(await file.readFloat32("b.half"))].slice(1), [
      -2.5,
      65504,
      2 ** -24,
      -0,
      Number.POSITIVE_INFINITY,
    ]);
    assert.deepEqual([...(await file.readFloat32("a.scalar"))], [1.5]);
    assert.equal((await file.read("a.empty")).length, 0);
    assert.deepEqual([...(await file.read("é.name"))], [1, 2, 3]);
    const part = new Uint8Array(8);
    await file.readInto("z8.float32", part, 4);
    assert.deepEqual([...new Float32Array(part.buffer)], [1, 2]);
  });

  it("names what is missing, and refuses to read past a tensor or as the wrong type", async () => {
    await using file = await SafetensorsFile.open(golden);
    assert.throws(() => file.entry("z9.float32"), /no tensor "z9.float32".*16/);
    await assert.rejects(file.readFloat32("z1.uint8"), /is U8: expected F32, F16 or BF16/);
    await assert.rejects(file.readInto("z1.uint8", new Uint8Array(4), 4), /has 6 bytes/);
  });

  it("refuses a file that was cut short, at any byte", async () => {
    const whole = await readFile(golden);
    const path = join(folder, "short.safetensors");
    for (let length = 0; length < whole.length; length += length < 16 ? 1 : 97) {
      await writeFile(path, whole.subarray(0, length));
      await refused(path, /cut short|shortest such file/);
    }
  });

  it("says so when a file shrinks after it was opened", async () => {
    const path = join(folder, "shrinks.safetensors");
    await writeFile(path, await readFile(golden));
    await using file = await SafetensorsFile.open(path);
    await truncate(path, 1200);
    await assert.rejects(
      file.read("é.name"),
      (error) => error instanceof CheckpointError && /too early/.test(error.message),
    );
  });

  it("refuses headers that do not hold together", async () => {
    await refused(await fileOf({}, 0, BigInt(MAX_HEADER_BYTES) + 1n), /header would have 26214401 bytes/);
    await refused(await fileOf({}, 0, 2n ** 63n), /header would have 9223372036854775808 bytes/);
    await refused(await fileOf("[]"), /should be an object/);
    await refused(await fileOf("{"), /not JSON/);
    await refused(await fileOf({ a: tensor("F32", [2], 0, 4) }, 4), /which is 8 bytes.*hold 4/);
    await refused(await fileOf({ a: tensor("F32", [-1], 0, 4) }, 4), /the size -1/);
    await refused(await fileOf({ a: tensor("F32", [0.5], 0, 2) }, 2), /the size 0.5/);
    await refused(await fileOf({ a: tensor("F32", ["1"], 0, 4) }, 4), /the size "1"/);
    await refused(await fileOf({ a: tensor("F33", [1], 0, 4) }, 4), /dtype "F33"/);
    await refused(await fileOf({ a: tensor("constructor", [1], 0, 4) }, 4), /dtype "constructor"/);
    await refused(await fileOf({ a: tensor("F32", [1], -4, 0) }, 4), /two whole numbers from 0/);
    await refused(await fileOf({ a: tensor("F32", [1], 4, 0) }, 4), /hold -4/);
    await refused(await fileOf({ a: { dtype: "F32", shape: [1] } }, 4), /data_offsets/);
    await refused(await fileOf({ a: tensor("F32", [1], 0, 4), b: tensor("F32", [1], 0, 4) }, 4), /overlaps/);
    await refused(await fileOf({ a: tensor("F32", [2], 0, 8), b: tensor("F32", [1], 4, 8) }, 8), /overlaps/);
    await refused(await fileOf({ a: tensor("F32", [1], 0, 4), b: tensor("F32", [1], 8, 12) }, 12), /gap/);
    await refused(await fileOf({ a: tensor("F32", [1], 0, 4) }, 5), /bytes after its last tensor/);
    await refused(await fileOf({ a: tensor("F32", [2 ** 30, 2 ** 30], 0, 4) }, 4), /more than 2\^53/);
    await refused(await fileOf({ a: tensor("F64", [2 ** 52], 0, 4) }, 4), /more than 2\^53/);
    await refused(
      await fileOf('{"a":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,4]}}', 4),
      /beyond 2\^53/,
    );
    await refused(
      await fileOf(
        '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
      ),
      /appears twice/,
    );
    await refused(await fileOf({ __metadata__: { a: 1 } }), /__metadata__ has 1/);
    await refused(await fileOf(`{"a":${"[".repeat(100)}`), /nested deeper/);
    await refused(await fileOf('{"\xff":1}'.replace("\xff", "")), /should be an object, got 1/);
    await refused(await fileOf({ a: tensor("F32", new Array(17).fill(1), 0, 4) }, 4), /17 dimensions/);
  });

  it("survives any byte of its header changed: a CheckpointError, or tensors that lie in the file", async () => {
    const whole = await readFile(golden);
    const path = join(folder, "changed.safetensors");
    // A small generator of its own, so that a failure comes again.
    let seed = 1;
    const random = (limit: number) => {
      seed = (Math.imul(seed, 48271) >>> 0) % 0x7fffffff;
      return seed % limit;
    };
    const end = 8 + whole.readUInt32LE(0);
    for (let round = 0; round < 600; round++) {
      const bytes = Buffer.from(whole);
      for (let flips = 1 + random(3); flips > 0; flips--)
        bytes[random(end)] = round % 2 ? random(256) : 0x20 + random(0x5f);
      await writeFile(path, bytes);
      try {
        await using file = await SafetensorsFile.open(path);
        for (const name of file.names()) assert.equal((await file.read(name)).length, file.entry(name).bytes);
      } catch (error) {
        assert.ok(error instanceof CheckpointError, `round ${round}: ${(error as Error).stack}`);
      }
    }
  });

  it("takes odd names for names", async () => {
    const header =
      '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"toString":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}';
    await using file = await SafetensorsFile.open(await fileOf(header, 2));
    assert.deepEqual(file.names(), ["__proto__", "toString"]);
    assert.equal(file.has("constructor"), false);
  });

  it("says what a foreign file is", async () => {
    const path = join(folder, "foreign.safetensors");
    await writeFile(path, "PK\x03\x04 and more");
    await refused(path, /pickle.*save_pretrained/s);
    await writeFile(path, Buffer.from([0x80, 2, 0x7d, 0x71, 0, 0x58, 1, 0, 0, 0]));
    await refused(path, /pickle/);
    await writeFile(path, "version https://git-lfs.github.com/spec/v1\n");
    await refused(path, /git lfs pull/);
    await refused(folder, /not a regular file/);
    await refused(join(folder, "absent"), /cannot be opened/);
  });
});

describe("writing safetensors", () => {
  it("lays a file out as the Python package does, byte for byte", async () => {
    await using file = await SafetensorsFile.open(golden);
    const path = join(folder, "written.safetensors");
    const names = file.names().reverse();
    const tensors = names.map((name) => ({ ...file.entry(name), data: () => file.read(name) }));
    await writeSafetensors(path, tensors, { format: "pt" });
    assert.deepEqual(await readFile(path), await readFile(golden));
  });

  it("leaves the old file alone when a tensor does not fit or its source fails", async () => {
    const path = join(folder, "kept.safetensors");
    await writeSafetensors(path, [{ name: "a", dtype: "U8", shape: [1], data: new Uint8Array([7]) }]);
    const before = await readFile(path);
    const good = { name: "a", dtype: "F32", shape: [1], data: new Uint8Array(4) };
    const write = (extra: object) =>
      writeSafetensors(path, [good, { name: "b", dtype: "U8", shape: [2], data: new Uint8Array(3), ...extra }]);
    await assert.rejects(write({}), /U8 \[2\] is 2 bytes, got 3/);
    await assert.rejects(write({ data: () => Promise.reject(new Error("gone")) }), /gone/);
    await assert.rejects(write({ name: "a" }), /cannot be written twice/);
    await assert.rejects(write({ name: "__metadata__" }), /cannot be written at all/);
    await assert.rejects(write({ dtype: "Q4" }), /dtype "Q4"/);
    assert.deepEqual(await readFile(path), before);
    assert.deepEqual(
      (await readdir(folder)).filter((name) => name.endsWith(".tmp")),
      [],
    );
  });

  it("turns a failing disk into a CheckpointError", { skip: process.platform !== "linux" }, async () => {
    const data = new Uint8Array(1);
    await assert.rejects(
      writeSafetensors("/dev/null/x.safetensors", [{ name: "a", dtype: "U8", shape: [1], data }]),
      (error) => error instanceof CheckpointError && /could not be written.*unchanged/.test(error.message),
    );
    const full = Object.assign(new Error("ENOSPC: no space left on device, write"), {
      code: "ENOSPC",
      syscall: "write",
    });
    await assert.rejects(
      writeSafetensors(join(folder, "full.safetensors"), [
        { name: "a", dtype: "U8", shape: [1], data: () => Promise.reject(full) },
      ]),
      (error) => error instanceof CheckpointError && /disk is full/.test(error.message),
    );
  });
});

describe("a folder of weights", () => {
  const shard = (name: string, tensors: string[]) =>
    writeSafetensors(
      join(folder, "sharded", name),
      tensors.map((t) => ({
        name: t,
        dtype: "F32",
        shape: [1],
        data: new Uint8Array(new Float32Array([t.length]).buffer),
      })),
    );
  const index = (map: object) =>
    writeFile(join(folder, "sharded/model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map: map }));

  before(async () => {
    const { mkdir } = await import("node:fs/promises");
    await mkdir(join(folder, "sharded"));
    await shard("one.safetensors", ["a", "bb"]);
    await shard("two.safetensors", ["ccc"]);
  });

  it("reads shards by their index", async () => {
    await index({ a: "one.safetensors", bb: "one.safetensors", ccc: "two.safetensors" });
    await using weights = await SafetensorsFolder.open(join(folder, "sharded"));
    assert.deepEqual(weights.names(), ["a", "bb", "ccc"]);
    for (const name of weights.names()) assert.deepEqual([...(await weights.readFloat32(name))], [name.length]);
    assert.throws(() => weights.entry("d"), CheckpointError);
  });

  it("refuses an index that lies or leads elsewhere", async () => {
    const open = () => SafetensorsFolder.open(join(folder, "sharded"));
    const fails = async (map: object, message: RegExp) => {
      await index(map);
      await assert.rejects(open(), (error: Error) => error instanceof CheckpointError && message.test(error.message));
    };
    await fails({ a: "two.safetensors" }, /says that two.safetensors holds "a"/);
    await fails({ a: "three.safetensors" }, /three.safetensors cannot be opened/);
    await fails({ a: "../kept.safetensors" }, /another folder/);
    await fails({ a: "/etc/passwd" }, /absolute/);
    await fails({ a: "C:\\x" }, /backslash/);
    await fails({ a: 3 }, /gives 3 for "a"/);
    await fails({}, /empty/);
    await writeFile(join(folder, "sharded/model.safetensors.index.json"), "{}");
    await assert.rejects(open(), /no weight_map/);
  });

  it("follows links inside a cache, and explains a folder without safetensors", async () => {
    const { mkdir } = await import("node:fs/promises");
    const other = join(folder, "linked");
    await mkdir(other);
    await assert.rejects(SafetensorsFolder.open(other), /expected model.safetensors.*it is empty/);
    await writeFile(join(other, "pytorch_model.bin"), "PK\x03\x04");
    await assert.rejects(SafetensorsFolder.open(other), /pytorch_model.bin is not loaded: it is a pickle/);
    await symlink(golden, join(other, "model.safetensors"));
    await using weights = await SafetensorsFolder.open(other);
    assert.equal(weights.names().length, 16);
    await assert.rejects(SafetensorsFolder.open(join(folder, "nowhere")), CheckpointError);
  });
});
