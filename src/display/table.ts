/** Tables: HTML for notebooks, aligned text for terminals. */
import { columnFormatter, cut, displayWidth, oneLine, pad } from "./format.js";
import { defineDisplay } from "./host.js";
import { type Child, el, type HtmlNode, type Style } from "./html.js";
import { type ImageFile, imageNode, imageOf } from "./image.js";

export type Align = "left" | "right" | "center";

export interface TableOptions {
  title?: string;
  /** A line below the table, in place of the count of rows left out. */
  footer?: string;
  /** Rows shown (30). With more, the first of them are shown and the footer says how many follow. */
  maxRows?: number;
  /** Columns shown (20). */
  maxColumns?: number;
  /**
   * Characters of a cell in HTML before it is cut; the whole start of it is in the cell's tooltip. Without it 120, or as many as
   * `maxTextCell` allows where that is more.
   */
  maxCell?: number;
  /** Characters of a cell in text (40). */
  maxTextCell?: number;
  /** How columns are aligned; otherwise numbers to the right, all else to the left. */
  align?: Record<string, Align>;
  /** How a column's values become text; otherwise by type. */
  format?: Record<string, (value: unknown) => string>;
  /** All rows there are, where `rows` holds only the first of them. */
  totalRows?: number;
  /** A second line under a column's name, such as its type. */
  subtitles?: Record<string, string>;
}

// Bytes of images in one table; further ones are named. A notebook keeps them all.
const MOST_IMAGES = 4_000_000;

type Row = readonly unknown[] | Readonly<Record<string, unknown>>;
interface Cell {
  text: string;
  image?: ImageFile | undefined;
  missing: boolean;
}

