/** Bytes of image files, as cells of data hold them. */
import { formatBytes } from "./format.js";
import { el, type HtmlNode, type Style } from "./html.js";

const signatures: readonly [mime: string, name: string, bytes: readonly number[]][] = [
  ["image/png", "PNG", [0x89, 0x50, 0x4e, 0x47]],
  ["image/jpeg", "JPEG", [0xff, 0xd8, 0xff]],
  ["image/gif", "GIF", [0x47, 0x49, 0x46, 0x38]],
];

/** The bytes of a PNG, JPEG, GIF or WebP file. */
export interface ImageFile {
  readonly bytes: Uint8Array;
  readonly mime: string;
  /** What is shown where no image can be. */
  readonly text: string;
}

/** The image that a value is: the bytes of a file, or a record `{ bytes, path }` as data sets keep them; `undefined` for all else. */
export function imageOf(value: unknown): ImageFile | undefined {
  const bytes = value instanceof Uint8Array ? value : bytesOf(value);
  const kind = bytes && kindOf(bytes);
  return kind && { bytes: bytes!, mime: kind[0], text: `[${kind[1]} image, ${formatBytes(bytes!.length)}]` };
}

function bytesOf(value: unknown): Uint8Array | undefined {
  if (typeof value !== "object" || value === null || !("bytes" in value)) return undefined;
  const others = Object.keys(value).filter((name) => name !== "bytes" && name !== "path");
  return others.length === 0 && value.bytes instanceof Uint8Array ? value.bytes : undefined;
}

function kindOf(bytes: Uint8Array): readonly [mime: string, name: string] | undefined {
  for (const [mime, name, signature] of signatures) {
    if (signature.every((byte, index) => bytes[index] === byte)) return [mime, name];
  }
  const word = (start: number): string => String.fromCharCode(...bytes.subarray(start, start + 4));
  return bytes.length > 12 && word(0) === "RIFF" && word(8) === "WEBP" ? ["image/webp", "WebP"] : undefined;
}

/** An image's bytes for a bundle or an address. */
export function base64({ bytes }: ImageFile): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

/** An image in HTML. */
export function imageNode(image: ImageFile, style: Style = {}): HtmlNode {
  return el("img", { src: `data:${image.mime};base64,${base64(image)}`, alt: image.text, title: image.text, style });
}
