// What `import * as tslab from "tslab"` gives to cells: the displays of tslab's notebooks, under this kernel. The real
// package can only show things inside tslab's own kernel, so this one is taken even where that one is installed.
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import type { MimeBundle } from "../channel.js";
import type { Publisher } from "./meeting.js";

/** Shows content of one type under the running cell. */
export interface Display {
  javascript(code: string): void;
  html(html: string): void;
  markdown(markdown: string): void;
  latex(latex: string): void;
  svg(svg: string): void;
  png(image: Uint8Array): void;
  jpeg(image: Uint8Array): void;
  gif(image: Uint8Array): void;
  pdf(document: Uint8Array): void;
  text(text: string): void;
  /** Content of any MIME type: text, or bytes. */
  raw(contentType: string, content: string | Uint8Array): void;
}

class CellDisplay implements Display {
  readonly #id: string | undefined;
  #shown = false;

  constructor(id?: string) {
    this.#id = id;
  }

  javascript(code: string): void {
    this.raw("text/javascript", code);
  }
  html(html: string): void {
    this.raw("text/html", html);
  }
  markdown(markdown: string): void {
    this.raw("text/markdown", markdown);
  }
  latex(latex: string): void {
    this.raw("text/latex", latex);
  }
  svg(svg: string): void {
    this.raw("image/svg+xml", svg);
  }
  png(image: Uint8Array): void {
    this.raw("image/png", image);
  }
  jpeg(image: Uint8Array): void {
    this.raw("image/jpeg", image);
  }
  gif(image: Uint8Array): void {
    this.raw("image/gif", image);
  }
  pdf(document: Uint8Array): void {
    this.raw("application/pdf", document);
  }
  text(text: string): void {
    this.raw("text/plain", text);
  }

  raw(contentType: string, content: string | Uint8Array): void {
    const publisher = Reflect.get(globalThis, Symbol.for("tunebook.publish/1")) as Publisher | undefined;
    if (publisher === undefined) throw new Error("tslab's displays can only be used in a notebook's cells.");
    const bundle: MimeBundle = { [contentType]: content };
    // Where the type cannot be shown (a terminal, another front end) its text or its name stands instead.
    if (contentType !== "text/plain") bundle["text/plain"] = readable(contentType, content);
    const update = this.#shown;
    this.#shown = this.#id !== undefined;
    publisher.publish(bundle, this.#id === undefined ? {} : { id: this.#id, update });
  }
}

function readable(contentType: string, content: string | Uint8Array): string {
  if (contentType === "text/markdown" || contentType === "text/latex") return String(content);
  return `[${contentType}${typeof content === "string" ? "" : `, ${content.byteLength} bytes`}]`;
}

/** Shows content, each call in a display of its own. */
export const display: Display = new CellDisplay();

/** A display whose content is replaced by each further call. */
export function newDisplay(): Display {
  return new CellDisplay(randomUUID());
}

const require = createRequire(import.meta.url);
const versionOf = (path: string): string => (require(path) as { version: string }).version;

/** Versions in place of tslab's: this kernel's and those of what it stands on. */
export const versions: { tslab: string; typescript: string; node: string } = {
  tslab: `tunebook ${versionOf("../../../../package.json")}`,
  typescript: versionOf("typescript/package.json"),
  node: process.version,
};
