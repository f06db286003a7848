import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { deflateSync } from "node:zlib";
import { decodeImage, type ImageSource } from "../../src/images/decode.js";
import { patchesOf, patchGrid, QWEN2_VL_PICTURES as SETTINGS } from "../../src/images/patches.js";
import { readPicture } from "../../src/images/picture.js";
import { smartSize } from "../../src/images/resize.js";
import { goldenArrays, goldenFloats, goldenPath, goldenValues } from "../golden.js";
import { shared } from "../shared.js";

const arrays = goldenArrays("images/golden");
const { sizes } = goldenValues("images/golden") as { sizes: Record<string, [number, number, number]> };
const file = (name: string): string => goldenPath(`images/${name}`);

/** Levels (patches, channels, side · side) of the first frame as the values of both. */
function values(levels: ArrayLike<number>): Float32Array {
  const area = SETTINGS.patchSize ** 2;
  const out = new Float32Array(levels.length * 2);
  for (let i = 0; i < levels.length; i++) {
    const c = Math.floor(i / area) % 3;
    const value = (levels[i]! / 255 - SETTINGS.mean[c]!) / SETTINGS.std[c]!;
    const at = Math.floor(i / area) * 2 * area + (i % area);
    out[at] = value;
    out[at + area] = value;
  }
  return out;
}

function worst(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length);
  let most = 0;
  for (let i = 0; i < b.length; i++) most = Math.max(most, Math.abs(a[i]! - b[i]!));
  return most;
}

for (const [name, grid] of Object.entries(sizes)) {
  test(`patches of ${name} are transformers'`, async () => {
    const [path, most] = name.split(" at most ") as [string, string | undefined];
    const limits = most === undefined ? {} : { maxPixels: Number(most) };
    const picture = await readPicture(file(path), SETTINGS, name, limits);
    assert.deepEqual([1, ...patchGrid(picture, SETTINGS)], grid);
    assert.equal(picture.tokens, (grid[1] * grid[2]) / 4);
    const got = patchesOf([picture], SETTINGS);
    assert.ok(worst(got, values(arrays.get(`levels.${name}`)!.data as Uint8Array)) < 1e-3);
    if (arrays.has("values") && name === "small.png")
      assert.ok(worst(got, goldenFloats(arrays, "values")) < 1e-6, "the values themselves");
  });
}

test("a path, a file URL, bytes, a record of a data set and a data: URL are the same image", async () => {
  const path = file("photo.jpg");
  const bytes = readFileSync(path);
  const want = await decodeImage(path, "it");
  const others: ImageSource[] = [
    pathToFileURL(path),
    pathToFileURL(path).href,
    bytes,
    new Uint8Array(bytes),
    { bytes, path: null },
    { bytes: null, path },
    `data:image/jpeg;base64,${bytes.toString("base64")}`,
  ];
  for (const source of others) assert.deepEqual(await decodeImage(source, "it"), want);
  assert.deepEqual([want.width, want.height, want.data.length], [123, 97, 123 * 97 * 3]);
});

function pngChunk(kind: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(kind, "latin1"), data]);
  let crc = 0xffffffff;
  for (const byte of body) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length, 0);
  body.copy(out, 4);
  out.writeUInt32BE(~crc >>> 0, 8 + data.length);
  return out;
}

/** A PNG that says that it is so large, with as many zeros compressed as are given. */
function bomb(width: number, height: number, zeros: number): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const data = pngChunk("IDAT", deflateSync(Buffer.alloc(zeros)));
  return Buffer.concat([signature, pngChunk("IHDR", header), data, pngChunk("IEND", Buffer.alloc(0))]);
}

test("files that are damaged, too large or no images are refused in words that name them", async () => {
  const fails = (source: unknown, pattern: RegExp): Promise<void> =>
    assert.rejects(decodeImage(source as ImageSource, "image 3"), (error: Error) => {
      assert.equal(error.name, "DataError");
      assert.match(error.message, /^image 3: /);
      assert.match(error.message, pattern);
      return true;
    });
  const before = process.memoryUsage().rss;
  await fails(bomb(30_000, 30_000, 100_000), /pixel limit|exceeds/);
  await fails(bomb(2 ** 31 - 1, 2 ** 31 - 1, 10), /cannot be decoded/);
  await fails(bomb(40_000, 10, 10), /40000 x 10|cannot be decoded/);
  await fails(bomb(0, 5, 10), /cannot be decoded/);
  assert.ok(process.memoryUsage().rss - before < 200 * 2 ** 20, "a bomb took memory");
  await fails(bomb(64, 64, 100), /cannot be decoded/); // its data end early
  const jpeg = readFileSync(file("photo.jpg"));
  await fails(jpeg.subarray(0, jpeg.length / 2), /cannot be decoded/);
  await fails(readFileSync(file("lossy.webp")).subarray(0, 40), /cannot be decoded/);
  await fails(
    Buffer.from("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"),
    /expected a PNG, JPEG or WebP/,
  );
  await fails(Buffer.from("GIF89a"), /begin with 47 49 46/);
  await fails(Buffer.alloc(0), /begin with nothing/);
  await fails("https://example.org/cat.png", /not fetched from the network/);
  await fails("data:text/plain;base64,AAAA", /expected data:image/);
  await fails("no/such/file.png", /cannot be read.*ENOENT/);
  await fails(goldenPath("images"), /is no file|EISDIR/);
  await fails(42, /got number/);
  await fails(null, /got null/);
  await fails({ bytes: "text" }, /got object/);
  assert.throws(() => smartSize({ width: 2010, height: 10 }, 28, SETTINGS, "image 3"), /at most 200 times/);
});