/** A table with its display. Made by {@link table}. */
export class Table {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly unknown[])[];
  readonly #options: TableOptions;
  readonly #aligns: Align[];
  readonly #cells: Cell[][];
  readonly #total: number;

  /** Use {@link table}. */
  constructor(columns: readonly string[], rows: readonly Row[], options: TableOptions) {
    this.#options = options;
    this.#total = Math.max(options.totalRows ?? 0, rows.length);
    this.columns = columns;
    this.rows = rows.map((row) => (Array.isArray(row) ? row : columns.map((name) => ownValue(row, name))));
    const shownRows = this.rows.slice(0, options.maxRows ?? 30);
    const shownColumns = columns.slice(0, options.maxColumns ?? 20);
    this.#aligns = shownColumns.map((name, index) => {
      const given = lookup(options.align, name);
      return given ?? (isNumeric(shownRows, index) ? "right" : "left");
    });
    const writers = shownColumns.map((name, index) => lookup(options.format, name) ?? writerFor(shownRows, index));
    let room = MOST_IMAGES;
    this.#cells = shownRows.map((row) =>
      writers.map((write, index) => {
        const value = row[index];
        const missing = value === null || value === undefined;
        const image = imageOf(value);
        if (image && image.bytes.length <= room) {
          room -= image.bytes.length;
          return { text: image.text, image, missing };
        }
        return { text: missing ? "null" : (image?.text ?? write(value)), missing };
      }),
    );
  }

  get #leftOut(): string[] {
    const parts: string[] = [];
    const rows = this.#total - this.#cells.length;
    const columns = this.columns.length - this.#aligns.length;
    if (rows > 0) parts.push(`… ${rows.toLocaleString("en-US")} more ${rows === 1 ? "row" : "rows"}`);
    if (columns > 0) parts.push(`${rows > 0 ? "" : "… "}${columns} more ${columns === 1 ? "column" : "columns"}`);
    const footer = this.#options.footer;
    return footer === undefined ? parts : [...parts, footer];
  }

  /** The table as a node, for use inside other nodes. */
  toHtml(): HtmlNode {
    const limit = this.#options.maxCell ?? Math.max(120, this.#options.maxTextCell ?? 0);
    const heads = this.#aligns.map((align, index) => {
      const name = this.columns[index]!;
      const subtitle = lookup(this.#options.subtitles, name);
      const small = subtitle === undefined ? [] : [el("br"), el("small", { style: quiet }, oneLine(subtitle))];
      return el("th", { style: { ...headStyle, textAlign: align }, scope: "col" }, ...cellContent(name, 60), ...small);
    });
    const body = this.#cells.map((row) =>
      el(
        "tr",
        {},
        ...row.map((cell, index) => {
          const textAlign = this.#aligns[index]!;
          // A figure and its unit stay on one line.
          const whiteSpace = textAlign === "right" ? "pre" : "pre-wrap";
          const style = { ...cellStyle, whiteSpace, textAlign, ...(cell.missing ? quiet : {}) };
          if (cell.image) return el("td", { style }, imageNode(cell.image, imageStyle));
          const long = cell.text.length > limit;
          return el("td", { style, title: long ? tooltip(cell.text) : undefined }, ...cellContent(cell.text, limit));
        }),
      ),
    );
    const title = this.#options.title;
    const grid = el("table", { style: tableStyle }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...body));
    const footer = this.#leftOut.join(", ");
    return el(
      "div",
      { style: { overflow: "auto", maxWidth: "100%" } },
      title === undefined ? null : el("div", { style: { fontWeight: "600", margin: "0 0 4px 0" } }, oneLine(title)),
      grid,
      footer === "" ? null : el("div", { style: { ...quiet, margin: "4px 0 0 0" } }, oneLine(footer)),
    );
  }

  /** The table as aligned columns of text. */
  toText(): string {
    const limit = this.#options.maxTextCell ?? 40;
    const names = this.#aligns.map((_, index) => cut(oneLine(this.columns[index]!), limit));
    const subtitles = this.#aligns.map((_, index) => {
      return cut(oneLine(lookup(this.#options.subtitles, this.columns[index]!) ?? ""), limit);
    });
    const body = this.#cells.map((row) => row.map((cell) => cut(oneLine(cell.text.slice(0, 4 * limit)), limit)));
    const lines = [names, ...(subtitles.some((text) => text !== "") ? [subtitles] : []), ...body];
    const widths = names.map((_, index) => Math.max(...lines.map((line) => displayWidth(line[index]!))));
    const write = (line: string[]): string =>
      line
        .map((text, index) => pad(text, widths[index]!, this.#aligns[index]!))
        .join("  ")
        .trimEnd();
    const head = lines.slice(0, lines.length - body.length).map(write);
    const rule = widths.map((width) => "─".repeat(width)).join("  ");
    const title = this.#options.title;
    const footer = this.#leftOut.join(", ");
    return [
      ...(title === undefined ? [] : [oneLine(title)]),
      ...head,
      rule,
      ...body.map(write),
      ...(footer === "" ? [] : [oneLine(footer)]),
    ].join("\n");
  }
}

defineDisplay(
  Table,
  (shown) => ({ "text/html": shown.toHtml().toString(), "text/plain": shown.toText() }),
  (shown) => shown.toText(),
);

/**
 * A table that shows well in notebooks and terminals.
 *
 * @param columns names in order
 * @param rows arrays in the order of the columns, or objects with the columns as keys
 * @example table(["metric", "before", "after"], [["perplexity", 12.4, 5.12]], { title: "Evaluation" })
 */
export function table(columns: readonly string[], rows: readonly Row[], options: TableOptions = {}): Table {
  return new Table(columns, rows, options);
}

/** The line between rows. Translucent greys and inherited colours read well on light and on dark pages. */
export const thinLine: string = "1px solid rgba(128,128,128,0.35)";
const tableStyle: Style = {
  borderCollapse: "collapse",
  border: "none",
  color: "inherit",
  fontVariantNumeric: "tabular-nums",
};
const headStyle: Style = { borderBottom: thinLine, padding: "4px 10px", fontWeight: "600", verticalAlign: "bottom" };
// A word wider than its cell, such as a list of ids, would lie over the next one.
const cellStyle: Style = { padding: "3px 10px", verticalAlign: "top", maxWidth: "36em", overflowWrap: "break-word" };
const imageStyle: Style = { maxHeight: "120px", maxWidth: "240px" };
const quiet: Style = { opacity: "0.6" };

function cellContent(text: string, limit: number): Child[] {
  const short = text.length > limit ? `${text.slice(0, limit - 1).trimEnd()}…` : text;
  return short.split(/\r\n?|\n/).flatMap((part, index) => (index === 0 ? [oneLine(part)] : [el("br"), oneLine(part)]));
}

const tooltip = (text: string): string => (text.length > 2000 ? `${text.slice(0, 1999)}…` : text);

function ownValue(row: Row, name: string): unknown {
  return Object.hasOwn(row, name) ? (row as Record<string, unknown>)[name] : undefined;
}

function lookup<T>(map: Record<string, T> | undefined, name: string): T | undefined {
  return map !== undefined && Object.hasOwn(map, name) ? map[name] : undefined;
}

function isNumeric(rows: readonly (readonly unknown[])[], index: number): boolean {
  let seen = false;
  for (const row of rows) {
    const value = row[index];
    if (value === null || value === undefined) continue;
    if (typeof value !== "number" && typeof value !== "bigint") return false;
    seen = true;
  }
  return seen;
}

function writerFor(rows: readonly (readonly unknown[])[], index: number): (value: unknown) => string {
  const numbers = rows.map((row) => row[index]).filter((value) => typeof value === "number");
  const writeNumber = columnFormatter(numbers);
  return (value) => (typeof value === "number" ? writeNumber(value) : cellText(value));
}

/** The text of one value of data: strings as they are, lists and records as JSON, dates in ISO form, bytes by their size. */
export function cellText(value: unknown): string {
  if (value === null || value === undefined) return "null";
  if (typeof value === "string") return value;
  if (typeof value === "number") return columnFormatter([value])(value);
  if (typeof value === "bigint") return value.toLocaleString("en-US");
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "invalid date" : value.toISOString();
  if (value instanceof Uint8Array) return `<${value.length} bytes>`;
  if (typeof value === "object") {
    try {
      return JSON.stringify(value, (_key, part) => (typeof part === "bigint" ? part.toString() : part)) ?? "null";
    } catch {
      return "[object]";
    }
  }
  return String(value);
}
