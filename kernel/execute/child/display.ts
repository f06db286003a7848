import { inspect } from "node:util";
import type { MimeBundle } from "../channel.js";
import { arrowBundle, isArrowTable } from "./arrow.js";
import { pixels } from "./images.js";

const DISPLAY: symbol = Symbol.for("Jupyter.display");
const MIME_TYPE = /^[a-z]+\/[\w.+-]+$/;

/** Text of any value as cells show it: no colours, bounded. */
export function text(value: unknown, depth = 4): string {
  return inspect(value, { depth, maxArrayLength: 100, maxStringLength: 20_000, breakLength: 100, colors: false });
}

/**
 * The MIME bundle of a value: what its `Symbol.for("Jupyter.display")` method gives, a picture for the bytes of one, a table
 * for one of Arrow's, else its text.
 * `text/plain` is always in it.
 *
 * @param raw take an object whose keys are all MIME types as the bundle itself
 */
export function bundle(value: unknown, raw: boolean): MimeBundle | Promise<MimeBundle> {
  const method = displayMethod(value);
  if (method !== undefined) {
    const made = method.call(value);
    if (made instanceof Promise) return made.then((settled) => complete(settled, value));
    return complete(made, value);
  }
  if (raw && isBundle(value)) return complete(value, undefined);
  if (value instanceof Uint8Array) return pixels(value) ?? { "text/plain": text(value) };
  if (isArrowTable(value)) return arrowBundle(value);
  return { "text/plain": text(value) };
}

/** Plain, cloneable content for every MIME type; values without meaning are left out. */
export function clean(made: MimeBundle): MimeBundle {
  const content: MimeBundle = {};
  for (const [mime, part] of Object.entries(made)) {
    if (part === undefined || part === null) continue;
    if (part instanceof Uint8Array) content[mime] = Buffer.from(part).toString("base64");
    else if (typeof part === "string") content[mime] = unpacked(mime, part);
    else if (typeof part === "object" || isJson(mime)) content[mime] = JSON.parse(JSON.stringify(part));
    else content[mime] = String(part);
  }
  return content;
}

function complete(made: unknown, value: unknown): MimeBundle {
  if (typeof made !== "object" || made === null) return { "text/plain": text(value) };
  const content = clean(made as MimeBundle);
  if (!Object.hasOwn(content, "text/plain")) {
    const html = content["text/html"];
    content["text/plain"] = value === undefined ? (typeof html === "string" ? "[HTML]" : "[display]") : label(value);
  }
  return content;
}

function label(value: unknown): string {
  const name = (value as object).constructor?.name;
  return typeof name === "string" && name !== "" && name !== "Object" ? `[${name}]` : "[display]";
}

function displayMethod(value: unknown): (() => unknown) | undefined {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return undefined;
  const method: unknown = Reflect.get(value, DISPLAY);
  return typeof method === "function" ? (method as () => unknown) : undefined;
}

function isBundle(value: unknown): value is MimeBundle {
  if (typeof value !== "object" || value === null) return false;
  const keys = Object.keys(value);
  return keys.length > 0 && keys.every((key) => MIME_TYPE.test(key));
}

function isJson(mime: string): boolean {
  return mime === "application/json" || mime.endsWith("+json");
}

// Front ends take JSON as an object, and images as bare base64.
function unpacked(mime: string, part: string): unknown {
  if (isJson(mime)) {
    try {
      return JSON.parse(part);
    } catch {
      return part;
    }
  }
  return mime.startsWith("image/") ? part.replace(/^data:[^,]*;base64,/, "") : part;
}