// TUNEBOOK_FUZZ=100 makes a hundred times as many.
const rounds = 60 * Number(process.env.TUNEBOOK_FUZZ ?? 1);

/** Numbers that are the same in every run. */
function generator(): (n: number) => number {
  let state = 12345;
  return (n) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % n;
  };
}

/** An image of the size that it says, or an error of ours; never anything else, and soon. */
async function survives(bytes: Uint8Array): Promise<"image" | "error"> {
  const begun = performance.now();
  const image = await decodeImage(bytes, "it").catch((error: Error) => {
    assert.equal(error.name, "DataError", error.stack);
    return undefined;
  });
  assert.ok(performance.now() - begun < 5000, "it took too long");
  if (image) assert.equal(image.data.length, image.width * image.height * 3);
  return image ? "image" : "error";
}

test("flipped bytes and cut ends of every kind give an image or an error", async () => {
  const random = generator();
  const outcomes = { image: 0, error: 0 };
  for (const name of ["small.png", "photo.jpg", "turned.jpg", "lossy.webp", "lossless.webp"]) {
    const whole = readFileSync(file(name));
    for (let round = 0; round < rounds; round++) {
      const bytes = Buffer.from(whole.subarray(0, random(4) === 0 ? random(whole.length) : whole.length));
      for (let i = 0; i < 1 + random(6) && bytes.length > 12; i++) bytes[12 + random(bytes.length - 12)] = random(256);
      outcomes[await survives(bytes)]++;
    }
  }
  if (process.env.TUNEBOOK_FUZZ) console.log(outcomes);
  assert.ok(outcomes.image > 0 && outcomes.error > 0);
});

test("chunks of a PNG that are changed, doubled, left out or in another order, with right checksums, give an image or an error", async () => {
  const random = generator();
  const outcomes = { image: 0, error: 0 };
  const largest = Buffer.from("ffffffff7fffffff00000000", "hex");
  for (const name of ["small.png", "palette.png", "clear.png"]) {
    const whole = readFileSync(file(name));
    const chunks: { kind: string; data: Buffer }[] = [];
    for (let at = 8; at < whole.length; ) {
      const length = whole.readUInt32BE(at);
      chunks.push({ kind: whole.toString("latin1", at + 4, at + 8), data: whole.subarray(at + 8, at + 8 + length) });
      at += 12 + length;
    }
    for (let round = 0; round < rounds; round++) {
      const made = chunks.map(({ kind, data }) => ({ kind, data: Buffer.from(data) }));
      const chosen = made[random(made.length)]!;
      const { data } = chosen;
      const way = random(6);
      if (way === 0) made.splice(random(made.length), 1);
      else if (way === 1) made.splice(random(made.length), 0, chosen);
      else if (way === 2) made.reverse();
      else if (way === 3) chosen.data = data.subarray(0, random(data.length + 1));
      else if (way === 4 && data.length >= 4)
        largest.copy(data, random(data.length - 3), 4 * random(3), 4 * random(3) + 4);
      else if (data.length > 0) for (let i = 0; i < 3; i++) data[random(data.length)] = random(256);
      const parts = made.map((chunk) => pngChunk(chunk.kind, chunk.data));
      outcomes[await survives(Buffer.concat([whole.subarray(0, 8), ...parts]))]++;
    }
  }
  if (process.env.TUNEBOOK_FUZZ) console.log(outcomes);
  assert.ok(outcomes.image > 0 && outcomes.error > 0);
});

const photographs = join(shared, "data/vlm_images");
test("photographs are decoded and cut into patches", {
  skip: existsSync(photographs) ? false : `${photographs} is not there`,
}, async () => {
  const names = readdirSync(photographs).filter((name) => /\.(png|jpg)$/.test(name));
  assert.ok(names.length >= 10);
  for (const name of names) {
    const picture = await readPicture(join(photographs, name), SETTINGS, name);
    assert.equal(patchesOf([picture], SETTINGS).length, picture.tokens * 4 * 1176);
  }
});
