/** Blocks that are restored while they are read, beside what the gguf package makes of the same random bytes. */
import assert from "node:assert/strict";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { restoreBlocks } from "../../src/hub/gguf-blocks.js";
import { GGUF_DTYPES } from "../../src/hub/gguf-types.js";
import { restoreRowOrder } from "../../src/hub/gguf-weights.js";
import { FileLoads } from "../../src/tensor/load.js";
import { empty } from "../../src/tensor/tensor.js";
import { goldenArrays, goldenFloats } from "../golden.js";

const arrays = goldenArrays("gguf-blocks");
const KINDS = ["Q5_0", "Q4_K", "Q5_K", "Q6_K"] as const;
const typeOf = (name: string) => [...GGUF_DTYPES.values()].find((type) => type.name === name)!;
const packed = (name: string): Uint8Array => arrays.get(`${name}.bytes`)!.data as Uint8Array;

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-super-"));
});
after(() => rm(folder, { recursive: true, force: true }));

/** What the native threads make of a file's bytes. */
async function read(bytes: Uint8Array, shape: [number, number], format: string, headRows = 0): Promise<Float32Array> {
  const path = join(folder, "blocks.bin");
  await writeFile(path, bytes);
  const handle = await open(path, "r");
  const loads = new FileLoads("cpu");
  const weight = empty(shape, "float32", "cpu");
  try {
    const from = { fd: handle.fd, path, offset: 0, bytes: bytes.length };
    await loads.loadRestored(weight, from, "w", format, headRows);
    return (await weight.data()) as Float32Array;
  } finally {
    await loads.end();
    await handle.close();
    weight.dispose();
  }
}

describe("blocks that are restored while they are read", () => {
  for (const format of KINDS) {
    it(`${format}: random blocks are what the gguf package restores, bit for bit, in JavaScript and natively`, async () => {
      const wanted = goldenFloats(arrays, `${format}.restored`);
      const { blockElements } = typeOf(format);
      assert.equal(wanted.length, 24 * blockElements);
      assert.deepEqual(restoreBlocks(format, packed(format), wanted.length), wanted);
      assert.deepEqual(await read(packed(format), [12, 2 * blockElements], format), wanted);
    });

    it(`${format}: many pieces, with the rows of heads in their order`, async () => {
      const { blockElements, blockBytes } = typeOf(format);
      const [rows, columns, headRows] = [2048 + 512, (64 * 256) / (format === "Q5_0" ? 4 : 1), 128];
      const blocks = (rows * columns) / blockElements;
      const source = packed(format);
      const bytes = new Uint8Array(blocks * blockBytes); // above the 8 MiB of one piece
      for (let b = 0; b < blocks; b++) {
        const from = ((b * 7) % 24) * blockBytes;
        bytes.set(source.subarray(from, from + blockBytes), b * blockBytes);
      }
      assert.ok(bytes.length > 2 ** 23 / (format === "Q5_0" ? 2 : 1));
      const wanted = restoreRowOrder(restoreBlocks(format, bytes, rows * columns)!, rows / headRows, columns);
      const got = await read(bytes, [rows, columns], format, headRows);
      const wrong = wanted.findIndex((w, i) => !Object.is(got[i], w));
      assert.equal(wrong, -1, `${got[wrong]} for ${wanted[wrong]} at ${wrong}`);
    });
  }

  it("refuses what does not fit", async () => {
    await assert.rejects(async () => read(packed("Q4_K"), [12, 512], "Q9_K"), /no kind of block/);
    await assert.rejects(async () => read(packed("Q4_K"), [12, 500], "Q4_K"), /no blocks of 256/);
    await assert.rejects(async () => read(packed("Q4_K").subarray(1), [12, 512], "Q4_K"), /bytes are no rows/);
    await assert.rejects(async () => read(packed("Q4_K"), [6, 512], "Q4_K"), RangeError);
    await assert.rejects(async () => read(packed("Q4_K"), [12, 512], "Q4_K", 5), /no heads of 5 rows/);
  });
});
