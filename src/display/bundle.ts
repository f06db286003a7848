/** Any value → what front ends show of it. */
import { inspect } from "node:util";
import { oneLine } from "./format.js";
import { displaySymbol, isDisplayable, type MimeBundle } from "./host.js";
import { HtmlNode } from "./html.js";
import { base64, type ImageFile, imageNode, imageOf } from "./image.js";

const mimeName = /^[a-z]+\/[\w.+-]+$/;
/**
 * The MIME bundle of a value: its own where it has a `Symbol.for("Jupyter.display")` method, an image for the bytes of a
 * PNG, JPEG, GIF or WebP file or a record `{ bytes, path }` of them, else its text as `console.log` prints it. A plain object is never taken for a bundle: a
 * row of data with a key `text/html` must not become a page.
 */
export function toBundle(value: unknown): MimeBundle | Promise<MimeBundle> {
  if (isDisplayable(value)) {
    try {
      const bundle = value[displaySymbol]();
      if (bundle instanceof Promise) return bundle.then(withText, (error: unknown) => failedBundle(value, error));
      return withText(bundle);
    } catch (error) {
      return failedBundle(value, error);
    }
  }
  if (value instanceof HtmlNode) return { "text/html": value.toString(), "text/plain": plainText(value.toString()) };
  const image = imageOf(value);
  if (image) return imageBundle(image);
  return { "text/plain": toText(value) };
}

/** The text of a value in a terminal. Colours only on request: front ends show the codes as they are. */
export function toText(value: unknown, colors = false): string {
  if (typeof value === "string") return value;
  if (value instanceof HtmlNode) return String((toBundle(value) as MimeBundle)["text/plain"]);
  return (
    imageOf(value)?.text ??
    inspect(value, { colors, depth: 4, maxArrayLength: 100, maxStringLength: 10_000, breakLength: 100 })
  );
}

function withText(bundle: MimeBundle): MimeBundle {
  if ("text/plain" in bundle) return bundle;
  return { ...bundle, "text/plain": `[${Object.keys(bundle).join(", ")}]` };
}

function failedBundle(value: unknown, error: unknown): MimeBundle {
  const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  const name = (value as object).constructor?.name || "object";
  return { "text/plain": `[${name}: its display failed with ${oneLine(reason)}]` };
}

/** A bundle given as such, with `text/plain` added. @throws TypeError where a key is no MIME type or a value no content. */
export function rawBundle(value: unknown): MimeBundle {
  const entries = value !== null && typeof value === "object" && !Array.isArray(value) ? Object.entries(value) : [];
  if (entries.length === 0 || !entries.every(([key, part]) => mimeName.test(key) && isContent(part))) {
    throw new TypeError('display: with raw, expected an object of MIME types, such as { "text/markdown": "*x*" }');
  }
  return withText(Object.fromEntries(entries));
}

const isContent = (part: unknown): boolean => typeof part === "string" || (typeof part === "object" && part !== null);

function imageBundle(image: ImageFile): MimeBundle {
  // Front ends draw WebP from HTML alone.
  const shown =
    image.mime === "image/webp" ? { "text/html": imageNode(image).toString() } : { [image.mime]: base64(image) };
  return { ...shown, "text/plain": image.text };
}

function plainText(markup: string): string {
  const text = markup.replace(/<(br|\/div|\/p|\/tr|\/li)>/g, "\n").replace(/<[^>]*>/g, " ");
  const names: Record<string, string> = { "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&amp;": "&" };
  return text
    .replace(/&(lt|gt|quot|#39|amp);/g, (entity) => names[entity]!)
    .replace(/[ \t]+/g, " ")
    .trim();
}
