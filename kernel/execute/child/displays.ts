import type { MimeBundle } from "../channel.js";
import type { Cell, DisplayOptions } from "./cell.js";
import { imageBundle } from "./images.js";
import { tableBundle } from "./tables.js";

/** Something shown that can be replaced. As a cell's last expression it shows nothing of its own. */
export class DisplayHandle {
  readonly id: string;
  readonly #show: (value: unknown) => void;

  constructor(id: string, show: (value: unknown) => void) {
    this.id = id;
    this.#show = show;
  }

  /** Shows another value in its place. */
  update(value: unknown): void {
    this.#show(value);
  }
}

type Options = Omit<DisplayOptions, "id"> & { id?: string | true };

/** The `display` of cells: shows any value, or text as what it is. */
export interface Display {
  (value: unknown, options?: Options): DisplayHandle | undefined;
  html(markup: string, options?: Options): DisplayHandle | undefined;
  markdown(text: string, options?: Options): DisplayHandle | undefined;
  latex(text: string, options?: Options): DisplayHandle | undefined;
  svg(markup: string, options?: Options): DisplayHandle | undefined;
  image(picture: Uint8Array | ArrayBuffer | string, options?: Options): DisplayHandle | undefined;
  json(value: unknown, options?: Options): DisplayHandle | undefined;
  plotly(figure: object, options?: Options): DisplayHandle | undefined;
  vega(specification: object, options?: Options): DisplayHandle | undefined;
  table(rows: Iterable<unknown>, options?: Options & { maxRows?: number }): DisplayHandle | undefined;
  /** Shows a MIME bundle as it is. */
  raw(bundle: MimeBundle, options?: Options): DisplayHandle | undefined;
  /** Empties the cell's output; with `wait`, when the next output comes. */
  clear(options?: boolean | { wait?: boolean }): void;
}

let count = 0;
const MAX_ROWS = 100;

/** A bundle that is shown as it is, and nothing of its own. */
class Bundle {
  readonly #bundle: MimeBundle;

  constructor(bundle: MimeBundle) {
    this.#bundle = bundle;
  }

  [Symbol.for("Jupyter.display")](): MimeBundle {
    return this.#bundle;
  }
}

export function displayOf(cell: Cell): Display {
  const show = (value: unknown, options: Options = {}): DisplayHandle | undefined => {
    const { id: given, ...rest } = options;
    const id = given === true ? `tunebook-${process.pid}-${++count}` : given;
    cell.show(value, id === undefined ? rest : { ...rest, id });
    if (id === undefined) return undefined;
    return new DisplayHandle(id, (next) => cell.show(next, { id, update: true }));
  };
  const bundled = (bundle: MimeBundle, options?: Options): DisplayHandle | undefined =>
    show(new Bundle(bundle), options);
  const text = (name: string, mime: string, plain: (value: string) => string) => (value: string, options?: Options) => {
    if (typeof value !== "string") throw new TypeError(`display.${name} takes text, got ${kind(value)}.`);
    return bundled({ [mime]: value, "text/plain": plain(value) }, options);
  };
  const object = (name: string, mime: string) => (value: object, options?: Options) => {
    if (typeof value !== "object" || value === null)
      throw new TypeError(`display.${name} takes an object, got ${kind(value)}.`);
    return bundled({ [mime]: value, "text/plain": `[${name}]` }, options);
  };
  const same = (value: string): string => value;
  return Object.assign(show, {
    html: text("html", "text/html", () => "[HTML]"),
    markdown: text("markdown", "text/markdown", same),
    latex: text("latex", "text/latex", same),
    svg: text("svg", "image/svg+xml", () => "[SVG]"),
    image: (picture: Uint8Array | ArrayBuffer | string, options?: Options) => {
      const bytes = picture instanceof ArrayBuffer ? new Uint8Array(picture) : picture;
      const bundle = imageBundle(bytes);
      if (bundle === undefined) {
        throw new TypeError(
          `display.image takes the bytes of a PNG, JPEG, GIF, WebP or SVG file, its base64 text, or the text of an SVG; got ${typeof bytes === "string" ? JSON.stringify(bytes.slice(0, 40)) : `${kind(bytes)} of another kind`}. To show a file, read it: display.image(await readFile(path)).`,
        );
      }
      return bundled(bundle, options);
    },
    json: (value: unknown, options?: Options) =>
      bundled(
        { "application/json": plainJson(value), "text/plain": JSON.stringify(value, bigints, 2) ?? "undefined" },
        options,
      ),
    plotly: object("plotly", "application/vnd.plotly.v1+json"),
    vega: object("vega", "application/vnd.vegalite.v5+json"),
    table: (rows: Iterable<unknown>, options: Options & { maxRows?: number } = {}) => {
      const { maxRows, ...rest } = options;
      return bundled(rowsBundle(rows, maxRows ?? MAX_ROWS), rest);
    },
    raw: (bundle: MimeBundle, options?: Options) => bundled(bundle, options),
    clear: (options: boolean | { wait?: boolean } = false) =>
      cell.clear(typeof options === "boolean" ? options : options.wait === true),
  });
}

function plainJson(value: unknown): unknown {
  const text = JSON.stringify(value, bigints);
  return text === undefined ? null : (JSON.parse(text) as unknown);
}

const bigints = (_key: string, part: unknown): unknown => (typeof part === "bigint" ? String(part) : part);

function kind(value: unknown): string {
  if (value === null) return "null";
  return typeof value === "object" ? (value.constructor?.name ?? "an object") : `a ${typeof value}`;
}

/** Rows as a table: objects by their keys, arrays by position, anything else as one column. */
function rowsBundle(given: Iterable<unknown>, limit: number): MimeBundle {
  if (typeof (given as { [Symbol.iterator]?: unknown } | null)?.[Symbol.iterator] !== "function") {
    throw new TypeError(`display.table takes an array (or anything iterable) of rows, got ${kind(given)}.`);
  }
  const all = [...given];
  const rows = all.slice(0, limit);
  const names = new Set<string>();
  for (const row of rows) {
    if (Array.isArray(row)) for (const i of row.keys()) names.add(String(i));
    else if (typeof row === "object" && row !== null) for (const key of Object.keys(row)) names.add(key);
    else names.add("value");
  }
  const columns = [...names];
  const values = rows.map((row) =>
    columns.map((name) => {
      if (typeof row !== "object" || row === null) return name === "value" ? row : undefined;
      return Object.hasOwn(row, name) ? (row as Record<string, unknown>)[name] : undefined;
    }),
  );
  const more = all.length - rows.length;
  return tableBundle(
    columns,
    values,
    more > 0 ? `… ${more.toLocaleString("en-US")} more ${more === 1 ? "row" : "rows"}` : "",
  );
}
