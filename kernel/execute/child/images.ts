import type { MimeBundle } from "../channel.js";

const signatures: readonly [mime: string, name: string, bytes: readonly number[]][] = [
  ["image/png", "PNG", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]],
  ["image/jpeg", "JPEG", [0xff, 0xd8, 0xff]],
  ["image/gif", "GIF", [0x47, 0x49, 0x46, 0x38]],
];
/** As much of a file as is looked at for the beginning of an SVG. */
const HEAD = 1_024;

/** The bundle of a picture by its first bytes; undefined where it is none that front ends show. */
export function imageBundle(picture: Uint8Array | string): MimeBundle | undefined {
  if (typeof picture === "string") {
    if (isSvg(picture)) return { "image/svg+xml": picture, "text/plain": "[SVG]" };
    const base64 = picture.replace(/^data:image\/[\w.+-]+;base64,/, "");
    return /^[A-Za-z0-9+/\s]{16,}={0,2}\s*$/.test(base64) ? pixels(Buffer.from(base64, "base64")) : undefined;
  }
  if (!(picture instanceof Uint8Array)) return undefined;
  const found = pixels(picture);
  if (found !== undefined) return found;
  const text = Buffer.from(picture.buffer, picture.byteOffset, picture.byteLength);
  return isSvg(text.subarray(0, HEAD).toString("utf8"))
    ? { "image/svg+xml": text.toString("utf8"), "text/plain": "[SVG]" }
    : undefined;
}

/** As {@link imageBundle}, for pictures made of pixels alone: bytes that say so in their first few are nothing else. */
export function pixels(bytes: Uint8Array): MimeBundle | undefined {
  const base64 = (): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
  const size = `${bytes.length.toLocaleString("en-US")} bytes`;
  for (const [mime, name, signature] of signatures) {
    if (signature.every((byte, i) => bytes[i] === byte))
      return { [mime]: base64(), "text/plain": `[${name} image, ${size}]` };
  }
  const word = (at: number): string => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (bytes.length <= 12 || word(0) !== "RIFF" || word(8) !== "WEBP") return undefined;
  // Front ends draw WebP from HTML alone; base64 has no sign of HTML's own.
  const text = `[WebP image, ${size}]`;
  return { "text/html": `<img alt="${text}" src="data:image/webp;base64,${base64()}">`, "text/plain": text };
}

function isSvg(text: string): boolean {
  return /^\ufeff?\s*(?:<\?xml[^>]*>\s*|<!--(?:[^-]|-(?!->))*-->\s*|<!DOCTYPE[^>]*>\s*)*<svg[\s>]/i.test(
    text.slice(0, HEAD),
  );
}
