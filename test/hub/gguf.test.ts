import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { CheckpointError } from "../../src/errors.js";
import { GgufFile } from "../../src/hub/gguf.js";
import { restoreBlocks } from "../../src/hub/gguf-blocks.js";
import { checkpointName, formOf } from "../../src/hub/gguf-forms.js";
import { MoreBytesNeeded, parseGgufHeader } from "../../src/hub/gguf-header.js";
import { restoreRowOrder } from "../../src/hub/gguf-weights.js";
import { HeaderError } from "../../src/hub/safetensors-header.js";
import { FileLoads } from "../../src/tensor/load.js";
import { BlockWeight } from "../../src/tensor/ops/blocks.js";
import { empty } from "../../src/tensor/tensor.js";
import { type FileTensor, ggufFile, type Pair } from "./gguf-file.js";

const fixtures = new URL("../../../test/fixtures/hub/gguf/", import.meta.url);
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-gguf-"));
});
after(() => rm(folder, { recursive: true, force: true }));

const f32 = (count: number): Uint8Array => new Uint8Array(new Float32Array(count).fill(1.5).buffer);
const tensor = (name: string, changes: Partial<FileTensor> = {}): FileTensor => ({
  name,
  sizes: [4, 2],
  type: 0,
  data: f32(8),
  ...changes,
});
const NAME: Pair = ["general.architecture", 8, "llama"];

function fails(file: Uint8Array, message: RegExp): void {
  assert.throws(
    () => parseGgufHeader(file, file.length),
    (error: Error) => {
      assert.ok(error instanceof HeaderError, `${error.name}: ${error.message}`);
      assert.match(error.message, message);
      return true;
    },
  );
}

