/** Image files to pixels. They come from strangers: kind, bytes and dimensions are bounded before anything is decoded. */
import { open } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { DataError } from "../errors.js";

/** An image as a chat or a row of data has it: a path, a file: or data: URL, the bytes of a file, or a record of them as data sets keep it. */
export type ImageSource =
  | string
  | URL
  | Uint8Array
  | { readonly bytes?: Uint8Array | null; readonly path?: string | null };

/** Pixels of 8 bits, red, green, blue, row by row. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  /** (height · width · 3) */
  readonly data: Uint8Array;
}

const MAX_BYTES = 64 * 2 ** 20;
const MAX_PIXELS = 2 ** 26;
const MAX_SIDE = 32767;

/**
 * The pixels of a PNG, JPEG or WebP file as Pillow's `convert("RGB")` gives them: turned upright by its EXIF orientation, transparency left out, a
 * colour profile left alone.
 *
 * @param where what it is, for messages: "image 0 of message 1".
 * @throws DataError for what is no such file, is damaged or cut short, or is larger than is decoded (64 MB, 67 million pixels).
 */
export async function decodeImage(source: ImageSource, where: string): Promise<Pixels> {
  const bytes = await bytesOf(source, where);
  const kind = imageKind(bytes);
  if (kind === undefined)
    throw new DataError(
      `${where}: expected a PNG, JPEG or WebP file, got ${bytes.length} bytes that begin with ${hex(bytes)}. Convert the image.`,
    );
  const { default: sharp } = await import("sharp").catch((cause: Error) => {
    throw new DataError(
      `${where}: the package sharp, which decodes images, cannot be loaded here: ${cause.message.split("\n")[0]} Install the packages with the optional ones (npm ci).`,
      { cause },
    );
  });
  const input = { limitInputPixels: MAX_PIXELS, failOn: "error", ignoreIcc: true, sequentialRead: true } as const;
  try {
    const image = sharp(bytes, input);
    const { width, height, format } = await image.metadata(); // of the header alone
    if (format !== kind.toLowerCase()) throw new Error(`it begins as ${kind} and is ${format}`);
    if (width > MAX_SIDE || height > MAX_SIDE) throw new Error(`it says that it has ${width} x ${height} pixels`);
    const { data, info } = await image
      .autoOrient()
      .removeAlpha()
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new Error(`it has ${info.channels} channels`);
    return { width: info.width, height: info.height, data: new Uint8Array(data.buffer, data.byteOffset, data.length) };
  } catch (cause) {
    const reason = (cause as Error).message.split("\n")[0];
    throw new DataError(
      `${where}: this ${kind} file cannot be decoded (${reason}); images of up to ${MAX_PIXELS} pixels, ${MAX_SIDE} a side, are. Leave it out, or save it anew.`,
      { cause },
    );
  }
}

const SIGNATURES: readonly (readonly [kind: "PNG" | "JPEG", bytes: readonly number[]])[] = [
  ["PNG", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]],
  ["JPEG", [0xff, 0xd8, 0xff]],
];

/** Which of the kinds that are decoded the bytes begin as. */
export function imageKind(bytes: Uint8Array): "PNG" | "JPEG" | "WebP" | undefined {
  for (const [kind, signature] of SIGNATURES) if (signature.every((byte, index) => bytes[index] === byte)) return kind;
  const word = (start: number): string => String.fromCharCode(...bytes.subarray(start, start + 4));
  return word(0) === "RIFF" && word(8) === "WEBP" ? "WebP" : undefined;
}

async function bytesOf(source: ImageSource, where: string): Promise<Uint8Array> {
  if (source instanceof Uint8Array) return bounded(source, where);
  if (source instanceof URL) return bytesOf(source.href, where);
  if (typeof source === "string") {
    if (/^https?:/i.test(source))
      throw new DataError(
        `${where}: images are not fetched from the network (${cut(source)}); download it and give its path.`,
      );
    if (/^data:/i.test(source)) return fromDataUrl(source, where);
    return readFile(/^file:/i.test(source) ? fileURLToPath(source) : source, where);
  }
  if (typeof source === "object" && source !== null) {
    if (source.bytes instanceof Uint8Array) return bounded(source.bytes, where);
    if (typeof source.path === "string") return readFile(source.path, where);
  }
  throw new DataError(
    `${where}: expected a path, the bytes of an image file, or { bytes } or { path }, got ${source === null ? "null" : typeof source}.`,
  );
}

function fromDataUrl(url: string, where: string): Uint8Array {
  const match = /^data:image\/[\w.+-]+;base64,/i.exec(url.slice(0, 64));
  if (!match || url.length > 2 * MAX_BYTES)
    throw new DataError(`${where}: expected data:image/…;base64,… of at most ${MAX_BYTES} bytes, got ${cut(url)}.`);
  return bounded(Buffer.from(url.slice(match[0].length), "base64"), where);
}

async function readFile(path: string, where: string): Promise<Uint8Array> {
  try {
    await using file = await open(path, "r");
    const info = await file.stat();
    if (!info.isFile()) throw new Error("it is no file");
    if (info.size > MAX_BYTES) throw new Error(`it has ${info.size} bytes, at most ${MAX_BYTES} are read`);
    return await file.readFile();
  } catch (cause) {
    throw new DataError(`${where}: ${cut(path)} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}

function bounded(bytes: Uint8Array, where: string): Uint8Array {
  if (bytes.length > MAX_BYTES)
    throw new DataError(`${where}: the image file has ${bytes.length} bytes, at most ${MAX_BYTES} are decoded.`);
  return bytes;
}

const cut = (text: string): string => JSON.stringify(text.length > 120 ? `${text.slice(0, 119)}…` : text);
const hex = (bytes: Uint8Array): string =>
  bytes.length === 0 ? "nothing" : [...bytes.subarray(0, 8)].map((b) => b.toString(16).padStart(2, "0")).join(" ");