describe("GGUF", () => {
  it("restores blocks as the gguf package does, bit for bit", async () => {
    await using file = await GgufFile.open(new URL("blocks.gguf", fixtures).pathname);
    const bytes = await readFile(new URL("blocks.f32", fixtures));
    const wanted = new Float32Array(Uint8Array.from(bytes).buffer);
    assert.deepEqual(
      file.names().map((name) => file.entry(name).dtype),
      ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"],
    );
    let at = 0;
    for (const name of file.names()) {
      const values = await file.readFloat32(name);
      assert.deepEqual(values, wanted.subarray(at, at + values.length), name);
      at += values.length;
    }
    assert.equal(at, wanted.length);
    assert.equal(file.metadata.get("test.large"), 2n ** 60n);
    assert.deepEqual(file.metadata.get("test.list"), ["a", "é", ""]);
  });

  it("takes blocks apart into what the native side multiplies", async () => {
    await using file = await GgufFile.open(new URL("blocks.gguf", fixtures).pathname);
    const loads = new FileLoads("cpu");
    for (const dtype of ["Q8_0", "Q4_0", "Q4_1"]) {
      const name = `${dtype}.weight`;
      const { shape, offset, bytes } = file.entry(name);
      const weight = BlockWeight.empty(shape, dtype === "Q8_0" ? 8 : 4);
      await loads.loadBlocks(weight, { fd: file.fd, path: file.path, offset, bytes }, name, dtype, 0);
      const values = await weight.restore().data();
      const wanted = await file.readFloat32(name);
      wanted.forEach((w, i) => {
        assert.ok(Number(values[i]) === w, `${name} ${i}: ${values[i]} for ${w}`);
      });
      weight.dispose();
      const restored = empty(shape, "float32", "cpu"); // where float32 stays, threads write it themselves
      await loads.loadRestored(restored, { fd: file.fd, path: file.path, offset, bytes }, name, dtype, 0);
      assert.deepEqual(await restored.data(), wanted);
      restored.dispose();
    }
    await loads.end();
  });

  it("takes apart the blocks of many pieces, with the rows of heads in their order, and every scale a half can be", async () => {
    const [rows, columns, headRows] = [4096 + 512, 64 * 32, 128];
    const path = join(folder, "blocks.bin");
    const loads = new FileLoads("cpu");
    for (const [dtype, width] of [
      ["Q8_0", 34],
      ["Q4_0", 18],
      ["Q4_1", 20],
    ] as const) {
      const blocks = (rows * columns) / 32;
      const data = new Uint8Array(blocks * width);
      for (let b = 0; b < blocks; b++) {
        const half = b & 0x7fff & ~0x4000; // finite, below 2; both signs
        data[b * width] = half & 255;
        data[b * width + 1] = (half >> 8) | (b & 1 ? 0x80 : 0);
        for (let i = 2; i < width; i++)
          data[b * width + i] = (b * 7 + i * 31 + (i === 3 ? 0 : b >> 9)) & (i === 3 ? 63 : 255);
      }
      await writeFile(path, data);
      const handle = await open(path, "r");
      const weight = BlockWeight.empty([rows, columns], dtype === "Q8_0" ? 8 : 4);
      const from = { fd: handle.fd, path, offset: 0, bytes: data.length };
      await loads.loadBlocks(weight, from, "w", dtype, headRows);
      const restored = empty([rows, columns], "float32", "cpu");
      await loads.loadRestored(restored, from, "w", dtype, headRows);
      await handle.close();
      const values = await weight.restore().data();
      const wanted = restoreRowOrder(restoreBlocks(dtype, data, rows * columns)!, rows / headRows, columns);
      const wrong = wanted.findIndex((w, i) => values[i] !== w);
      assert.equal(wrong, -1, `${dtype}: ${values[wrong]} for ${wanted[wrong]} at ${wrong}`);
      weight.dispose();
      const whole = await restored.data();
      assert.equal(
        wanted.findIndex((w, i) => whole[i] !== w),
        -1,
        dtype,
      );
      restored.dispose();
    }
    await loads.end();
  });

  it("reads every kind of metadata", () => {
    const pairs: Pair[] = [
      ["u8", 0, 200],
      ["i8", 1, -3],
      ["u16", 2, 60000],
      ["i16", 3, -300],
      ["u32", 4, 4_000_000_000],
      ["i32", 5, -70000],
      ["f32", 6, 0.5],
      ["bool", 7, 1],
      ["text", 8, "ä"],
      ["list", 9, [5, [1, -2]]],
      ["u64", 10, 2 ** 40],
      ["i64", 11, -(2 ** 40)],
      ["f64", 12, 0.1],
    ];
    const { metadata } = parseGgufHeader(ggufFile(pairs, []), 10_000);
    assert.deepEqual(
      [...metadata.values()],
      [200, -3, 60000, -300, 4_000_000_000, -70000, 0.5, true, "ä", [1, -2], 2 ** 40, -(2 ** 40), 0.1],
    );
  });

  it("refuses what is damaged before anything is allocated for it", () => {
    const good = [tensor("a"), tensor("b")];
    parseGgufHeader(ggufFile([NAME], good), 10_000);
    fails(ggufFile([NAME], good, { magic: "GGML" }), /begin with "GGUF"/);
    fails(ggufFile([NAME], good, { version: 1 }), /version 1/);
    fails(ggufFile([NAME], good, { version: 0x03000000 }), /big-endian/);
    fails(ggufFile([NAME], good, { tensorCount: 2n ** 62n }), /beyond 2\^53/);
    fails(ggufFile([NAME], good, { tensorCount: 2 ** 40 }), /room for at most/);
    fails(ggufFile([NAME], good, { pairCount: 2 ** 40 }), /room for at most/);
    fails(ggufFile([NAME, NAME], good), /appears twice/);
    fails(ggufFile([NAME], [tensor("a"), tensor("a")]), /appears twice/);
    fails(ggufFile([NAME], [tensor("a", { sizes: [2 ** 31, 2 ** 31] })]), /2\^53/);
    fails(ggufFile([NAME], [tensor("a", { sizes: [2 ** 40, 4] })]), /cut short/);
    fails(ggufFile([NAME], [tensor("a", { sizes: [2, 1, 1, 1, 1] })]), /5 dimensions/);
    fails(ggufFile([NAME], [tensor("a", { type: 99 })]), /unknown type 99/);
    fails(ggufFile([NAME], [tensor("a", { type: 2 })]), /multiple of 32/);
    fails(ggufFile([NAME], [tensor("a"), tensor("b", { offset: 0 })]), /overlaps/);
    fails(ggufFile([NAME], [tensor("a"), tensor("b", { offset: 64 })]), /gap/);
    fails(ggufFile([NAME], [tensor("a"), tensor("b", { offset: 33 })]), /gap/);
    fails(ggufFile([NAME, ["general.alignment", 4, 48]], good), /power of two/);
    fails(ggufFile([NAME, ["general.alignment", 4, 8192]], good), /power of two/);
    fails(ggufFile([NAME, ["general.alignment", 4, 0]], good), /power of two/);
    fails(ggufFile([["x", 7, 2]], []), /true or false/);
    // An array of arrays, and one whose length is a lie.
    const list = ggufFile([["x", 9, [0, [1, 2, 3]]]], []);
    const nested = Buffer.from(list);
    nested.writeUInt32LE(9, 24 + 9 + 4);
    fails(nested, /kind 9/);
    const lying = Buffer.from(list);
    lying.writeBigUInt64LE(2n ** 50n, 24 + 9 + 8);
    fails(lying, /room for at most/);
  });

  it("fails with its own error at every cut and for every changed byte of the header, or reads it", () => {
    const file = ggufFile([NAME, ["n", 9, [8, ["ab", "c"]]], ["general.alignment", 4, 32]], [tensor("a"), tensor("b")]);
    for (let length = 0; length < file.length; length++) {
      const cut = file.subarray(0, length);
      assert.throws(() => parseGgufHeader(cut, length), HeaderError, `cut at ${length}`);
      // The file is whole, but only its beginning was read: the header alone decides whether that is enough.
      try {
        parseGgufHeader(cut, file.length);
      } catch (error) {
        assert.ok(error instanceof MoreBytesNeeded, `cut at ${length}: ${error}`);
      }
    }
    for (let at = 0; at < file.length; at++) {
      for (const byte of [0, 1, 0x7f, 0x80, 0xff]) {
        const changed = Buffer.from(file);
        changed[at] = byte;
        try {
          parseGgufHeader(changed, changed.length);
        } catch (error) {
          assert.ok(error instanceof HeaderError, `byte ${at} = ${byte}: ${error}`);
        }
      }
    }
  });

  it("says what a file is when it cannot be read", async () => {
    const path = join(folder, "short.gguf");
    const file = ggufFile([NAME], [tensor("a"), tensor("q", { sizes: [32, 1], type: 7, data: new Uint8Array(24) })]);
    await writeFile(path, file);
    await using opened = await GgufFile.open(path);
    await assert.rejects(opened.readFloat32("q"), /is Q5_1: expected F32, F16, BF16, Q8_0, Q4_0, Q4_1/);
    await assert.rejects(opened.readFloat32("x"), /has no tensor "x"/);
    // A file that shrinks after it was opened.
    await writeFile(path, file.subarray(0, file.length - 64));
    await assert.rejects(
      opened.readFloat32("a").then(() => opened.read("q")),
      CheckpointError,
    );
    await assert.rejects(GgufFile.open(path), /cut short/);
    await assert.rejects(GgufFile.open(join(folder, "none.gguf")), CheckpointError);
    await assert.rejects(GgufFile.open(folder), CheckpointError);
  });

  it("names tensors as a checkpoint does and puts rows in its order", () => {
    assert.equal(checkpointName(formOf("llama")!, "blk.12.attn_q.weight"), "model.layers.12.self_attn.q_proj.weight");
    assert.equal(checkpointName(formOf("llama")!, "output_norm.weight"), "model.norm.weight");
    assert.equal(checkpointName(formOf("llama")!, "blk.0.toString.weight"), "blk.0.toString.weight");
    const rows = Float32Array.from([0, 4, 1, 5, 2, 6, 3, 7, 10, 14, 11, 15, 12, 16, 13, 17]);
    assert.deepEqual([...restoreRowOrder(rows, 2, 1)], [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17]);
  });
});
